/**
 * Dirty tracking of kernel-managed page tables.
 *
 * @source drivers/iommu/iommufd/hw_pagetable.c iommufd_hwpt_set_dirty_tracking, iommufd_hwpt_get_dirty_bitmap
 */
import { ENOENT, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import {
  type HwptGetDirtyBitmap,
  type HwptSetDirtyTracking,
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
} from '../../uapi/iommufd/hwpt-dirty.js';
import { OBJ_HWPT_PAGING } from '../core/objects-layout.js';
import type { UcmdOf } from '../core/ucmd.js';
import type { HwptPaging } from './hwpt.js';

/** `reserved` is not looked at. */
export function hwptSetDirtyTracking(ucmd: UcmdOf<typeof HwptSetDirtyTracking>): number {
  const { ctx, cmd } = ucmd;
  if ((cmd.flags & ~IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0) return -EOPNOTSUPP;
  const hwpt = ctx.get<HwptPaging>(cmd.hwptId, OBJ_HWPT_PAGING);
  if (hwpt === undefined) return -ENOENT;
  const enable = (cmd.flags & IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0;
  const status = hwpt.ioas.iopt.setDirtyTracking(hwpt.domain, enable);
  ctx.put(hwpt);
  return status;
}

export function hwptGetDirtyBitmap(ucmd: UcmdOf<typeof HwptGetDirtyBitmap>): number {
  const { ctx, cmd } = ucmd;
  if ((cmd.flags & ~IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0 || cmd.reserved !== 0) return -EOPNOTSUPP;
  const hwpt = ctx.get<HwptPaging>(cmd.hwptId, OBJ_HWPT_PAGING);
  if (hwpt === undefined) return -ENOENT;
  const status = hwpt.ioas.iopt.readAndClearDirty(hwpt.domain, cmd, ctx.core.current.mm);
  ctx.put(hwpt);
  return status;
}
