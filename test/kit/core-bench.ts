/** A core on a small machine with fake IOMMUs, and what it must leave behind when everything is closed. */
import type { ExecutionContext } from 'ava';
import { FrameAllocator } from '../../hw/memory/frame-allocator.js';
import { framesLayout } from '../../hw/memory/frames-layout.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import {
  type Clock,
  monotonicClock,
  type SyncEnv,
  ThreadTable,
  ThreadTableLayout,
} from '../../hw/sync/thread.js';
import type { Compat } from '../../runtime/core/context.js';
import { IommufdCore } from '../../runtime/core/core.js';
import type { IommufdFd } from '../../runtime/core/fd.js';
import type { HostDevice, IoasObserver, RuntimeBugs } from '../../runtime/drivers/contract.js';
import { MockIommu } from '../../runtime/drivers/mock/iommu.js';
import { UserMemory } from '../../runtime/user-memory.js';
import { FailurePlan, FakeInvalidator, FakeIommu, type FakeOptions, fakeDevice } from './fake-driver.js';

export interface CoreBenchOptions {
  readonly iommus?: readonly FakeOptions[];
  /** Index of the IOMMU and the group of each device; default one device on IOMMU 0. */
  readonly devices?: readonly { iommu: number; group?: number }[];
  readonly observer?: IoasObserver;
  readonly bugs?: RuntimeBugs;
  readonly ramBytes?: number;
  readonly clock?: Clock;
  /** With the test ioctl and its mock IOMMU. */
  readonly testIoctl?: boolean;
  readonly compat?: Compat;
}

const MIB2 = 2 ** 21;

export class CoreBench {
  readonly memory: MachineMemory;
  readonly threads: ThreadTable;
  readonly env: SyncEnv;
  readonly frames: FrameAllocator;
  readonly user: UserMemory;
  readonly failures = new FailurePlan();
  readonly iommus: FakeIommu[];
  readonly devices: HostDevice[];
  readonly invalidator = new FakeInvalidator();
  readonly core: IommufdCore;
  readonly mock: MockIommu | undefined;
  readonly logged: string[] = [];
  readonly fd: IommufdFd;

  constructor(options: CoreBenchOptions = {}) {
    const { iommus = [{}], devices = [{ iommu: 0 }], bugs = {}, observer, ramBytes = 4 * MIB2 } = options;
    const { clock = monotonicClock, compat = 'fixed' } = options;
    this.memory = MachineMemory.create({ ramBytes, controlBytes: 4 * MIB2 });
    this.threads = new ThreadTable(this.memory, this.memory.allocRegion(ThreadTableLayout, 'threads'));
    this.env = {
      words: this.memory.words,
      threads: this.threads,
      threadId: this.threads.register(),
      clock,
      canPark: true,
    };
    const frames = this.memory.allocRegion(framesLayout(ramBytes), 'frames');
    this.frames = FrameAllocator.init(this.memory, frames);
    UserMemory.allocRegions(this.memory);
    this.user = new UserMemory(this.memory, this.env, this.frames);
    this.iommus = iommus.map((fake, i) => new FakeIommu(i, this.failures, fake));
    this.devices = devices.map(({ iommu, group }, i) => fakeDevice(i, this.iommus[iommu]!, group ?? i));
    this.mock = options.testIoctl
      ? new MockIommu({
          index: this.iommus.length,
          firstDevice: this.devices.length,
          memory: this.memory,
          frames: this.frames,
          allocFails: (site) => this.core.allocFails(site),
        })
      : undefined;
    this.core = new IommufdCore(
      {
        memory: this.memory,
        env: this.env,
        user: this.user,
        iommus: this.mock === undefined ? this.iommus : [...this.iommus, this.mock],
        mock: this.mock,
        invalidators: new Map([['fake', this.invalidator]]),
        observer,
        bugs,
        compat,
        log: (message) => this.logged.push(message),
      },
      { maxFds: 3 },
    );
    this.fd = this.core.open();
  }

  /** Sum of all references on RAM frames: one for each page of user memory, one for each pin. */
  frameRefs(): number {
    const first = this.memory.ram.basePa / 4096;
    let sum = 0;
    for (let i = 0; i < this.memory.ram.bytes / 4096; i++) sum += this.user.refs(first + i);
    return sum;
  }

  /** The frame behind a user address. */
  pfnOf(va: bigint): number {
    const out = { pfn: 0, pages: 0 };
    if (this.user.runAt(Number(va >> 12n), out) < 0) throw new Error(`bench: ${va} is not mapped`);
    return out.pfn;
  }

  /** Bound to `this.fd` and attached to nothing. */
  bind(device = 0) {
    const vfio = this.core.openVfio(this.devices[device]!);
    return { vfio, devId: vfio.bindIommufd(this.fd).devId };
  }

  assertNothingLeft(t: ExecutionContext, refsBefore: number): void {
    t.is(this.fd.ctx.objectCount, 0, 'objects left');
    for (const iommu of this.iommus) {
      t.is(iommu.liveDomains, 0, 'domains left');
      t.is(iommu.liveNested, 0, 'nested domains left');
      t.is(iommu.liveViommus, 0, 'vIOMMUs left');
    }
    t.is(this.frameRefs(), refsBefore, 'pins left');
  }
}

/** The errno that a typed call throws, or 0. */
export function errnoOf(call: () => unknown): number {
  try {
    call();
  } catch (error) {
    const { errno } = error as { errno?: unknown };
    if (typeof errno !== 'number') throw error;
    return errno;
  }
  return 0;
}

/** Failures injected at these places are not ENOMEM; lib/fault-inject.c as iommufd_should_fail() uses it. */
const FAILURES: Readonly<Record<string, number>> = {
  get_object: 2,
  pin_user_pages: 14,
  pages_to_xarray: 22,
  pin_user_pages_remote: 22,
  enforce_resv_regions: 22,
};

/** What a call answers when it fails at this place (`FailNth.failedAt`). */
export const errnoOfFailure = (site: string): number => FAILURES[site] ?? 12;
