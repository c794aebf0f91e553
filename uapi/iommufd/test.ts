/**
 * IOMMU_TEST_CMD: the ioctl by which tests reach the mock IOMMU behind an iommufd. Linux 7.0. No part of the public
 * ABI: it answers -ENOTTY unless the machine was made with its test ioctl.
 *
 *   0    4  8  12       16                                                  64   68  72
 *   |size|op|id|reserved| payload: the struct of the operation, from byte 16 |last|pad|
 *
 * The payload is a union in C. Here TestCmd holds it as bytes, and each operation has a struct of its own for it.
 *
 * @source drivers/iommu/iommufd/iommufd_test.h struct iommu_test_cmd
 */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_TEST_CMD = _IO(';', 0xa0);

/** `op`: IOMMU_TEST_OP_*. `id`: the object the operation is about; a descriptor for an access. */
export const TestCmd = struct(
  'iommu_test_cmd',
  { size: 'u32', op: 'u32', id: 'u32', reserved: 'u32', payload: ['u8', 48], last: 'u32', padding: 'u32' },
  { size: 72, last: 'last' },
);
export type TestCmd = TypeOf<typeof TestCmd>;

export const IOMMU_TEST_OP_ADD_RESERVED = 1;
export const IOMMU_TEST_OP_MOCK_DOMAIN = 2;
export const IOMMU_TEST_OP_MD_CHECK_MAP = 3;
export const IOMMU_TEST_OP_MD_CHECK_REFS = 4;
export const IOMMU_TEST_OP_CREATE_ACCESS = 5;
export const IOMMU_TEST_OP_DESTROY_ACCESS_PAGES = 6;
export const IOMMU_TEST_OP_ACCESS_PAGES = 7;
export const IOMMU_TEST_OP_ACCESS_RW = 8;
export const IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT = 9;
export const IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE = 10;
export const IOMMU_TEST_OP_ACCESS_REPLACE_IOAS = 11;
export const IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS = 12;
export const IOMMU_TEST_OP_DIRTY = 13;
export const IOMMU_TEST_OP_MD_CHECK_IOTLB = 14;
export const IOMMU_TEST_OP_TRIGGER_IOPF = 15;
export const IOMMU_TEST_OP_DEV_CHECK_CACHE = 16;
export const IOMMU_TEST_OP_TRIGGER_VEVENT = 17;
export const IOMMU_TEST_OP_PASID_ATTACH = 18;
export const IOMMU_TEST_OP_PASID_REPLACE = 19;
export const IOMMU_TEST_OP_PASID_DETACH = 20;
export const IOMMU_TEST_OP_PASID_CHECK_HWPT = 21;
export const IOMMU_TEST_OP_DMABUF_GET = 22;
export const IOMMU_TEST_OP_DMABUF_REVOKE = 23;

/** Page tables that a mock domain can have: every power of two from 2 KiB, or 4 KiB and 1 MiB alone. */
export const MOCK_IOMMUPT_DEFAULT = 0;
export const MOCK_IOMMUPT_HUGE = 1;

/** Of MOCK_IOMMUPT_DEFAULT, in bytes; LAST is inclusive. */
export const MOCK_APERTURE_START = 1 << 24;
export const MOCK_APERTURE_LAST = 0x7fff_ffff;
export const MOCK_PAGE_SIZE = 2048;
export const MOCK_HUGE_PAGE_SIZE = 512 * 2048;

/** Of ACCESS_PAGES: pin to write; `iova` is an area's number and an offset into it. */
export const MOCK_FLAGS_ACCESS_WRITE = 1 << 0;
export const MOCK_FLAGS_ACCESS_SYZ = 1 << 16;

/** Of ACCESS_RW. */
export const MOCK_ACCESS_RW_WRITE = 1 << 0;
export const MOCK_ACCESS_RW_SLOW_PATH = 1 << 2;

/** Of CREATE_ACCESS. */
export const MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES = 1 << 0;

/** Of MOCK_DOMAIN_FLAGS: a device without dirty tracking; one with PASIDs. */
export const MOCK_FLAGS_DEVICE_NO_DIRTY = 1 << 0;
export const MOCK_FLAGS_DEVICE_PASID = 1 << 2;

export const MOCK_NESTED_DOMAIN_IOTLB_ID_MAX = 3;
export const MOCK_NESTED_DOMAIN_IOTLB_NUM = 4;
export const MOCK_DEV_CACHE_ID_MAX = 3;
export const MOCK_DEV_CACHE_NUM = 4;

/** The PASID whose second attach in a row fails. */
export const IOMMU_TEST_PASID_RESERVED = 1024;

/** Bits of a PASID of a device with MOCK_FLAGS_DEVICE_PASID. */
export const MOCK_PASID_WIDTH = 20;

/** `id`: an IOAS. Bytes. */
export const TestAddReserved = struct(
  'iommu_test_cmd.add_reserved',
  { start: 'u64', length: 'u64' },
  { size: 16 },
);

/** `id`: an IOAS or a page table. Of MOCK_DOMAIN, which has no `devFlags`, and MOCK_DOMAIN_FLAGS. */
export const TestMockDomain = struct(
  'iommu_test_cmd.mock_domain_flags',
  { outStdevId: 'u32', outHwptId: 'u32', outIdevId: 'u32', devFlags: 'u32' },
  { size: 16 },
);

/** `id`: a stdev. `ptId`: in and out. */
export const TestMockDomainReplace = struct(
  'iommu_test_cmd.mock_domain_replace',
  { ptId: 'u32' },
  { size: 4 },
);

/** `id`: a page table of the mock. Bytes; `uptr` is a user address. */
export const TestCheckMap = struct(
  'iommu_test_cmd.check_map',
  { iova: 'u64', length: 'u64', uptr: 'u64' },
  { size: 24 },
);

/** `refs`: how often each page must be pinned. */
export const TestCheckRefs = struct(
  'iommu_test_cmd.check_refs',
  { length: 'u64', uptr: 'u64', refs: 'u32', padding: 'u32' },
  { size: 24 },
);

/** `id`: an IOAS. `flags`: MOCK_FLAGS_ACCESS_CREATE_*. */
export const TestCreateAccess = struct(
  'iommu_test_cmd.create_access',
  { outAccessFd: 'u32', flags: 'u32' },
  { size: 8 },
);

/** `id`: an access's descriptor. */
export const TestDestroyAccessPages = struct(
  'iommu_test_cmd.destroy_access_pages',
  { accessPagesId: 'u32' },
  { size: 4 },
);

/** `id`: an access's descriptor. `flags`: MOCK_FLAGS_ACCESS_*. `uptr`: 0, or where the same pages must be. */
export const TestAccessPages = struct(
  'iommu_test_cmd.access_pages',
  { flags: 'u32', outAccessPagesId: 'u32', iova: 'u64', length: 'u64', uptr: 'u64' },
  { size: 32 },
);

/** `id`: an access's descriptor. `flags`: MOCK_ACCESS_RW_*, MOCK_FLAGS_ACCESS_SYZ. */
export const TestAccessRw = struct(
  'iommu_test_cmd.access_rw',
  { iova: 'u64', length: 'u64', uptr: 'u64', flags: 'u32', padding: 'u32' },
  { size: 32 },
);

/** Bytes of scratch memory for a batch of pages. */
export const TestMemoryLimit = struct('iommu_test_cmd.memory_limit', { limit: 'u32' }, { size: 4 });

/** `id`: an access's descriptor. */
export const TestAccessReplaceIoas = struct(
  'iommu_test_cmd.access_replace_ioas',
  { ioasId: 'u32' },
  { size: 4 },
);

/** `id`: a page table of the mock. Sets the dirty bits of the pages whose bits are set at `uptr`. Bytes. */
export const TestDirty = struct(
  'iommu_test_cmd.dirty',
  {
    flags: 'u32',
    padding: 'u32',
    iova: 'u64',
    length: 'u64',
    pageSize: 'u64',
    uptr: 'u64',
    outNrDirty: 'u64',
  },
  { size: 48 },
);

/** `TestCmd.id`: a nested page table; `id`: which of its words. */
export const TestCheckIotlb = struct('iommu_test_cmd.check_iotlb', { id: 'u32', iotlb: 'u32' }, { size: 8 });

/** `pasid`: 0 for none. `perm`: IOMMU_PGFAULT_PERM_*. */
export const TestTriggerIopf = struct(
  'iommu_test_cmd.trigger_iopf',
  { devId: 'u32', pasid: 'u32', grpid: 'u32', perm: 'u32', addr: 'u64' },
  { size: 24 },
);

/** `TestCmd.id`: a device; `id`: which of its words. */
export const TestCheckDevCache = struct(
  'iommu_test_cmd.check_dev_cache',
  { id: 'u32', cache: 'u32' },
  { size: 8 },
);

export const TestTriggerVevent = struct('iommu_test_cmd.trigger_vevent', { devId: 'u32' }, { size: 4 });

/** `id`: a stdev. `ptId`: in and out. Of PASID_ATTACH and PASID_REPLACE. */
export const TestPasidAttach = struct(
  'iommu_test_cmd.pasid_attach',
  { pasid: 'u32', ptId: 'u32' },
  { size: 8 },
);

/** `id`: a stdev. */
export const TestPasidDetach = struct('iommu_test_cmd.pasid_detach', { pasid: 'u32' }, { size: 4 });

/** `id`: a stdev. `hwptId`: what the PASID must be attached to, 0 for nothing. */
export const TestPasidCheck = struct(
  'iommu_test_cmd.pasid_check',
  { pasid: 'u32', hwptId: 'u32' },
  { size: 8 },
);

/** Bytes, rounded up to pages. The ioctl returns the descriptor. */
export const TestDmabufGet = struct(
  'iommu_test_cmd.dmabuf_get',
  { length: 'u32', openFlags: 'u32' },
  { size: 8 },
);

/** `revoked`: 0 gives the memory back. */
export const TestDmabufRevoke = struct(
  'iommu_test_cmd.dmabuf_revoke',
  { dmabufFd: 's32', revoked: 'u32' },
  { size: 8 },
);
