/** Intel VT-d's data behind the generic structs. Linux 7.0; register and field meanings are those of [VTD]. */

import { struct, type TypeOf } from '../abi/struct.js';

/** The IOMMU must not have read-only mappings in a nest parent (Intel document 772415, erratum SPR17). */
export const IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17 = 1 << 0;

/**
 * Answer to IOMMU_GET_HW_INFO, type IOMMU_HW_INFO_TYPE_INTEL_VTD.
 *
 * `flags`: IOMMU_HW_INFO_VTD_*. `capReg`, `ecapReg`: CAP_REG and ECAP_REG, raw.
 * @source include/uapi/linux/iommufd.h struct iommu_hw_info_vtd; [VTD] 11.4.2, 11.4.3
 */
export const HwInfoVtd = struct(
  'iommu_hw_info_vtd',
  { flags: 'u32', reserved: 'u32', capReg: 'u64', ecapReg: 'u64' },
  { size: 24 },
);
export type HwInfoVtd = TypeOf<typeof HwInfoVtd>;

/** Supervisor requests are allowed. */
export const IOMMU_VTD_S1_SRE = 1 << 0;
/** Extended accessed flag. */
export const IOMMU_VTD_S1_EAFE = 1 << 1;
/** Write protection applies to supervisor requests. */
export const IOMMU_VTD_S1_WPE = 1 << 2;

/**
 * Input of IOMMU_HWPT_ALLOC, type IOMMU_HWPT_DATA_VTD_S1: a guest's stage-1 table.
 *
 * `flags`: IOMMU_VTD_S1_*, 64 bits wide. `pgtblAddr`: guest physical, bytes. `addrWidth`: bits.
 * @source include/uapi/linux/iommufd.h struct iommu_hwpt_vtd_s1
 */
export const HwptVtdS1 = struct(
  'iommu_hwpt_vtd_s1',
  { flags: 'u64', pgtblAddr: 'u64', addrWidth: 'u32', reserved: 'u32' },
  { size: 24 },
);
export type HwptVtdS1 = TypeOf<typeof HwptVtdS1>;

/** Only leaf entries changed; paging-structure caches may stay. */
export const IOMMU_VTD_INV_FLAGS_LEAF = 1 << 0;

/**
 * Entry of IOMMU_HWPT_INVALIDATE, type IOMMU_HWPT_INVALIDATE_DATA_VTD_S1.
 *
 * `addr`: bytes, 4 KiB aligned. `npages`: of 4 KiB; (0, U64_MAX) is everything. `flags`: IOMMU_VTD_INV_FLAGS_*.
 * Device TLBs are invalidated along with it.
 * @source include/uapi/linux/iommufd.h struct iommu_hwpt_vtd_s1_invalidate
 */
export const HwptVtdS1Invalidate = struct(
  'iommu_hwpt_vtd_s1_invalidate',
  { addr: 'u64', npages: 'u64', flags: 'u32', reserved: 'u32' },
  { size: 24 },
);
export type HwptVtdS1Invalidate = TypeOf<typeof HwptVtdS1Invalidate>;
