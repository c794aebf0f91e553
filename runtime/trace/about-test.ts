/** What the payload of IOMMU_TEST_CMD says: it is another struct for each operation. */
import * as uapi from '../../uapi/iommufd/test.js';
import type { AnyStruct } from './ioctls.js';
import { structToTree } from './tree.js';

const PAYLOADS: ReadonlyMap<number, unknown> = new Map<number, unknown>([
  [uapi.IOMMU_TEST_OP_ADD_RESERVED, uapi.TestAddReserved],
  [uapi.IOMMU_TEST_OP_MOCK_DOMAIN, uapi.TestMockDomain],
  [uapi.IOMMU_TEST_OP_MD_CHECK_MAP, uapi.TestCheckMap],
  [uapi.IOMMU_TEST_OP_MD_CHECK_REFS, uapi.TestCheckRefs],
  [uapi.IOMMU_TEST_OP_CREATE_ACCESS, uapi.TestCreateAccess],
  [uapi.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, uapi.TestDestroyAccessPages],
  [uapi.IOMMU_TEST_OP_ACCESS_PAGES, uapi.TestAccessPages],
  [uapi.IOMMU_TEST_OP_ACCESS_RW, uapi.TestAccessRw],
  [uapi.IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, uapi.TestMemoryLimit],
  [uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, uapi.TestMockDomainReplace],
  [uapi.IOMMU_TEST_OP_ACCESS_REPLACE_IOAS, uapi.TestAccessReplaceIoas],
  [uapi.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, uapi.TestMockDomain],
  [uapi.IOMMU_TEST_OP_DIRTY, uapi.TestDirty],
  [uapi.IOMMU_TEST_OP_MD_CHECK_IOTLB, uapi.TestCheckIotlb],
  [uapi.IOMMU_TEST_OP_TRIGGER_IOPF, uapi.TestTriggerIopf],
  [uapi.IOMMU_TEST_OP_DEV_CHECK_CACHE, uapi.TestCheckDevCache],
  [uapi.IOMMU_TEST_OP_TRIGGER_VEVENT, uapi.TestTriggerVevent],
  [uapi.IOMMU_TEST_OP_PASID_ATTACH, uapi.TestPasidAttach],
  [uapi.IOMMU_TEST_OP_PASID_REPLACE, uapi.TestPasidAttach],
  [uapi.IOMMU_TEST_OP_PASID_DETACH, uapi.TestPasidDetach],
  [uapi.IOMMU_TEST_OP_PASID_CHECK_HWPT, uapi.TestPasidCheck],
  [uapi.IOMMU_TEST_OP_DMABUF_GET, uapi.TestDmabufGet],
  [uapi.IOMMU_TEST_OP_DMABUF_REVOKE, uapi.TestDmabufRevoke],
]);

/** @param bytes  a whole iommu_test_cmd */
export function aboutTest(bytes: Uint8Array): string | undefined {
  const struct = PAYLOADS.get(uapi.TestCmd.getField(bytes, 'op')) as AnyStruct | undefined;
  if (struct === undefined) return undefined;
  const at = uapi.TestCmd.offsets.payload;
  const { padding: _, ...fields } = structToTree(struct, bytes.subarray(at, at + struct.size));
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${String(value)}`)
    .join(' ');
}
