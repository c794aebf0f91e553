/**
 * IOMMU_TEST_CMD: Linux's tests of iommufd reach the mock IOMMU, and what the core keeps to itself, through this one
 * ioctl. It exists in a machine made with `testIoctl` and nowhere else.
 *
 * @source drivers/iommu/iommufd/selftest.c iommufd_test
 */
import { EINVAL, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import {
  IOMMU_TEST_OP_ACCESS_PAGES,
  IOMMU_TEST_OP_ACCESS_REPLACE_IOAS,
  IOMMU_TEST_OP_ACCESS_RW,
  IOMMU_TEST_OP_ADD_RESERVED,
  IOMMU_TEST_OP_CREATE_ACCESS,
  IOMMU_TEST_OP_DESTROY_ACCESS_PAGES,
  IOMMU_TEST_OP_DEV_CHECK_CACHE,
  IOMMU_TEST_OP_DIRTY,
  IOMMU_TEST_OP_DMABUF_GET,
  IOMMU_TEST_OP_DMABUF_REVOKE,
  IOMMU_TEST_OP_MD_CHECK_IOTLB,
  IOMMU_TEST_OP_MD_CHECK_MAP,
  IOMMU_TEST_OP_MD_CHECK_REFS,
  IOMMU_TEST_OP_MOCK_DOMAIN,
  IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS,
  IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE,
  IOMMU_TEST_OP_PASID_ATTACH,
  IOMMU_TEST_OP_PASID_CHECK_HWPT,
  IOMMU_TEST_OP_PASID_DETACH,
  IOMMU_TEST_OP_PASID_REPLACE,
  IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT,
  IOMMU_TEST_OP_TRIGGER_IOPF,
  IOMMU_TEST_OP_TRIGGER_VEVENT,
  type TestCmd,
  TestMemoryLimit,
} from '../../uapi/iommufd/test.js';
import type { UcmdOf } from '../core/ucmd.js';
import { accessPages, accessReplaceIoas, accessRw, createAccess, destroyAccessPages } from './access.js';
import { triggerIopf, triggerVevent } from './device-events.js';
import { dmabufGet, dmabufRevoke } from './dmabuf.js';
import { addReserved, checkDevCache, checkIotlb, checkMap, checkRefs, makeDirty } from './domain-checks.js';
import { pasidAttach, pasidCheck, pasidDetach, pasidReplace } from './pasid.js';
import { mockDomain, mockDomainFlags, mockDomainReplace } from './stdev.js';
import { TestCall } from './test-call.js';

type Operation = (call: TestCall) => number;

const OPERATIONS: ReadonlyMap<number, Operation> = new Map([
  [IOMMU_TEST_OP_ADD_RESERVED, addReserved],
  [IOMMU_TEST_OP_MOCK_DOMAIN, mockDomain],
  [IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, mockDomainFlags],
  [IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, mockDomainReplace],
  [IOMMU_TEST_OP_MD_CHECK_MAP, checkMap],
  [IOMMU_TEST_OP_MD_CHECK_REFS, checkRefs],
  [IOMMU_TEST_OP_MD_CHECK_IOTLB, checkIotlb],
  [IOMMU_TEST_OP_DEV_CHECK_CACHE, checkDevCache],
  [IOMMU_TEST_OP_DIRTY, makeDirty],
  [IOMMU_TEST_OP_CREATE_ACCESS, createAccess],
  [IOMMU_TEST_OP_ACCESS_REPLACE_IOAS, accessReplaceIoas],
  [IOMMU_TEST_OP_ACCESS_PAGES, accessPages],
  [IOMMU_TEST_OP_ACCESS_RW, accessRw],
  [IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, destroyAccessPages],
  [IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, setMemoryLimit],
  [IOMMU_TEST_OP_TRIGGER_IOPF, triggerIopf],
  [IOMMU_TEST_OP_DMABUF_GET, dmabufGet],
  [IOMMU_TEST_OP_DMABUF_REVOKE, dmabufRevoke],
  [IOMMU_TEST_OP_TRIGGER_VEVENT, triggerVevent],
  [IOMMU_TEST_OP_PASID_ATTACH, pasidAttach],
  [IOMMU_TEST_OP_PASID_REPLACE, pasidReplace],
  [IOMMU_TEST_OP_PASID_DETACH, pasidDetach],
  [IOMMU_TEST_OP_PASID_CHECK_HWPT, pasidCheck],
]);

/** Room for one page's address and its count: less is refused. */
const MIN_MEMORY_LIMIT = 12;

/**
 * How much scratch memory a batch of pages may have, so that tests see the places where one ends. Pages are not taken
 * in batches here: a sensible limit is accepted, and changes nothing.
 */
function setMemoryLimit(call: TestCall): number {
  return call.read(TestMemoryLimit).limit < MIN_MEMORY_LIMIT ? -EINVAL : 0;
}

/** @returns what the operation says, a descriptor of DMABUF_GET | -EOPNOTSUPP an unknown one */
export function testIoctl(ucmd: UcmdOf<typeof TestCmd>): number {
  const operation = OPERATIONS.get(ucmd.cmd.op);
  return operation === undefined ? -EOPNOTSUPP : operation(new TestCall(ucmd));
}
