/** NVIDIA Tegra241 CMDQV's data behind the generic structs: command queues assigned to guests. Linux 7.0. */

import { struct, type TypeOf } from '../abi/struct.js';

/**
 * Answer to IOMMU_GET_HW_INFO, type IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV: fields of the PARAM register.
 *
 * `version`: bits 3:0. `log2vcmdqs`: bits 7:4. `log2vsids`: bits 15:12. A guest sees one VINTF, so its bits 11:8
 * are 0.
 * @source include/uapi/linux/iommufd.h struct iommu_hw_info_tegra241_cmdqv
 */
export const HwInfoTegra241Cmdqv = struct(
  'iommu_hw_info_tegra241_cmdqv',
  { flags: 'u32', version: 'u8', log2vcmdqs: 'u8', log2vsids: 'u8', reserved: 'u8' },
  { size: 8 },
);
export type HwInfoTegra241Cmdqv = TypeOf<typeof HwInfoTegra241Cmdqv>;

/**
 * Data of IOMMU_VIOMMU_ALLOC, type IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV; output only.
 *
 * What to pass to mmap() for the page of VINTF registers that the guest may drive itself, bytes.
 * @source include/uapi/linux/iommufd.h struct iommu_viommu_tegra241_cmdqv
 */
export const ViommuTegra241Cmdqv = struct(
  'iommu_viommu_tegra241_cmdqv',
  { outVintfMmapOffset: 'u64', outVintfMmapLength: 'u64' },
  { size: 16 },
);
export type ViommuTegra241Cmdqv = TypeOf<typeof ViommuTegra241Cmdqv>;

/**
 * Event of an IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV queue, after its header.
 *
 * `lvcmdqErrMap`: a bit for each logical VCMDQ of the VINTF that has an error (LVCMDQ_ERR_MAP registers).
 * @source include/uapi/linux/iommufd.h struct iommu_vevent_tegra241_cmdqv
 */
export const VeventTegra241Cmdqv = struct(
  'iommu_vevent_tegra241_cmdqv',
  { lvcmdqErrMap: ['u64', 2] },
  { size: 16 },
);
export type VeventTegra241Cmdqv = TypeOf<typeof VeventTegra241Cmdqv>;
