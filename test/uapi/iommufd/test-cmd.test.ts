/** The test ioctl's structs against what a C compiler gives for Linux 7.0's iommufd_test.h (x86-64). */
import test from 'ava';
import * as selftest from '../../../uapi/drivers/selftest.js';
import * as cmd from '../../../uapi/iommufd/test.js';

interface Declared {
  readonly cName: string;
  readonly size: number;
  readonly minSize: number;
  readonly offsets: Readonly<Record<string, number>>;
}

const declared = Object.values({ ...cmd, ...selftest } as Record<string, unknown>).filter(
  (value): value is Declared => typeof value === 'object' && value !== null && 'cName' in value,
);

/** C name, sizeof, offsetof each member; of a member of the union, from the union's start. */
const LAYOUTS: readonly (readonly [string, number, Readonly<Record<string, number>>])[] = [
  ['iommu_test_cmd', 72, { size: 0, op: 4, id: 8, reserved: 12, payload: 16, last: 64, padding: 68 }],
  ['iommu_test_cmd.add_reserved', 16, { start: 0, length: 8 }],
  ['iommu_test_cmd.mock_domain_flags', 16, { outStdevId: 0, outHwptId: 4, outIdevId: 8, devFlags: 12 }],
  ['iommu_test_cmd.mock_domain_replace', 4, { ptId: 0 }],
  ['iommu_test_cmd.check_map', 24, { iova: 0, length: 8, uptr: 16 }],
  ['iommu_test_cmd.check_refs', 24, { length: 0, uptr: 8, refs: 16, padding: 20 }],
  ['iommu_test_cmd.create_access', 8, { outAccessFd: 0, flags: 4 }],
  ['iommu_test_cmd.destroy_access_pages', 4, { accessPagesId: 0 }],
  ['iommu_test_cmd.access_pages', 32, { flags: 0, outAccessPagesId: 4, iova: 8, length: 16, uptr: 24 }],
  ['iommu_test_cmd.access_rw', 32, { iova: 0, length: 8, uptr: 16, flags: 24, padding: 28 }],
  ['iommu_test_cmd.memory_limit', 4, { limit: 0 }],
  ['iommu_test_cmd.access_replace_ioas', 4, { ioasId: 0 }],
  [
    'iommu_test_cmd.dirty',
    48,
    { flags: 0, padding: 4, iova: 8, length: 16, pageSize: 24, uptr: 32, outNrDirty: 40 },
  ],
  ['iommu_test_cmd.check_iotlb', 8, { id: 0, iotlb: 4 }],
  ['iommu_test_cmd.trigger_iopf', 24, { devId: 0, pasid: 4, grpid: 8, perm: 12, addr: 16 }],
  ['iommu_test_cmd.check_dev_cache', 8, { id: 0, cache: 4 }],
  ['iommu_test_cmd.trigger_vevent', 4, { devId: 0 }],
  ['iommu_test_cmd.pasid_attach', 8, { pasid: 0, ptId: 4 }],
  ['iommu_test_cmd.pasid_detach', 4, { pasid: 0 }],
  ['iommu_test_cmd.pasid_check', 8, { pasid: 0, hwptId: 4 }],
  ['iommu_test_cmd.dmabuf_get', 8, { length: 0, openFlags: 4 }],
  ['iommu_test_cmd.dmabuf_revoke', 8, { dmabufFd: 0, revoked: 4 }],
  ['iommu_test_hw_info', 8, { flags: 0, testReg: 4 }],
  ['iommu_hwpt_selftest', 8, { iotlb: 0, pagetableType: 4 }],
  ['iommu_hwpt_invalidate_selftest', 8, { flags: 0, iotlbId: 4 }],
  ['iommu_viommu_selftest', 24, { inData: 0, outData: 4, outMmapOffset: 8, outMmapLength: 16 }],
  ['iommu_viommu_invalidate_selftest', 12, { flags: 0, vdevId: 4, cacheId: 8 }],
  ['iommu_viommu_event_selftest', 4, { virtId: 0 }],
];

for (const [cName, size, offsets] of LAYOUTS) {
  test(`layout: ${cName} is ${size} bytes with every field where C has it`, (t) => {
    const found = declared.find((one) => one.cName === cName);
    t.is(found?.size, size);
    t.deepEqual(Object.entries(found?.offsets ?? {}), Object.entries(offsets));
  });
}

test('layout: every struct of the test ioctl is checked here', (t) => {
  t.deepEqual(declared.map(({ cName }) => cName).sort(), LAYOUTS.map(([cName]) => cName).sort());
});

test('layout: what the oldest caller must pass ends with the member that Linux names', (t) => {
  const ends = new Map(declared.map(({ cName, minSize }) => [cName, minSize]));
  t.is(ends.get('iommu_test_cmd'), 68);
  t.is(ends.get('iommu_hwpt_selftest'), 4);
  t.is(ends.get('iommu_viommu_selftest'), 8);
  t.is(ends.get('iommu_hwpt_invalidate_selftest'), 8);
});

/** Restated from iommufd_test.h. */
const CONSTANTS: Readonly<Record<string, number>> = {
  IOMMU_TEST_CMD: 0x3ba0,
  IOMMU_TEST_OP_ADD_RESERVED: 1,
  IOMMU_TEST_OP_MOCK_DOMAIN: 2,
  IOMMU_TEST_OP_MD_CHECK_MAP: 3,
  IOMMU_TEST_OP_MD_CHECK_REFS: 4,
  IOMMU_TEST_OP_CREATE_ACCESS: 5,
  IOMMU_TEST_OP_DESTROY_ACCESS_PAGES: 6,
  IOMMU_TEST_OP_ACCESS_PAGES: 7,
  IOMMU_TEST_OP_ACCESS_RW: 8,
  IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT: 9,
  IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE: 10,
  IOMMU_TEST_OP_ACCESS_REPLACE_IOAS: 11,
  IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS: 12,
  IOMMU_TEST_OP_DIRTY: 13,
  IOMMU_TEST_OP_MD_CHECK_IOTLB: 14,
  IOMMU_TEST_OP_TRIGGER_IOPF: 15,
  IOMMU_TEST_OP_DEV_CHECK_CACHE: 16,
  IOMMU_TEST_OP_TRIGGER_VEVENT: 17,
  IOMMU_TEST_OP_PASID_ATTACH: 18,
  IOMMU_TEST_OP_PASID_REPLACE: 19,
  IOMMU_TEST_OP_PASID_DETACH: 20,
  IOMMU_TEST_OP_PASID_CHECK_HWPT: 21,
  IOMMU_TEST_OP_DMABUF_GET: 22,
  IOMMU_TEST_OP_DMABUF_REVOKE: 23,
  MOCK_IOMMUPT_DEFAULT: 0,
  MOCK_IOMMUPT_HUGE: 1,
  MOCK_APERTURE_START: 0x100_0000,
  MOCK_APERTURE_LAST: 0x7fff_ffff,
  MOCK_PAGE_SIZE: 2048,
  MOCK_HUGE_PAGE_SIZE: 0x10_0000,
  MOCK_FLAGS_ACCESS_WRITE: 1,
  MOCK_FLAGS_ACCESS_SYZ: 0x1_0000,
  MOCK_ACCESS_RW_WRITE: 1,
  MOCK_ACCESS_RW_SLOW_PATH: 4,
  MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES: 1,
  MOCK_FLAGS_DEVICE_NO_DIRTY: 1,
  MOCK_FLAGS_DEVICE_PASID: 4,
  MOCK_NESTED_DOMAIN_IOTLB_ID_MAX: 3,
  MOCK_NESTED_DOMAIN_IOTLB_NUM: 4,
  MOCK_DEV_CACHE_ID_MAX: 3,
  MOCK_DEV_CACHE_NUM: 4,
  MOCK_PASID_WIDTH: 20,
  IOMMU_TEST_PASID_RESERVED: 1024,
  IOMMU_HW_INFO_TYPE_SELFTEST: 0xfeedbeef,
  IOMMU_HW_INFO_SELFTEST_REGVAL: 0xdeadbeef,
  IOMMU_HWPT_DATA_SELFTEST: 0xdead,
  IOMMU_TEST_IOTLB_DEFAULT: 0xbadbeef,
  IOMMU_TEST_DEV_CACHE_DEFAULT: 0xbaddad,
  IOMMU_HWPT_INVALIDATE_DATA_SELFTEST: 0xdeadbeef,
  IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID: 0xdadbeef,
  IOMMU_TEST_INVALIDATE_FLAG_ALL: 1,
  IOMMU_VIOMMU_TYPE_SELFTEST: 0xdeadbeef,
  IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST: 0xdeadbeef,
  IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST_INVALID: 0xdadbeef,
  IOMMU_VEVENTQ_TYPE_SELFTEST: 0xbeefbeef,
  IOMMU_HW_QUEUE_TYPE_SELFTEST: 0xdeadbeef,
  IOMMU_TEST_HW_QUEUE_MAX: 2,
};

test('constant: all of the test ioctl are those of the header', (t) => {
  const exported = Object.entries({ ...cmd, ...selftest }).filter(([, value]) => typeof value === 'number');
  t.deepEqual(Object.fromEntries(exported), CONSTANTS);
});
