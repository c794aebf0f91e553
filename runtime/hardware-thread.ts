/**
 * One thread's view of a machine's hardware: its identity in the thread table, its own instance of the compiled
 * kernel, and the part it plays, the host of an SMMU or a device. Loads nothing of the driver or of iommufd: a
 * worker that is one SMMU pays for no more than that.
 */
import { bugSwitches } from '../hw/bugs/bug-switches.js';
import { Kernel } from '../hw/kernel/kernel.js';
import { MachineMemory, type MemoryHandle } from '../hw/memory/machine-memory.js';
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
import { cmdqvRegions } from '../hw/tegra241-cmdqv/config.js';
import { Tegra241Cmdqv } from '../hw/tegra241-cmdqv/model.js';
import { Timeline } from '../hw/timeline/timeline.js';
import { smmuTrack } from '../hw/timeline/timeline-layout.js';
import { foreignRangeOf } from './foreign-range.js';
import { cmdqvConfigOf, smmuConfigOf, THREADS_KEY } from './machine-hardware.js';
import type { CheckedConfig } from './machine-schema.js';
import { UnreachableMemory } from './unreachable-memory.js';

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
  /** See SyncEnv: false, and a park slice without end, are an explorer's. */
  readonly spin?: boolean;
  readonly parkSliceMs?: number;
}

export class HardwareThread {
  readonly config: CheckedConfig;
  readonly memory: MachineMemory;
  readonly kernel: Kernel;
  readonly env: SyncEnv;
  readonly threadId: number;
  readonly #log: (message: string) => void;

  constructor(handle: MachineHandle, options: AttachOptions = {}) {
    this.config = handle.config;
    if (handle.config.debugLocks) setLockOrderCheck(true);
    this.memory = MachineMemory.attach(handle.memory);
    const { zoo } = handle.config.bugs;
    const bugs = zoo.length === 0 ? undefined : bugSwitches(zoo);
    this.kernel = Kernel.load(this.memory, bugs);
    const threads = new ThreadTable(this.memory, this.memory.region(ThreadTableLayout, THREADS_KEY));
    this.threadId = threads.register();
    if (this.threadId < 0) throw new Error('machine: the thread table is full');
    this.env = {
      words: this.memory.words,
      threads,
      threadId: this.threadId,
      clock: options.clock ?? monotonicClock,
      canPark: options.canPark ?? true,
      spin: options.spin,
      parkSliceMs: options.parkSliceMs,
      bugs,
    };
    this.#log = options.log ?? (() => undefined);
    this.memory.external = new UnreachableMemory(foreignRangeOf(handle.config), this.#log);
  }

  /** Makes this thread the host of an SMMU: it alone may step it from here on. */
  smmuModel(index: number): Smmuv3 {
    if (this.config.iommus[index] === undefined) throw new RangeError(`there is no IOMMU number ${index}`);
    const config = smmuConfigOf(this.config, index);
    const regions = smmuv3Regions(this.memory, config);
    const cmdqv = cmdqvConfigOf(this.config.iommus[index]!, index);
    return new Smmuv3(this.env, this.memory, this.kernel, regions, config, {
      log: this.#log,
      ...(cmdqv && {
        companion: (parts) => new Tegra241Cmdqv(cmdqv, cmdqvRegions(this.memory, cmdqv), parts),
      }),
      timeline: Timeline.attach(this.memory, smmuTrack(index), this.env.clock),
    });
  }

  /** Leaves in good order, holding nothing. */
  retire(): void {
    this.env.threads.retire(this.threadId);
  }
}
