/** Dirty tracking of a kernel-managed page table: switch it, read (and clear) the bits. Linux 7.0. */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_HWPT_SET_DIRTY_TRACKING = _IO(';', 0x8b);
export const IOMMU_HWPT_GET_DIRTY_BITMAP = _IO(';', 0x8c);

/** On; without it, off. */
export const IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1 << 0;

/** Leave the dirty bits in the page table as they are. */
export const IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1 << 0;

/**
 * Switches dirty tracking. Switching on starts from all clean.
 *
 * `flags`: IOMMU_HWPT_DIRTY_TRACKING_ENABLE or 0. Linux does not look at `reserved`.
 * @returns 0 | -EOPNOTSUPP flags, or the table cannot | -ENOENT
 * @source include/uapi/linux/iommufd.h struct iommu_hwpt_set_dirty_tracking
 */
export const HwptSetDirtyTracking = struct(
  'iommu_hwpt_set_dirty_tracking',
  { size: 'u32', flags: 'u32', hwptId: 'u32', reserved: 'u32' },
  { size: 16, last: 'reserved' },
);
export type HwptSetDirtyTracking = TypeOf<typeof HwptSetDirtyTracking>;

/**
 * Ors dirty pages into a bitmap.
 *
 * `iova`, `length`: bytes. `pageSize`: bytes that one bit stands for. `data`: user address of the bitmap in
 * little-endian u64 words; bit 0 of the first is the page at `iova`. `hwptId` precedes `flags`, unlike above.
 * A range that leads into a hole is read up to it, and where the bitmap is no memory its bits are lost: neither is an
 * error.
 * @returns 0 | -EOPNOTSUPP flags, reserved, or the table cannot | -EINVAL page size or alignment |
 *   -EOVERFLOW the range wraps | -ENOENT | -ENOMEM
 * @source include/uapi/linux/iommufd.h struct iommu_hwpt_get_dirty_bitmap
 */
export const HwptGetDirtyBitmap = struct(
  'iommu_hwpt_get_dirty_bitmap',
  {
    size: 'u32',
    hwptId: 'u32',
    flags: 'u32',
    reserved: 'u32',
    iova: 'u64',
    length: 'u64',
    pageSize: 'u64',
    data: 'u64',
  },
  { size: 48, last: 'data' },
);
export type HwptGetDirtyBitmap = TypeOf<typeof HwptGetDirtyBitmap>;
