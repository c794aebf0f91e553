/**
 * The mock IOMMU: one for the whole machine, without registers, with the answers that Linux's tests of iommufd expect of
 * the one in their kernel. Its devices come and go with the test ioctl, without which there is no such IOMMU.
 *
 * @source drivers/iommu/iommufd/selftest.c mock_ops
 */
import { EINVAL, ENOMEM, EOPNOTSUPP } from '../../../uapi/abi/errno.js';
import {
  HwInfoSelftest,
  HwptSelftest,
  IOMMU_HW_INFO_SELFTEST_REGVAL,
  IOMMU_HW_INFO_TYPE_SELFTEST,
  IOMMU_HWPT_DATA_SELFTEST,
} from '../../../uapi/drivers/selftest.js';
import {
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
} from '../../../uapi/iommufd/hw-info.js';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
} from '../../../uapi/iommufd/hwpt.js';
import { MOCK_PASID_WIDTH } from '../../../uapi/iommufd/test.js';
import type {
  Domain,
  DriverViommu,
  HostDevice,
  IommuInstance,
  NestedDomain,
  PagingDomain,
  ViommuEvent,
} from '../contract.js';
import { MOCK_DEVICE_FLAGS, MockDevice } from './device.js';
import { MOCK_DRIVER, MockDomain, MockNested } from './domain.js';

const PAGING_FLAGS = IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID;

export interface MockIommuOptions {
  /** Number of the IOMMU in the machine. */
  readonly index: number;
  /** Number in the machine of its first device. */
  readonly firstDevice: number;
  /** Whether an allocation is to fail: IommufdCore.allocFails. */
  readonly allocFails: (site: string) => boolean;
}

export class MockIommu implements IommuInstance {
  readonly index: number;
  readonly name = 'iommufd_selftest_iommu';
  readonly driver = MOCK_DRIVER;
  onEvent: ((event: ViommuEvent) => void) | null = null;
  readonly #options: MockIommuOptions;
  /** By ID. */
  readonly #devices = new Map<number, MockDevice>();

  constructor(options: MockIommuOptions) {
    this.index = options.index;
    this.#options = options;
  }

  /** Devices that there are. */
  get deviceCount(): number {
    return this.#devices.size;
  }

  /**
   * A new device in a group of its own.
   * @param flags  MOCK_FLAGS_DEVICE_*
   * @returns it | -EINVAL other flags | -ENOMEM
   */
  createDevice(flags: number): MockDevice | number {
    if ((flags & ~MOCK_DEVICE_FLAGS) !== 0) return -EINVAL;
    const { allocFails, firstDevice } = this.#options;
    for (const site of ['mock_dev', 'mock_dev id', 'mock_dev name', 'mock_dev group'])
      if (allocFails(site)) return -ENOMEM;
    let id = 0;
    while (this.#devices.has(id)) id++;
    const device = new MockDevice(this, firstDevice + id, id, flags);
    this.#devices.set(id, device);
    return device;
  }

  destroyDevice(device: MockDevice): void {
    this.#devices.delete(device.groupId);
  }

  hwInfo(device: HostDevice) {
    const mock = device as MockDevice;
    const dirty = mock.tracksDirty ? IOMMU_HW_CAP_DIRTY_TRACKING : 0;
    return {
      type: IOMMU_HW_INFO_TYPE_SELFTEST,
      data: HwInfoSelftest.toBytes({ testReg: IOMMU_HW_INFO_SELFTEST_REGVAL }),
      capabilities: BigInt(dirty | IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED),
      maxPasidLog2: mock.hasPasids ? MOCK_PASID_WIDTH : 0,
    };
  }

  reservedRegions(): readonly [] {
    return [];
  }

  /** @source mock_domain_alloc_paging_flags */
  allocPaging(device: HostDevice, flags: number): PagingDomain | number {
    const tracksDirty = (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0;
    if ((flags & ~PAGING_FLAGS) !== 0 || (tracksDirty && !(device as MockDevice).tracksDirty))
      return -EOPNOTSUPP;
    const { allocFails } = this.#options;
    if (allocFails('mock_domain') || allocFails('mock page table')) return -ENOMEM;
    return new MockDomain(false, (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0, tracksDirty, () =>
      allocFails('mock page table'),
    );
  }

  /** @source mock_domain_alloc_nested */
  allocNested(
    _device: HostDevice,
    parent: PagingDomain,
    dataType: number,
    data: Uint8Array,
    flags: number,
  ): NestedDomain | number {
    if ((flags & ~IOMMU_HWPT_ALLOC_PASID) !== 0) return -EOPNOTSUPP;
    if (!(parent instanceof MockDomain)) return -EINVAL;
    if (dataType !== IOMMU_HWPT_DATA_SELFTEST) return -EOPNOTSUPP;
    if (data.byteLength < HwptSelftest.minSize || data.byteLength > HwptSelftest.size) return -EINVAL;
    if (this.#options.allocFails('mock_domain_nested')) return -ENOMEM;
    return new MockNested(null, HwptSelftest.getField(data, 'iotlb'));
  }

  /** @source mock_domain_nop_attach */
  attach(device: HostDevice, domain: Domain | null): number {
    const mock = device as MockDevice;
    if (domain !== null && domain.driver !== MOCK_DRIVER) return -EINVAL;
    if (domain instanceof MockDomain && domain.dirty !== undefined && !mock.tracksDirty) return -EINVAL;
    mock.domain = domain;
    return 0;
  }

  supportsViommu(): boolean {
    return false;
  }

  allocViommu(): DriverViommu | number {
    return -EOPNOTSUPP;
  }

  /** Nothing is raised but by the test ioctl, which is served at once. */
  poll(): boolean {
    return false;
  }
}
