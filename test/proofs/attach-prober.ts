/**
 * Attaches under the eyes of a device. The driver's stores to STEs and CDs are kept back until it goes on to something
 * else, as in a store buffer; then a planned part of them becomes visible, and the device reads by DMA: the model
 * fetches the entry, half written, and caches what it made of it. From there on the device reads at every access that
 * the driver makes to shared memory, until the attach is over.
 *
 * The model fetches words in ascending order; what it can have read beside the stores of one step is every subset of
 * them, so all subsets are tried. Another plan keeps nothing back: the device reads between any two stores.
 */

import { OP_LOAD, OP_STORE, type ScheduleHook, setScheduleHook, type WordOp } from '../../hw/sync/words.js';
import type { DriverWorld } from './attach-world.js';

export interface Plan {
  /** Which step of the attach: stores between two accesses to something else. -1: read from the start, keep nothing. */
  readonly step: number;
  /** A bit for each store of that step: visible when the device first reads. */
  readonly visible: number;
}

export interface Probed {
  /** Stores of each step. */
  readonly steps: readonly number[];
  readonly reads: number;
  /** Different results of reads, in the order in which they first came. */
  readonly results: readonly number[];
  /** Reads by a domain that would not have told this SMMU of an unmap. */
  readonly untold: number;
}

interface Pending {
  readonly offset: number;
  readonly value: bigint;
}

/** Runs `attach` under a plan; without one nothing is read. */
export function probeAttach(world: DriverWorld, attach: () => number, plan: Plan | null): Probed {
  const prober = new Prober(world, plan);
  setScheduleHook(prober);
  try {
    const status = attach();
    if (status !== 0) throw new Error(`the attach said ${status}`);
  } finally {
    setScheduleHook(null);
  }
  const { steps, reads, results, untold } = prober;
  return { steps, reads, results: [...results], untold };
}

class Prober implements ScheduleHook {
  readonly steps: number[] = [];
  readonly results = new Set<number>();
  reads = 0;
  untold = 0;

  readonly #world: DriverWorld;
  readonly #plan: Plan | null;
  #pending: Pending[] = [];
  #reading: boolean;

  constructor(world: DriverWorld, plan: Plan | null) {
    this.#world = world;
    this.#plan = plan;
    this.#reading = plan?.step === -1;
  }

  point(op: WordOp, offset: number): void {
    if (this.#world.inModel) return;
    const own = (op === OP_STORE || op === OP_LOAD) && this.#world.isRam(offset);
    if (!own) this.dmaWmb();
    if (this.#reading) this.#read();
  }

  storing(offset: number, bytes: 4 | 8, low: number, high: number): boolean {
    if (this.#plan?.step === -1 || this.#world.inModel || bytes !== 8 || !this.#world.isRam(offset))
      return false;
    const value = (BigInt.asUintN(32, BigInt(high)) << 32n) | BigInt.asUintN(32, BigInt(low));
    this.#pending.push({ offset, value });
    return true;
  }

  forward32(): number | undefined {
    return undefined;
  }

  forward64(offset: number): bigint | undefined {
    if (this.#world.inModel) return undefined;
    return this.#pending.findLast((pending) => pending.offset === offset)?.value;
  }

  wait(): null {
    return null;
  }

  notify(): null {
    return null;
  }

  /** What was kept becomes visible. */
  dmaWmb(): void {
    if (this.#world.inModel || this.#pending.length === 0) return;
    const pending = this.#pending;
    this.#pending = [];
    const step = this.steps.push(pending.length) - 1;
    const planned = this.#plan?.step === step;
    const first = planned ? pending.filter((_, i) => (this.#plan!.visible & (1 << i)) !== 0) : pending;
    this.#show(first);
    if (!planned) return;
    this.#reading = true;
    this.#read();
    this.#show(pending.filter((store) => !first.includes(store)));
  }

  #show(stores: readonly Pending[]): void {
    setScheduleHook(null);
    for (const { offset, value } of stores) this.#world.words.store64(offset, value);
    setScheduleHook(this);
  }

  #read(): void {
    setScheduleHook(null);
    this.reads++;
    const result = this.#world.read();
    this.results.add(result);
    if (!this.#world.isTold(result)) this.untold++;
    setScheduleHook(this);
  }
}
