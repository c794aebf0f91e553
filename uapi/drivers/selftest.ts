/**
 * What the mock IOMMU puts behind the generic structs. Linux 7.0. No part of the public ABI: it exists only in a machine
 * made with its test ioctl.
 *
 * @source drivers/iommu/iommufd/iommufd_test.h
 */

import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_HW_INFO_TYPE_SELFTEST = 0xfeedbeef;
export const IOMMU_HW_INFO_SELFTEST_REGVAL = 0xdeadbeef;

/** Answer to IOMMU_GET_HW_INFO; `testReg` is IOMMU_HW_INFO_SELFTEST_REGVAL. */
export const HwInfoSelftest = struct('iommu_test_hw_info', { flags: 'u32', testReg: 'u32' }, { size: 8 });
export type HwInfoSelftest = TypeOf<typeof HwInfoSelftest>;

export const IOMMU_HWPT_DATA_SELFTEST = 0xdead;
export const IOMMU_TEST_IOTLB_DEFAULT = 0xbadbeef;
export const IOMMU_TEST_DEV_CACHE_DEFAULT = 0xbaddad;

/**
 * Data of IOMMU_HWPT_ALLOC. `iotlb`: what a nested page table's words begin as. `pagetableType`: MOCK_IOMMUPT_* of
 * a paging one.
 */
export const HwptSelftest = struct(
  'iommu_hwpt_selftest',
  { iotlb: 'u32', pagetableType: 'u32' },
  { size: 8, last: 'iotlb' },
);
export type HwptSelftest = TypeOf<typeof HwptSelftest>;

export const IOMMU_HWPT_INVALIDATE_DATA_SELFTEST = 0xdeadbeef;
/** A type that the mock does not know. */
export const IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID = 0xdadbeef;

/** All words, whatever `iotlbId` or `cacheId`. */
export const IOMMU_TEST_INVALIDATE_FLAG_ALL = 1 << 0;

/** Entry of IOMMU_HWPT_INVALIDATE on a nested page table: its words become 0. */
export const HwptInvalidateSelftest = struct(
  'iommu_hwpt_invalidate_selftest',
  { flags: 'u32', iotlbId: 'u32' },
  { size: 8 },
);
export type HwptInvalidateSelftest = TypeOf<typeof HwptInvalidateSelftest>;

export const IOMMU_VIOMMU_TYPE_SELFTEST = 0xdeadbeef;

/**
 * Data of IOMMU_VIOMMU_ALLOC. `outData`: `inData` again, which is also the first word of what an mmap of the iommufd
 * at `outMmapOffset` shows. Bytes.
 */
export const ViommuSelftest = struct(
  'iommu_viommu_selftest',
  { inData: 'u32', outData: 'u32', outMmapOffset: 'u64', outMmapLength: 'u64' },
  { size: 24, last: 'outData' },
);
export type ViommuSelftest = TypeOf<typeof ViommuSelftest>;

export const IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST = 0xdeadbeef;
/** A type that the mock does not know. */
export const IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST_INVALID = 0xdadbeef;

/** Entry of IOMMU_HWPT_INVALIDATE on a vIOMMU: words of a device, by its virtual ID, become 0. */
export const ViommuInvalidateSelftest = struct(
  'iommu_viommu_invalidate_selftest',
  { flags: 'u32', vdevId: 'u32', cacheId: 'u32' },
  { size: 12 },
);
export type ViommuInvalidateSelftest = TypeOf<typeof ViommuInvalidateSelftest>;

export const IOMMU_VEVENTQ_TYPE_SELFTEST = 0xbeefbeef;

/** Event of such a queue, after its header. */
export const ViommuEventSelftest = struct('iommu_viommu_event_selftest', { virtId: 'u32' }, { size: 4 });
export type ViommuEventSelftest = TypeOf<typeof ViommuEventSelftest>;

export const IOMMU_HW_QUEUE_TYPE_SELFTEST = 0xdeadbeef;
/** Queues of one vIOMMU. */
export const IOMMU_TEST_HW_QUEUE_MAX = 2;
