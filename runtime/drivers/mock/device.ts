/**
 * A device behind the mock IOMMU: made and destroyed by the test ioctl, does no DMA. It has four words in place of an
 * ATC, which an invalidation through its vIOMMU makes 0.
 *
 * @source drivers/iommu/iommufd/selftest.c struct mock_dev, mock_domain_nop_attach, mock_domain_set_dev_pasid_nop
 */
import { EINVAL, ENODEV, ENOENT, ENOMEM } from '../../../uapi/abi/errno.js';
import { IOMMU_TEST_DEV_CACHE_DEFAULT } from '../../../uapi/drivers/selftest.js';
import {
  IOMMU_TEST_PASID_RESERVED,
  MOCK_DEV_CACHE_NUM,
  MOCK_FLAGS_DEVICE_NO_DIRTY,
  MOCK_FLAGS_DEVICE_PASID,
  MOCK_PASID_WIDTH,
} from '../../../uapi/iommufd/test.js';
import type { Domain, HostDevice, IommuInstance, PageFaults, PasidCapability } from '../contract.js';
import { MOCK_DRIVER, MockDomain } from './domain.js';
import { MockNested, type NestingViommu } from './nested.js';

/** What a device can be made with. */
export const MOCK_DEVICE_FLAGS = MOCK_FLAGS_DEVICE_NO_DIRTY | MOCK_FLAGS_DEVICE_PASID;

/** The IOMMU of mock devices, as they know it. struct mock_iommu_device. */
export interface MockIommuDevice extends IommuInstance {
  readonly faults: PageFaults | null;
  destroyDevice(device: MockDevice): void;
}

export class MockDevice implements HostDevice {
  readonly index: number;
  readonly name: string;
  readonly iommu: MockIommuDevice;
  /** Nothing tells its transactions from others'. */
  readonly streamId = 0;
  readonly groupId: number;
  readonly pci = false;
  readonly pasid: PasidCapability | undefined;
  readonly ownedByTest = true;
  readonly tracksDirty: boolean;
  readonly cache = new Uint32Array(MOCK_DEV_CACHE_NUM).fill(IOMMU_TEST_DEV_CACHE_DEFAULT);
  #viommu: NestingViommu | null = null;
  #virtId = 0n;
  #domain: Domain | null = null;
  /** By PASID. */
  readonly #pasidDomains = new Map<number, Domain>();
  /** Attachments whose faults have a handler. */
  #faultUsers = 0;
  /** The next attach of IOMMU_TEST_PASID_RESERVED fails. */
  #pasidFails = false;

  /** @param id  no other device of the IOMMU has it @param flags  MOCK_FLAGS_DEVICE_* */
  constructor(iommu: MockIommuDevice, index: number, id: number, flags: number) {
    this.iommu = iommu;
    this.index = index;
    this.name = `iommufd_mock${id}`;
    this.groupId = id;
    this.tracksDirty = (flags & MOCK_FLAGS_DEVICE_NO_DIRTY) === 0;
    const hasPasids = (flags & MOCK_FLAGS_DEVICE_PASID) !== 0;
    this.pasid = hasPasids ? { bits: MOCK_PASID_WIDTH, execute: false, privileged: false } : undefined;
  }

  /** Of the nested page table that it is attached to, with the device's virtual ID there. */
  get guest(): { readonly viommu: NestingViommu; readonly virtId: bigint } | null {
    return this.#viommu === null ? null : { viommu: this.#viommu, virtId: this.#virtId };
  }

  /** @returns 0 | -EINVAL the domain does not suit it | -ENOENT no vDEVICE | -ENODEV | -EBUSY | -ENOMEM */
  attach(domain: Domain | null): number {
    if (domain !== null && domain.driver !== MOCK_DRIVER) return -EINVAL;
    if (domain instanceof MockDomain && domain.dirty !== undefined && !this.tracksDirty) return -EINVAL;
    const viommu = domain instanceof MockNested ? domain.viommu : null;
    const virtId = viommu?.virtIdOf(this);
    if (viommu !== null && virtId === undefined) return -ENOENT;
    if (viommu !== this.#viommu) {
      this.#viommu = viommu;
      this.#virtId = virtId ?? 0n;
    }
    const status = this.#enableFaults(domain);
    if (status < 0) return status;
    this.#disableFaults(this.#domain);
    this.#domain = domain;
    return 0;
  }

  /** @returns 0 | -EINVAL | -ENOMEM for a test, every second time in a row that one PASID is attached | as attach() */
  attachPasid(pasid: number, domain: Domain | null): number {
    if (domain !== null && domain.driver !== MOCK_DRIVER) return -EINVAL;
    if (pasid === IOMMU_TEST_PASID_RESERVED) {
      const fails = domain !== null && this.#pasidFails;
      this.#pasidFails = domain !== null && !fails;
      if (fails) return -ENOMEM;
    }
    const status = this.#enableFaults(domain);
    if (status < 0) return status;
    this.#disableFaults(this.#pasidDomains.get(pasid) ?? null);
    if (domain === null) this.#pasidDomains.delete(pasid);
    else this.#pasidDomains.set(pasid, domain);
    return 0;
  }

  /** @source mock_dev_enable_iopf */
  #enableFaults(domain: Domain | null): number {
    if (!domain?.handlesFaults) return 0;
    const { faults } = this.iommu;
    if (faults === null) return -ENODEV;
    if (this.#faultUsers === 0) {
      const status = faults.addDevice(this);
      if (status < 0) return status;
    }
    this.#faultUsers++;
    return 0;
  }

  #disableFaults(domain: Domain | null): void {
    if (domain?.handlesFaults && --this.#faultUsers === 0) this.iommu.faults?.removeDevice(this);
  }
}
