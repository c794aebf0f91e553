/** What the core needs from the machine it runs in, as one object. */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import type { SyncEnv } from '../../hw/sync/thread.js';
import type { IoasObserver, IommuInstance, RuntimeBugs, SharedInvalidator } from '../drivers/contract.js';
import type { MockIommu } from '../drivers/mock/iommu.js';
import type { UserMemory } from '../user-memory.js';
import type { PhysicalMemory } from './task.js';

/** Whether known defects of Linux 7.0 are repeated: '7.0', or 'fixed' as later kernels have it. */
export type Compat = '7.0' | 'fixed';

export interface CoreContext {
  readonly memory: MachineMemory;
  /** Synchronisation as the core's thread sees it. */
  readonly env: SyncEnv;
  /** Of the program that the machine lives in. A handler asks IommufdCore.current, which may be another's. */
  readonly user: UserMemory;
  /** Default: the machine's RAM. */
  readonly physical?: PhysicalMemory;
  /** Default 'fixed'. */
  readonly compat?: Compat;
  readonly iommus: readonly IommuInstance[];
  /** By driver name; a driver without one cannot serve HWPT_INVALIDATE (-EOPNOTSUPP). */
  readonly invalidators?: ReadonlyMap<string, SharedInvalidator>;
  /** What the test ioctl works on, one of `iommus`; without it there is no such ioctl. */
  readonly mock?: MockIommu | undefined;
  readonly observer?: IoasObserver | undefined;
  readonly bugs: RuntimeBugs;
  /** For what an operator should read once: an ioctl that is not built, a SYNC that timed out. */
  log(message: string): void;
}
