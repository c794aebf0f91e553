/** What the core needs from the machine it runs in, as one object. */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import type { SyncEnv } from '../../hw/sync/thread.js';
import type { IoasObserver, IommuInstance, RuntimeBugs, SharedInvalidator } from '../drivers/contract.js';
import type { UserMemory } from '../user-memory.js';

export interface CoreContext {
  readonly memory: MachineMemory;
  /** Synchronisation as the core's thread sees it. */
  readonly env: SyncEnv;
  readonly user: UserMemory;
  readonly iommus: readonly IommuInstance[];
  /** By driver name; a driver without one cannot serve HWPT_INVALIDATE (-EOPNOTSUPP). */
  readonly invalidators?: ReadonlyMap<string, SharedInvalidator>;
  readonly observer?: IoasObserver | undefined;
  readonly bugs: RuntimeBugs;
  /** For what an operator should read once: an ioctl that is not built, a SYNC that timed out. */
  log(message: string): void;
}
