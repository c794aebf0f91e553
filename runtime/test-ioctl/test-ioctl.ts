/**
 * IOMMU_TEST_CMD: Linux's tests of iommufd reach the mock IOMMU, and what the core keeps to itself, through this one
 * ioctl. It exists in a machine made with `testIoctl` and nowhere else.
 *
 * @source drivers/iommu/iommufd/selftest.c iommufd_test
 */
import { EOPNOTSUPP } from '../../uapi/abi/errno.js';
import {
  IOMMU_TEST_OP_ADD_RESERVED,
  IOMMU_TEST_OP_DEV_CHECK_CACHE,
  IOMMU_TEST_OP_DIRTY,
  IOMMU_TEST_OP_MD_CHECK_IOTLB,
  IOMMU_TEST_OP_MD_CHECK_MAP,
  IOMMU_TEST_OP_MD_CHECK_REFS,
  IOMMU_TEST_OP_MOCK_DOMAIN,
  IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS,
  IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE,
  type TestCmd,
} from '../../uapi/iommufd/test.js';
import type { UcmdOf } from '../core/ucmd.js';
import { addReserved, checkDevCache, checkIotlb, checkMap, checkRefs, makeDirty } from './domain-checks.js';
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
]);

/** @returns what the operation says, a descriptor of DMABUF_GET | -EOPNOTSUPP an unknown one */
export function testIoctl(ucmd: UcmdOf<typeof TestCmd>): number {
  const operation = OPERATIONS.get(ucmd.cmd.op);
  return operation === undefined ? -EOPNOTSUPP : operation(new TestCall(ucmd));
}
