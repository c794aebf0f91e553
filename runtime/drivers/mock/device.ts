/**
 * A device behind the mock IOMMU: made and destroyed by the test ioctl, does no DMA. It has four words in place of an
 * ATC, which an invalidation through its vIOMMU makes 0.
 *
 * @source drivers/iommu/iommufd/selftest.c struct mock_dev, mock_dev_create
 */
import { IOMMU_TEST_DEV_CACHE_DEFAULT } from '../../../uapi/drivers/selftest.js';
import {
  MOCK_DEV_CACHE_NUM,
  MOCK_FLAGS_DEVICE_NO_DIRTY,
  MOCK_FLAGS_DEVICE_PASID,
} from '../../../uapi/iommufd/test.js';
import type { Domain, HostDevice } from '../contract.js';
import type { MockIommu } from './iommu.js';

/** What a device can be made with. */
export const MOCK_DEVICE_FLAGS = MOCK_FLAGS_DEVICE_NO_DIRTY | MOCK_FLAGS_DEVICE_PASID;

export class MockDevice implements HostDevice {
  readonly index: number;
  readonly name: string;
  readonly iommu: MockIommu;
  /** Nothing tells its transactions from others'. */
  readonly streamId = 0;
  readonly groupId: number;
  readonly ownedByTest = true;
  readonly cache = new Uint32Array(MOCK_DEV_CACHE_NUM).fill(IOMMU_TEST_DEV_CACHE_DEFAULT);
  /** What it is pointed at; null is blocked. */
  domain: Domain | null = null;
  readonly #flags: number;

  /** @param id  no other device of the IOMMU has it @param flags  MOCK_FLAGS_DEVICE_* */
  constructor(iommu: MockIommu, index: number, id: number, flags: number) {
    this.iommu = iommu;
    this.index = index;
    this.name = `iommufd_mock${id}`;
    this.groupId = id;
    this.#flags = flags;
  }

  get tracksDirty(): boolean {
    return (this.#flags & MOCK_FLAGS_DEVICE_NO_DIRTY) === 0;
  }

  get hasPasids(): boolean {
    return (this.#flags & MOCK_FLAGS_DEVICE_PASID) !== 0;
  }
}
