/**
 * IOMMU_HWPT_ALLOC: a hardware page table, kernel-managed (over an IOAS) or nested (over a parent). Linux 7.0.
 *
 * The data that `dataUptr` points at is one of the `Hwpt*` structs of `uapi/drivers/`.
 */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_HWPT_ALLOC = _IO(';', 0x89);

/** The table can be the parent (stage 2) of nested ones. */
export const IOMMU_HWPT_ALLOC_NEST_PARENT = 1 << 0;
/** Only devices whose IOMMU tracks dirty pages may attach. */
export const IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 1 << 1;
/** `faultId` names the queue that page faults go to. */
export const IOMMU_HWPT_FAULT_ID_VALID = 1 << 2;
/** The table may be attached to a PASID, or to a device whose PASIDs are used. */
export const IOMMU_HWPT_ALLOC_PASID = 1 << 3;

/** No data: a kernel-managed table. */
export const IOMMU_HWPT_DATA_NONE = 0;
export const IOMMU_HWPT_DATA_VTD_S1 = 1;
export const IOMMU_HWPT_DATA_ARM_SMMUV3 = 2;
export const IOMMU_HWPT_DATA_AMD_GUEST = 3;

/**
 * Allocates a page table for a device.
 *
 * `flags`: IOMMU_HWPT_*. `ptId`: an IOAS, a nest parent HWPT, or a vIOMMU. `dataType`: IOMMU_HWPT_DATA_*.
 * `dataLen`: bytes at `dataUptr`; 0 exactly when the type is NONE. Callers may stop at `reserved`. Linux does
 * not look at `reserved2`.
 * @returns 0 | -EINVAL type and length disagree, bad `ptId`, parent of another kind or IOMMU |
 *   -EOPNOTSUPP flags, reserved, a type that the driver lacks | -ENOENT `devId` or `faultId` |
 *   -EIO the SMMUv3 STE is not allowed | -EFAULT | -ENOMEM
 * @source include/uapi/linux/iommufd.h struct iommu_hwpt_alloc
 */
export const HwptAlloc = struct(
  'iommu_hwpt_alloc',
  {
    size: 'u32',
    flags: 'u32',
    devId: 'u32',
    ptId: 'u32',
    outHwptId: 'u32',
    reserved: 'u32',
    dataType: 'u32',
    dataLen: 'u32',
    dataUptr: 'u64',
    faultId: 'u32',
    reserved2: 'u32',
  },
  { size: 48, last: 'reserved' },
);
export type HwptAlloc = TypeOf<typeof HwptAlloc>;
