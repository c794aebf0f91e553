/**
 * Nested domains of the mock: four words in place of a guest's IOTLB, which an invalidation makes 0.
 *
 * @source drivers/iommu/iommufd/selftest.c __mock_domain_alloc_nested, mock_domain_cache_invalidate_user
 */
import { EINVAL, ENOMEM, EOPNOTSUPP } from '../../../uapi/abi/errno.js';
import {
  HwptInvalidateSelftest,
  HwptSelftest,
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,
  IOMMU_TEST_INVALIDATE_FLAG_ALL,
} from '../../../uapi/drivers/selftest.js';
import { MOCK_NESTED_DOMAIN_IOTLB_ID_MAX, MOCK_NESTED_DOMAIN_IOTLB_NUM } from '../../../uapi/iommufd/test.js';
import type { DriverViommu, HostDevice, NestedDomain } from '../contract.js';
import {
  copyStructFromUser,
  copyStructFromUserArray,
  type UserData,
  type UserDataArray,
} from '../user-data.js';
import { MOCK_DRIVER } from './domain.js';

/** A nested domain's vIOMMU, in which a device has to have a virtual ID to be attached. struct mock_viommu. */
export interface NestingViommu extends DriverViommu {
  /** iommufd_viommu_get_vdev_id. @returns the virtual ID, undefined without a vDEVICE */
  virtIdOf(device: HostDevice): bigint | undefined;
}

export class MockNested implements NestedDomain {
  readonly kind = 'nested';
  readonly driver = MOCK_DRIVER;
  handlesFaults = false;
  /** Of which it was allocated, null when straight on a parent. */
  readonly viommu: NestingViommu | null;
  readonly iotlb: Uint32Array;

  constructor(viommu: NestingViommu | null, iotlb: number) {
    this.viommu = viommu;
    this.iotlb = new Uint32Array(MOCK_NESTED_DOMAIN_IOTLB_NUM).fill(iotlb);
  }

  cacheInvalidate(array: UserDataArray): number {
    if (array.type !== IOMMU_HWPT_INVALIDATE_DATA_SELFTEST) return -EINVAL;
    for (let i = 0; i < array.count; i++) {
      const entry = copyStructFromUserArray(
        HwptInvalidateSelftest,
        array,
        IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,
        i,
      );
      if (typeof entry === 'number') return entry;
      const { flags, iotlbId } = entry;
      if ((flags & ~IOMMU_TEST_INVALIDATE_FLAG_ALL) !== 0) return -EOPNOTSUPP;
      if (iotlbId > MOCK_NESTED_DOMAIN_IOTLB_ID_MAX) return -EINVAL;
      if ((flags & IOMMU_TEST_INVALIDATE_FLAG_ALL) !== 0) this.iotlb.fill(0);
      else this.iotlb[iotlbId] = 0;
      array.handled++;
    }
    return 0;
  }

  free(): void {
    // Nothing is held.
  }
}

/** @returns a nested domain | -EOPNOTSUPP another type of data | -EINVAL its length | -EFAULT | -ENOMEM */
export function allocMockNested(
  viommu: NestingViommu | null,
  data: UserData,
  allocFails: (site: string) => boolean,
): MockNested | number {
  if (data.type !== IOMMU_HWPT_DATA_SELFTEST) return -EOPNOTSUPP;
  const asked = copyStructFromUser(HwptSelftest, data, IOMMU_HWPT_DATA_SELFTEST);
  if (typeof asked === 'number') return asked;
  return allocFails('mock_domain_nested') ? -ENOMEM : new MockNested(viommu, asked.iotlb);
}
