/**
 * The loop around one pIOMMU's model: step while there is work, spin a little when there is none, then sleep
 * on the unit's doorbell. The model decides nothing about waiting, and the loop nothing about hardware.
 *
 *   step() busy --> step()          idle 20 us --> park <= 20 ms --> step()          stop --> drain --> return
 */
import { UnitLayout } from '../hw/iotlb/unit-layout.js';
import type { Clock } from '../hw/sync/thread.js';
import type { Words } from '../hw/sync/words.js';

/** A model as the loop sees it. */
export interface SteppedModel {
  /** Does a bounded amount of work. @returns whether there was any */
  step(): boolean;
  hasWork(): boolean;
}

export interface UnitLoopOptions {
  readonly model: SteppedModel;
  readonly words: Words;
  readonly clock: Clock;
  /** Base of the unit's region. */
  readonly unit: number;
  readonly stopping: () => boolean;
}

const SPIN_NS = 20_000;
const SPINS_PER_CLOCK_READ = 32;
/** The stop word rings no doorbell by itself in a host that died: look again this often. */
const PARK_SLICE_MS = 20;
/** How long a stopping unit may go on finding work. */
const DRAIN_NS = 500e6;

/** @returns how many steps found work */
export function runUnit({ model, words, clock, unit, stopping }: UnitLoopOptions): number {
  let busy = 0;
  while (!stopping()) {
    if (model.step()) {
      busy++;
      continue;
    }
    if (!spin(model, clock, stopping)) park(model, words, unit, stopping);
  }
  const deadline = clock.nowNs() + DRAIN_NS;
  while (model.step() && clock.nowNs() < deadline) busy++;
  return busy;
}

/** @returns whether something came up within the spin time */
function spin(model: SteppedModel, clock: Clock, stopping: () => boolean): boolean {
  const until = clock.nowNs() + SPIN_NS;
  do {
    for (let i = 0; i < SPINS_PER_CLOCK_READ; i++) if (model.hasWork()) return true;
    if (stopping()) return true;
  } while (clock.nowNs() < until);
  return false;
}

/** Whoever gives work adds to the doorbell first and looks at doorbellParked second: one of us sees the other. */
function park(model: SteppedModel, words: Words, unit: number, stopping: () => boolean): void {
  const { doorbell, doorbellParked } = UnitLayout.at;
  words.store(unit + doorbellParked, 1);
  const seen = words.load(unit + doorbell);
  if (!model.hasWork() && !stopping()) words.wait(unit + doorbell, seen, PARK_SLICE_MS);
  words.store(unit + doorbellParked, 0);
}
