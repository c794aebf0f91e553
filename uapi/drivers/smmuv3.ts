/**
 * Arm SMMUv3's data behind the generic structs. Linux 7.0; the words themselves are those of [IHI0070].
 *
 * All words are little-endian whatever the endianness of the guest's tables. Nothing here knows bit fields:
 * the words are passed on as they are.
 */

import { struct, type TypeOf } from '../abi/struct.js';

/**
 * Answer to IOMMU_GET_HW_INFO, type IOMMU_HW_INFO_TYPE_ARM_SMMUV3: ID registers, raw.
 *
 * `idr`: SMMU_IDR0 to IDR5. `iidr`, `aidr`: SMMU_IIDR, SMMU_AIDR. `flags`, `reserved`: 0.
 * @source include/uapi/linux/iommufd.h struct iommu_hw_info_arm_smmuv3; [IHI0070] 6.3.1 to 6.3.6
 */
export const HwInfoArmSmmuv3 = struct(
  'iommu_hw_info_arm_smmuv3',
  { flags: 'u32', reserved: 'u32', idr: ['u32', 6], iidr: 'u32', aidr: 'u32' },
  { size: 40 },
);
export type HwInfoArmSmmuv3 = TypeOf<typeof HwInfoArmSmmuv3>;

/**
 * Input of IOMMU_HWPT_ALLOC, type IOMMU_HWPT_DATA_ARM_SMMUV3: the guest's stage-1 half of an STE.
 *
 * `ste`: words 0 and 1. Allowed are V, Config, S1Fmt, S1ContextPtr, S1CDMax; EATS, S1DSS, S1CIR, S1COR, S1CSH,
 * S1STALLD. Anything else makes the allocation fail with -EIO.
 * @source include/uapi/linux/iommufd.h struct iommu_hwpt_arm_smmuv3; [IHI0070] 5.2
 */
export const HwptArmSmmuv3 = struct('iommu_hwpt_arm_smmuv3', { ste: ['u64', 2] }, { size: 16 });
export type HwptArmSmmuv3 = TypeOf<typeof HwptArmSmmuv3>;

/**
 * Entry of IOMMU_HWPT_INVALIDATE, type IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3: one guest command.
 *
 * `cmd`: as in the guest's queue. Allowed are TLBI_NSNH_ALL, TLBI_NH_ALL, TLBI_NH_ASID, TLBI_NH_VA, TLBI_NH_VAA,
 * ATC_INV, CFGI_CD, CFGI_CD_ALL; others are -EIO. VMIDs and StreamIDs are the guest's and get replaced.
 * @source include/uapi/linux/iommufd.h struct iommu_viommu_arm_smmuv3_invalidate; [IHI0070] 4
 */
export const ViommuArmSmmuv3Invalidate = struct(
  'iommu_viommu_arm_smmuv3_invalidate',
  { cmd: ['u64', 2] },
  { size: 16 },
);
export type ViommuArmSmmuv3Invalidate = TypeOf<typeof ViommuArmSmmuv3Invalidate>;

/**
 * Event of an IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 queue, after its header: an event record of 256 bits.
 *
 * `evt`: as the SMMU wrote it, but StreamID is the virtual one. Forwarded are 0x04 C_BAD_STE,
 * 0x06 F_STREAM_DISABLED, 0x08 C_BAD_SUBSTREAMID, 0x0a C_BAD_CD, 0x10 F_TRANSLATION, 0x11 F_ADDR_SIZE,
 * 0x12 F_ACCESS, 0x13 F_PERMISSION.
 * @source include/uapi/linux/iommufd.h struct iommu_vevent_arm_smmuv3; [IHI0070] 7.3
 */
export const VeventArmSmmuv3 = struct('iommu_vevent_arm_smmuv3', { evt: ['u64', 4] }, { size: 32 });
export type VeventArmSmmuv3 = TypeOf<typeof VeventArmSmmuv3>;
