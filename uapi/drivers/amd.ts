/**
 * AMD IOMMU's data behind the generic structs. Linux 7.0; meanings are those of [AMD-IOMMU 48882].
 *
 * Linux 7.0 has no invalidation entry, vIOMMU type or event queue type for AMD.
 */

import { struct, type TypeOf } from '../abi/struct.js';

/**
 * Answer to IOMMU_GET_HW_INFO, type IOMMU_HW_INFO_TYPE_AMD: feature registers, raw.
 *
 * `efr`: MMIO 0x30. `efr2`: MMIO 0x1a0.
 * @source include/uapi/linux/iommufd.h struct iommu_hw_info_amd
 */
export const HwInfoAmd = struct('iommu_hw_info_amd', { efr: 'u64', efr2: 'u64' }, { size: 16 });
export type HwInfoAmd = TypeOf<typeof HwInfoAmd>;

/**
 * Input of IOMMU_HWPT_ALLOC, type IOMMU_HWPT_DATA_AMD_GUEST: a guest's device table entry, 256 bits.
 * @source include/uapi/linux/iommufd.h struct iommu_hwpt_amd_guest
 */
export const HwptAmdGuest = struct('iommu_hwpt_amd_guest', { dte: ['u64', 4] }, { size: 32 });
export type HwptAmdGuest = TypeOf<typeof HwptAmdGuest>;
