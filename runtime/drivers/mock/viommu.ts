/**
 * A vIOMMU of the mock: hands the caller's word back and shows it in a page to be mapped, invalidates words of devices
 * by their virtual IDs, and has two queues of which the second depends on the first.
 *
 * @source drivers/iommu/iommufd/selftest.c mock_viommu_init, mock_viommu_ops
 */
import type { FrameAllocator } from '../../../hw/memory/frame-allocator.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { EEXIST, EFAULT, EINVAL, EIO, ENOMEM, EOPNOTSUPP } from '../../../uapi/abi/errno.js';
import {
  IOMMU_HW_QUEUE_TYPE_SELFTEST,
  IOMMU_TEST_HW_QUEUE_MAX,
  IOMMU_TEST_INVALIDATE_FLAG_ALL,
  IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST,
  IOMMU_VIOMMU_TYPE_SELFTEST,
  ViommuInvalidateSelftest,
  ViommuSelftest,
} from '../../../uapi/drivers/selftest.js';
import { IOMMU_HWPT_ALLOC_PASID } from '../../../uapi/iommufd/hwpt.js';
import { MOCK_DEV_CACHE_ID_MAX } from '../../../uapi/iommufd/test.js';
import type {
  DriverHwQueue,
  DriverHwQueues,
  HostDevice,
  HwQueuePlace,
  IommuInstance,
  NestedDomain,
  ViommuOwner,
} from '../contract.js';
import {
  copyStructFromUser,
  copyStructsFromUserArray,
  copyStructToUser,
  type UserData,
  type UserDataArray,
} from '../user-data.js';
import type { MockDevice } from './device.js';
import type { MockDomain } from './domain.js';
import { allocMockNested, type NestingViommu } from './nested.js';

const PAGE = 4096;
const ENTRY_BYTES = ViommuInvalidateSelftest.size;
/** KMALLOC_MAX_SIZE: Linux allocates the whole array. */
const MAX_ARRAY_BYTES = 4 * 1024 * 1024;
/** Of the memory that user space maps. */
const MMAP_PAGES = 2;

/** Where memory that user space reaches comes from. */
export interface MockMemory {
  readonly memory: MachineMemory;
  readonly frames: FrameAllocator;
}

export class MockViommu implements NestingViommu, DriverHwQueues {
  readonly iommu: IommuInstance & MockMemory;
  /** No thread but the core's invalidates. */
  readonly sharedBase = 0;
  readonly hwQueues: DriverHwQueues = this;
  readonly #parent: MockDomain;
  readonly #owner: ViommuOwner;
  readonly #devices = new Map<bigint, MockDevice>();
  readonly #queues: (MockHwQueue | null)[] = new Array(IOMMU_TEST_HW_QUEUE_MAX).fill(null);
  #firstPfn = -1;
  #mmapOffset = 0;

  private constructor(iommu: IommuInstance & MockMemory, parent: MockDomain, owner: ViommuOwner) {
    this.iommu = iommu;
    this.#parent = parent;
    this.#owner = owner;
  }

  /** @returns it | -EINVAL the data's length | -EFAULT | -ENOMEM */
  static create(
    iommu: IommuInstance & MockMemory,
    parent: MockDomain,
    data: UserData | null,
    owner: ViommuOwner,
  ): MockViommu | number {
    const viommu = new MockViommu(iommu, parent, owner);
    const status = data === null ? 0 : viommu.#loopBack(data);
    if (status === 0) return viommu;
    viommu.destroy();
    return status;
  }

  allocNested(data: UserData, flags: number): NestedDomain | number {
    if ((flags & ~IOMMU_HWPT_ALLOC_PASID) !== 0) return -EOPNOTSUPP;
    return allocMockNested(this, data, (site) => this.#owner.allocFails(site));
  }

  vdeviceInit(device: HostDevice, virtId: bigint): number {
    this.#devices.set(virtId, device as MockDevice);
    return 0;
  }

  vdeviceDestroy(_device: HostDevice, virtId: bigint): void {
    this.#devices.delete(virtId);
  }

  virtIdOf(device: HostDevice): bigint | undefined {
    for (const [virtId, other] of this.#devices) if (other === device) return virtId;
    return undefined;
  }

  /** @source mock_viommu_cache_invalidate */
  cacheInvalidate(array: UserDataArray): number {
    // An empty array asks whether the type is known.
    if (array.count === 0 && array.type === IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST) return 0;
    if (array.count * ENTRY_BYTES > MAX_ARRAY_BYTES || this.#owner.allocFails('invalidation array'))
      return -ENOMEM;
    const entries = copyStructsFromUserArray(
      ViommuInvalidateSelftest,
      array,
      IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST,
    );
    if (typeof entries === 'number') return entries;
    for (const { flags, cacheId, vdevId } of entries) {
      if ((flags & ~IOMMU_TEST_INVALIDATE_FLAG_ALL) !== 0) return -EOPNOTSUPP;
      if (cacheId > MOCK_DEV_CACHE_ID_MAX) return -EINVAL;
      const device = this.#devices.get(BigInt(vdevId));
      if (device === undefined) return -EINVAL;
      if ((flags & IOMMU_TEST_INVALIDATE_FLAG_ALL) !== 0) device.cache.fill(0);
      else device.cache[cacheId] = 0;
      array.handled++;
    }
    return 0;
  }

  supports(type: number): boolean {
    return type === IOMMU_HW_QUEUE_TYPE_SELFTEST;
  }

  /** @source mock_hw_queue_init_phys */
  init({ index, iova, basePa }: HwQueuePlace): DriverHwQueue | number {
    if (index >= IOMMU_TEST_HW_QUEUE_MAX) return -EINVAL;
    if (this.#queues[index] !== null) return -EEXIST;
    const previous = index > 0 ? this.#queues[index - 1]! : null;
    if (index > 0 && previous === null) return -EIO;
    if (basePa !== this.#parent.physicalOf(iova)) return -EFAULT;
    const queue = new MockHwQueue(this.#queues, index, previous);
    this.#queues[index] = queue;
    return queue;
  }

  destroy(): void {
    if (this.#mmapOffset > 0) this.#owner.freeMmap(this.#mmapOffset);
    if (this.#firstPfn >= 0) this.iommu.frames.free(this.#firstPfn, MMAP_PAGES);
  }

  #loopBack(data: UserData): number {
    const asked = copyStructFromUser(ViommuSelftest, data, IOMMU_VIOMMU_TYPE_SELFTEST);
    if (typeof asked === 'number') return asked;
    const { memory, frames } = this.iommu;
    if (this.#owner.allocFails('mock_viommu page')) return -ENOMEM;
    const pfn = frames.allocRun(MMAP_PAGES);
    if (pfn < 0) return -ENOMEM;
    this.#firstPfn = pfn;
    const linear = memory.linearOf(pfn * PAGE, MMAP_PAGES * PAGE);
    const page = memory.u8.subarray(linear, linear + MMAP_PAGES * PAGE).fill(0);
    const offset = this.#owner.allocMmap(linear, MMAP_PAGES * PAGE);
    if (offset < 0) return offset;
    this.#mmapOffset = offset;
    const { inData } = asked;
    new DataView(page.buffer, page.byteOffset).setUint32(0, inData, true);
    const answer = {
      inData,
      outData: inData,
      outMmapOffset: BigInt(offset),
      outMmapLength: BigInt(MMAP_PAGES * PAGE),
    };
    return copyStructToUser(ViommuSelftest, answer, data, IOMMU_VIOMMU_TYPE_SELFTEST);
  }
}

class MockHwQueue implements DriverHwQueue {
  readonly dependsOn: MockHwQueue | null;
  readonly #queues: (MockHwQueue | null)[];
  readonly #index: number;

  constructor(queues: (MockHwQueue | null)[], index: number, dependsOn: MockHwQueue | null) {
    this.#queues = queues;
    this.#index = index;
    this.dependsOn = dependsOn;
  }

  destroy(): void {
    this.#queues[this.#index] = null;
  }
}
