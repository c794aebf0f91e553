/**
 * Reset of one SMMU while its machine runs. [IHI0070] 3.11, 6.3 (reset values). Any thread asks, the model does it:
 *
 *   asker                          model, in step()                          devices
 *   resetAsked += 1, doorbell  ->  registers to their reset values,
 *                                  caches emptied, stalls ended,
 *                                  SYNC and updates forgotten, gen += 1  ->  leave their epochs
 *   done: resetDone reached    <-  resetDone = resetAsked                <-
 *
 * From the first moment traffic gets what GBPA says, which resets to bypass; when it is done, no DMA is under way
 * that was translated before. The devices' ATCs are their own, and stay. Fields whose reset value is UNKNOWN become 0. Counters for display go on. What
 * software writes between asking and the end may be lost: as with a reset line, it waits first.
 */
import { UnitLayout } from '../iotlb/unit-layout.js';
import { Doorbell } from '../sync/doorbell.js';
import type { SyncEnv } from '../sync/thread.js';
import { NEVER, waitUntil } from '../sync/wait.js';
import type { Words } from '../sync/words.js';
import { wakeConsWaiters } from './command-queue.js';
import type { Smmuv3Regions } from './regions.js';
import { Smmuv3Layout } from './smmuv3-layout.js';

const at = Smmuv3Layout.at;

/** Registers and model state of 32 bits, then of 64. */
const WORDS = [
  // Enables first: whoever looks meanwhile finds a unit that is off.
  at.cr0,
  at.smmuenActive,
  at.cr0ack,
  at.irqCtrl,
  at.irqCtrlAck,
  at.cr1,
  at.cr2,
  at.gerror,
  at.gerrorn,
  at.gbpa,
  at.gbpaActive,
  at.strtabBaseCfg,
  at.gerrorIrqCfg1,
  at.gerrorIrqCfg2,
  at.eventqIrqCfg1,
  at.eventqIrqCfg2,
  at.priqIrqCfg1,
  at.priqIrqCfg2,
  at.priqProd,
  at.priqCons,
  at.cmdqProd,
  at.cmdqCons,
  at.eventqProd,
  at.eventqCons,
  at.irqPending,
  at.syncPending,
  at.syncGen,
  at.syncWord0,
  at.syncWord1,
  at.syncWord2,
  at.syncWord3,
];
const QUADS = [
  at.strtabBase,
  at.cmdqBase,
  at.eventqBase,
  at.priqBase,
  at.gerrorIrqCfg0,
  at.eventqIrqCfg0,
  at.priqIrqCfg0,
];

/** @param base  linear base of the unit's smmuv3 region. Its model only. */
export function resetRegisters(words: Words, base: number): void {
  for (const offset of WORDS) words.store(base + offset, 0);
  for (const offset of QUADS) words.store64(base + offset, 0n);
  // Whoever waits for room in the Command queue finds it disabled.
  wakeConsWaiters(words, base);
}

/** The reset line of one SMMU, for any thread. */
export class ResetLine {
  readonly #env: SyncEnv;
  readonly #base: number;
  readonly #doorbell: Doorbell;

  constructor(env: SyncEnv, regions: Pick<Smmuv3Regions, 'smmu' | 'unit'>) {
    this.#env = env;
    this.#base = regions.smmu;
    const { doorbell, doorbellParked } = UnitLayout.at;
    this.#doorbell = new Doorbell(env, regions.unit + doorbell, regions.unit + doorbellParked);
  }

  /** Asks for a reset. @returns what `done` and `wait` take */
  request(): number {
    const ticket = (this.#env.words.add(this.#base + at.resetAsked, 1) + 1) | 0;
    this.#doorbell.ring();
    return ticket;
  }

  done(ticket: number): boolean {
    return ((this.#env.words.load(this.#base + at.resetDone) - ticket) | 0) >= 0;
  }

  /**
   * @param deadlineNs  on the environment's clock
   * @param owner       thread that hosts the model, so that its death ends the wait
   * @returns 0 | -ETIMEDOUT | -EOWNERDEAD
   */
  wait(ticket: number, deadlineNs = NEVER, owner?: () => number): number {
    const { words } = this.#env;
    return waitUntil(
      this.#env,
      this.#base + at.resetDone,
      () => this.done(ticket),
      deadlineNs,
      owner,
      (delta) => words.add(this.#base + at.resetParked, delta),
    );
  }
}
