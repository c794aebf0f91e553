/**
 * Command queues beside the SMMU's own: what an implementer adds that [IHI0070] does not have (NVIDIA's CMDQV,
 * hw/tegra241-cmdqv). Their commands take effect as those of the Command queue do, on the same caches, and their
 * CMD_SYNCs wait for the same ports; each has its own errors, and its own ATC invalidations to wait for.
 */
import type { MachineMemory } from '../memory/machine-memory.js';
import type { Words } from '../sync/words.js';
import type { AtcInvalidations } from './atc-invalidations.js';
import type { CommandExecutor } from './command-executor.js';
import type { EpochGate } from './epoch-gate.js';
import type { Log } from './mmio.js';

/** What the SMMU gives them. */
export interface CompanionParts {
  readonly memory: MachineMemory;
  readonly words: Words;
  readonly gate: EpochGate;
  readonly log: Log;
  /** Of the Command queue: takes over what a queue that is disabled leaves to wait for. */
  readonly atc: AtcInvalidations;
  /** @param waiting  linear offset of MAX_PORTS bits, where it keeps which ports owe a completion */
  newAtc(waiting: number): AtcInvalidations;
  newExecutor(atc: AtcInvalidations): CommandExecutor;
  /** The wired interrupt of the companion. */
  interrupt(): void;
}

/** Stepped by the SMMU's model, in turns with the Command queue. */
export interface Companion {
  /** A bounded amount of work. @returns whether there was any */
  step(): boolean;
  hasWork(): boolean;
  /** Whether a CMD_SYNC waits for ports. */
  readonly syncPending: boolean;
  /** Software may give it work by plain stores, which ring no doorbell: it has to be looked at. */
  readonly polled: boolean;
}
