/**
 * The mock IOMMU: one for the whole machine, without registers, with the answers that Linux's tests of iommufd expect of
 * the one in their kernel. Its devices come and go with the test ioctl, without which there is no such IOMMU.
 *
 * @source drivers/iommu/iommufd/selftest.c mock_ops
 */
import type { FrameAllocator } from '../../../hw/memory/frame-allocator.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { EINVAL, ENOMEM, EOPNOTSUPP } from '../../../uapi/abi/errno.js';
import {
  HwInfoSelftest,
  HwptSelftest,
  IOMMU_HW_INFO_SELFTEST_REGVAL,
  IOMMU_HW_INFO_TYPE_SELFTEST,
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_VIOMMU_TYPE_SELFTEST,
} from '../../../uapi/drivers/selftest.js';
import {
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
} from '../../../uapi/iommufd/hw-info.js';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_NONE,
} from '../../../uapi/iommufd/hwpt.js';
import { MOCK_IOMMUPT_DEFAULT, MOCK_IOMMUPT_HUGE } from '../../../uapi/iommufd/test.js';
import type {
  Domain,
  DriverViommu,
  HostDevice,
  NestedDomain,
  PageFaults,
  PagingDomain,
  ViommuEvent,
  ViommuOwner,
} from '../contract.js';
import { copyStructFromUser, type UserData } from '../user-data.js';
import { MOCK_DEVICE_FLAGS, MockDevice, type MockIommuDevice } from './device.js';
import { MOCK_DRIVER, MockDomain } from './domain.js';
import { allocMockNested } from './nested.js';
import { type MockMemory, MockViommu } from './viommu.js';

const PAGING_FLAGS = IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID;

export interface MockIommuOptions extends MockMemory {
  /** Number of the IOMMU in the machine. */
  readonly index: number;
  /** Number in the machine of its first device. */
  readonly firstDevice: number;
  /** Whether an allocation is to fail: IommufdCore.allocFails. */
  readonly allocFails: (site: string) => boolean;
}

export class MockIommu implements MockIommuDevice, MockMemory {
  readonly index: number;
  readonly name = 'iommufd_selftest_iommu';
  readonly driver = MOCK_DRIVER;
  readonly userPasidTable = true;
  readonly nestsPasids = true;
  faults: PageFaults | null = null;
  onEvent: ((event: ViommuEvent) => void) | null = null;
  readonly memory: MachineMemory;
  readonly frames: FrameAllocator;
  readonly #options: MockIommuOptions;
  /** By ID. */
  readonly #devices = new Map<number, MockDevice>();

  constructor(options: MockIommuOptions) {
    this.index = options.index;
    this.memory = options.memory;
    this.frames = options.frames;
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
    const dirty = (device as MockDevice).tracksDirty ? IOMMU_HW_CAP_DIRTY_TRACKING : 0;
    return {
      type: IOMMU_HW_INFO_TYPE_SELFTEST,
      data: HwInfoSelftest.toBytes({ testReg: IOMMU_HW_INFO_SELFTEST_REGVAL }),
      capabilities: BigInt(dirty | IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED),
    };
  }

  /** A device without PASIDs says that it has no bits of one, which makes PASID 0 the only one. */
  maxPasids({ pasid }: HostDevice): number {
    return 2 ** (pasid?.bits ?? 0);
  }

  reservedRegions(): readonly [] {
    return [];
  }

  /** @source mock_domain_alloc_paging_flags */
  allocPaging(device: HostDevice, flags: number, data: UserData | null = null): PagingDomain | number {
    const tracksDirty = (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0;
    if ((flags & ~PAGING_FLAGS) !== 0 || (tracksDirty && !(device as MockDevice).tracksDirty))
      return -EOPNOTSUPP;
    const type = pagetableType(data);
    if (type < 0) return type;
    const { allocFails } = this.#options;
    if (allocFails('mock_domain')) return -ENOMEM;
    if (type !== MOCK_IOMMUPT_DEFAULT && type !== MOCK_IOMMUPT_HUGE) return -EOPNOTSUPP;
    const tableFails = () => allocFails('mock page table');
    if (tableFails()) return -ENOMEM;
    const nestParent = (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
    return new MockDomain(type === MOCK_IOMMUPT_HUGE, nestParent, tracksDirty, tableFails);
  }

  /** @source mock_domain_alloc_nested */
  allocNested(
    _device: HostDevice,
    parent: PagingDomain,
    data: UserData,
    flags: number,
  ): NestedDomain | number {
    if ((flags & ~IOMMU_HWPT_ALLOC_PASID) !== 0) return -EOPNOTSUPP;
    if (!(parent instanceof MockDomain)) return -EINVAL;
    return allocMockNested(null, data, this.#options.allocFails);
  }

  attach(device: HostDevice, domain: Domain | null): number {
    return (device as MockDevice).attach(domain);
  }

  attachPasid(device: HostDevice, pasid: number, domain: Domain | null): number {
    return (device as MockDevice).attachPasid(pasid, domain);
  }

  supportsViommu(_device: HostDevice, type: number): boolean {
    return type === IOMMU_VIOMMU_TYPE_SELFTEST;
  }

  allocViommu(
    _device: HostDevice,
    parent: PagingDomain,
    _type: number,
    data: UserData | null,
    owner: ViommuOwner,
  ): DriverViommu | number {
    if (!(parent instanceof MockDomain)) return -EINVAL;
    return MockViommu.create(this, parent, data, owner);
  }

  /** Nothing is raised but by the test ioctl, which is served at once. */
  poll(): boolean {
    return false;
  }
}

/** @returns MOCK_IOMMUPT_*, unchecked | -EOPNOTSUPP another type of data | -EINVAL its length | -EFAULT */
function pagetableType(data: UserData | null): number {
  if (data === null) return MOCK_IOMMUPT_DEFAULT;
  if (data.type !== IOMMU_HWPT_DATA_SELFTEST && data.type !== IOMMU_HWPT_DATA_NONE) return -EOPNOTSUPP;
  const asked = copyStructFromUser(HwptSelftest, data, IOMMU_HWPT_DATA_SELFTEST);
  return typeof asked === 'number' ? asked : asked.pagetableType;
}
