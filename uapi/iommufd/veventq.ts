/**
 * IOMMU_VEVENTQ_ALLOC and the framing of what its file descriptor reads. Linux 7.0.
 *
 *     | header {sequence 3} | data | header {sequence 6} | data | header {LOST_EVENTS, sequence 9} |
 *
 * Sequence numbers count events that happened, so the gap between 3 and 6 says that two were lost. Losses that
 * no event follows are told by one header with LOST_EVENTS at the tail, which has no data.
 */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_VEVENTQ_ALLOC = _IO(';', 0x93);

/** Reserved; refused. */
export const IOMMU_VEVENTQ_TYPE_DEFAULT = 0;
export const IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 = 1;
export const IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV = 2;

/** In a header: events were lost, and no data follows. */
export const IOMMU_VEVENTQ_FLAG_LOST_EVENTS = 1 << 0;

/**
 * A new event queue of a vIOMMU; one of each type.
 *
 * `flags`: 0. `type`: IOMMU_VEVENTQ_TYPE_*. `veventqDepth`: events kept unread. `outVeventqFd`: a file
 * descriptor. Callers may stop there, before `reserved`.
 * @returns 0 | -EOPNOTSUPP flags, reserved, type 0 | -EINVAL depth 0 | -EEXIST | -ENOENT | -EMFILE | -ENOMEM
 * @source include/uapi/linux/iommufd.h struct iommu_veventq_alloc
 */
export const VeventqAlloc = struct(
  'iommu_veventq_alloc',
  {
    size: 'u32',
    flags: 'u32',
    viommuId: 'u32',
    type: 'u32',
    veventqDepth: 'u32',
    outVeventqId: 'u32',
    outVeventqFd: 'u32',
    reserved: 'u32',
  },
  { size: 32, last: 'outVeventqFd' },
);
export type VeventqAlloc = TypeOf<typeof VeventqAlloc>;

/**
 * Precedes every event in what read() yields.
 *
 * `flags`: IOMMU_VEVENTQ_FLAG_*. `sequence`: 0 to INT_MAX, then 0 again.
 * @source include/uapi/linux/iommufd.h struct iommufd_vevent_header
 */
export const VeventHeader = struct('iommufd_vevent_header', { flags: 'u32', sequence: 'u32' }, { size: 8 });
export type VeventHeader = TypeOf<typeof VeventHeader>;
