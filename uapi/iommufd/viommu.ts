/**
 * IOMMU_VIOMMU_ALLOC: one VM's slice of one physical IOMMU. Linux 7.0.
 *
 * Only the Tegra241 type passes data (`uapi/drivers/tegra241.ts`).
 */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_VIOMMU_ALLOC = _IO(';', 0x90);

/** Reserved; refused. */
export const IOMMU_VIOMMU_TYPE_DEFAULT = 0;
export const IOMMU_VIOMMU_TYPE_ARM_SMMUV3 = 1;
/** SMMUv3 with the command-queue extension; the guest's VINTF_CONFIG.HYP_OWN must read 0. */
export const IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV = 2;

/**
 * Allocates a vIOMMU.
 *
 * `flags`: 0. `type`: IOMMU_VIOMMU_TYPE_*. `devId`: any device behind the physical IOMMU. `hwptId`: a nest
 * parent. `dataLen`: bytes at `dataUptr`. Callers may stop at `outViommuId`. Linux does not look at `reserved`.
 * @returns 0 | -EOPNOTSUPP any flag, or a type that the driver lacks | -EINVAL not a nest parent, or of another
 *   SMMU | -ENOENT | -ENOMEM
 * @source include/uapi/linux/iommufd.h struct iommu_viommu_alloc
 */
export const ViommuAlloc = struct(
  'iommu_viommu_alloc',
  {
    size: 'u32',
    flags: 'u32',
    type: 'u32',
    devId: 'u32',
    hwptId: 'u32',
    outViommuId: 'u32',
    dataLen: 'u32',
    reserved: 'u32',
    dataUptr: 'u64',
  },
  { size: 40, last: 'outViommuId' },
);
export type ViommuAlloc = TypeOf<typeof ViommuAlloc>;
