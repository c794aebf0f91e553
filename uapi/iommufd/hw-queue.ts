/** IOMMU_HW_QUEUE_ALLOC: a queue in guest memory that the hardware reads by itself. Linux 7.0. */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_HW_QUEUE_ALLOC = _IO(';', 0x94);

/** Reserved; refused. */
export const IOMMU_HW_QUEUE_TYPE_DEFAULT = 0;
/** A VCMDQ: allocated from index 0 up, destroyed from the last down. */
export const IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV = 1;

/**
 * Hands a guest queue to the hardware and pins its memory.
 *
 * `flags`: 0. `type`: IOMMU_HW_QUEUE_TYPE_*. `index`: logical, per vIOMMU and type. `nestingParentIova`,
 * `length`: bytes; for a VCMDQ the length is a power of two and aligns the address.
 * @returns 0 | -EOPNOTSUPP any flag, or a type that the driver lacks | -EINVAL length 0, size, alignment,
 *   index | -EOVERFLOW the range wraps | -EEXIST | -EIO the index before is missing | -ENOENT not mapped |
 *   -EFAULT not contiguous | -ENOMEM
 * @source include/uapi/linux/iommufd.h struct iommu_hw_queue_alloc
 */
export const HwQueueAlloc = struct(
  'iommu_hw_queue_alloc',
  {
    size: 'u32',
    flags: 'u32',
    viommuId: 'u32',
    type: 'u32',
    index: 'u32',
    outHwQueueId: 'u32',
    nestingParentIova: 'u64',
    length: 'u64',
  },
  { size: 40, last: 'length' },
);
export type HwQueueAlloc = TypeOf<typeof HwQueueAlloc>;
