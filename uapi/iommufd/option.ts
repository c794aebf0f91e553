/** IOMMU_OPTION: get and set one 64-bit value, for the whole fd or one object. Linux 7.0. */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_OPTION = _IO(';', 0x87);

/** How pinned memory is charged: 0 to the user, 1 to the process. Whole fd, so `objectId` is 0. */
export const IOMMU_OPTION_RLIMIT_MODE = 0;
/** Whether neighbouring pages may share a large entry: 1 (default) or 0. `objectId` is an IOAS. */
export const IOMMU_OPTION_HUGE_PAGES = 1;

export const IOMMU_OPTION_OP_SET = 0;
export const IOMMU_OPTION_OP_GET = 1;

/**
 * Reads or writes an option.
 *
 * `optionId`: IOMMU_OPTION_*. `op`: IOMMU_OPTION_OP_*. `val64`: in for SET; written back on every success.
 * @returns 0 | -EOPNOTSUPP unknown option or op, reserved, `objectId` on a global option | -EINVAL value |
 *   -EPERM RLIMIT_MODE without privilege | -EBUSY RLIMIT_MODE after the first object | -ENOENT
 * @source include/uapi/linux/iommufd.h struct iommu_option
 */
export const Option = struct(
  'iommu_option',
  { size: 'u32', optionId: 'u32', op: 'u16', reserved: 'u16', objectId: 'u32', val64: 'u64' },
  { size: 24, last: 'val64' },
);
export type Option = TypeOf<typeof Option>;
