/**
 * IOMMU_HWPT_INVALIDATE: a guest's cache invalidations, in a batch. Linux 7.0.
 *
 * The array at `dataUptr` holds one of the `*Invalidate` structs of `uapi/drivers/`.
 */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_HWPT_INVALIDATE = _IO(';', 0x8d);

/** For a nested HWPT. */
export const IOMMU_HWPT_INVALIDATE_DATA_VTD_S1 = 0;
/** For a vIOMMU. */
export const IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 = 1;

/**
 * Invalidates on behalf of a guest.
 *
 * `hwptId`: a nested HWPT, or a vIOMMU. `dataType`: one of the constants above. `entryLen`: bytes per entry.
 * `entryNum`: in, entries at `dataUptr`; out, entries handled, written on failure too. 0 entries only ask
 * whether the type is supported.
 * @returns 0 | -EOPNOTSUPP reserved, or the object cannot | -EINVAL entries without address or length, type,
 *   or an object of another kind | -EIO a command that is not allowed, or an unknown vSID | -ENOENT | -EFAULT
 * @source include/uapi/linux/iommufd.h struct iommu_hwpt_invalidate
 */
export const HwptInvalidate = struct(
  'iommu_hwpt_invalidate',
  {
    size: 'u32',
    hwptId: 'u32',
    dataUptr: 'u64',
    dataType: 'u32',
    entryLen: 'u32',
    entryNum: 'u32',
    reserved: 'u32',
  },
  { size: 32, last: 'reserved' },
);
export type HwptInvalidate = TypeOf<typeof HwptInvalidate>;
