/**
 * One thread's view of a machine: its identity in the thread table, its own instance of the compiled kernel,
 * and whatever part of the machine it plays, the host of an SMMU, a device, or a guest that invalidates.
 */
import { Kernel } from '../hw/kernel/kernel.js';
import { MachineMemory, type MemoryHandle } from '../hw/memory/machine-memory.js';
import { DmaPort } from '../hw/pci/dma-port.js';
import { Smmuv3 } from '../hw/smmuv3/model.js';
import { smmuv3Regions } from '../hw/smmuv3/regions.js';
import { setLockOrderCheck } from '../hw/sync/lock-rank.js';
import {
  type Clock,
  monotonicClock,
  type SyncEnv,
  ThreadTable,
  ThreadTableLayout,
} from '../hw/sync/thread.js';
import { SharedIommufd } from './core/shared-ioctl.js';
import { Smmuv3Invalidator } from './drivers/smmuv3/invalidate.js';
import { DRIVER_NAME } from './drivers/smmuv3/smmu.js';
import type { CheckedConfig } from './machine-config.js';
import { portKey, smmuConfigOf, THREADS_KEY } from './machine-regions.js';
import { UserMemory } from './user-memory.js';

/** What another thread needs to attach to a machine; travels by structured clone. */
export interface MachineHandle {
  readonly memory: MemoryHandle;
  readonly config: CheckedConfig;
}

export interface AttachOptions {
  readonly clock?: Clock;
  /** Refusals of the hardware, each once. */
  readonly log?: (message: string) => void;
  /** False on a thread that may not block. */
  readonly canPark?: boolean;
}

export class MachineThread {
  readonly config: CheckedConfig;
  readonly memory: MachineMemory;
  readonly kernel: Kernel;
  readonly env: SyncEnv;
  readonly threadId: number;
  /** Translation and copying only: allocation belongs to the core. */
  readonly user: UserMemory;
  readonly #log: (message: string) => void;
  readonly #shared = new Map<number, SharedIommufd>();

  private constructor(handle: MachineHandle, options: AttachOptions) {
    this.config = handle.config;
    if (handle.config.debugLocks) setLockOrderCheck(true);
    this.memory = MachineMemory.attach(handle.memory);
    this.kernel = Kernel.load(this.memory);
    const threads = new ThreadTable(this.memory, this.memory.region(ThreadTableLayout, THREADS_KEY));
    this.threadId = threads.register();
    if (this.threadId < 0) throw new Error('machine: the thread table is full');
    this.env = {
      words: this.memory.words,
      threads,
      threadId: this.threadId,
      clock: options.clock ?? monotonicClock,
      canPark: options.canPark ?? true,
    };
    this.user = new UserMemory(this.memory, null);
    this.#log = options.log ?? (() => undefined);
  }

  static attach(handle: MachineHandle, options: AttachOptions = {}): MachineThread {
    return new MachineThread(handle, options);
  }

  /** The DMA engine of a device, by its index in the configuration. One thread drives a device at a time. */
  dmaPort(device: number): DmaPort {
    const found = this.config.devices[device];
    if (found === undefined) throw new RangeError(`there is no device number ${device}`);
    return new DmaPort(this.env, this.memory, this.kernel, found.label, portKey(device));
  }

  /** Makes this thread the host of an SMMU: it alone may step it from here on. */
  smmuModel(index: number): Smmuv3 {
    if (this.config.iommus[index] === undefined) throw new RangeError(`there is no IOMMU number ${index}`);
    const config = smmuConfigOf(this.config, index);
    const regions = smmuv3Regions(this.memory, config);
    return new Smmuv3(this.env, this.memory, this.kernel, regions, config, { log: this.#log });
  }

  /** IOMMU_HWPT_INVALIDATE on this thread, for the iommufd with that index. */
  shared(fdIndex: number): SharedIommufd {
    let shared = this.#shared.get(fdIndex);
    if (shared === undefined) {
      const invalidator = new Smmuv3Invalidator(this.memory, this.env);
      shared = new SharedIommufd(
        this.env,
        this.memory,
        this.user,
        fdIndex,
        new Map([[DRIVER_NAME, invalidator]]),
      );
      this.#shared.set(fdIndex, shared);
    }
    return shared;
  }

  /** Leaves in good order, holding nothing. */
  retire(): void {
    this.env.threads.retire(this.threadId);
  }
}
