/**
 * The loop around one pIOMMU's model: step while there is work, spin a little when there is none, then sleep
 * on the unit's doorbell. The model decides nothing about waiting, and the loop nothing about hardware.
 *
 *   step() busy --> step()          idle 20..50 us --> park --> rung: step()        stop --> drain --> return
 *                                                       ^ |
 *                                                       +-+ slept for nothing: park at once, twice as long
 *
 * Whoever gives work rings the doorbell, so spinning reads that one word. A unit that was woken soon after it
 * had parked spins longer the next time, up to what a wake-up costs; one that slept long, as little as it can.
 * An idle unit looks around less and less often: 64 of them must not cost the others a processor.
 */
import { UnitLayout } from '../hw/iotlb/unit-layout.js';
import type { Clock } from '../hw/sync/thread.js';
import type { Words } from '../hw/sync/words.js';

/** A model as the loop sees it. */
export interface SteppedModel {
  /** Does a bounded amount of work. @returns whether there was any */
  step(): boolean;
  hasWork(): boolean;
  /** Some of its work comes by plain stores to memory, which ring no doorbell. */
  readonly polled?: boolean;
}

export interface UnitLoopOptions {
  readonly model: SteppedModel;
  readonly words: Words;
  readonly clock: Clock;
  /** Base of the unit's region. */
  readonly unit: number;
  readonly stopping: () => boolean;
  /** False: park at once. Default true. */
  readonly spin?: boolean | undefined;
}

/** At least, and at most: about what waking a parked thread costs. */
const SPIN_NS = 20_000;
const MAX_SPIN_NS = 50_000;
/** A park shorter than this would have been better spent spinning. */
const SHORT_PARK_NS = 150_000;
const SPINS_PER_LOOK = 64;
/** Nobody rings the doorbell for a host that died: look again after so long, at first and at last. */
const PARK_SLICE_MS = 20;
const MAX_PARK_SLICE_MS = 640;
/** For a model that is polled. */
const POLL_MS = 1;
/** How long a stopping unit may go on finding work. */
const DRAIN_NS = 500e6;

/** @returns how many steps found work */
export function runUnit({
  model,
  words,
  clock,
  unit,
  stopping,
  spin: spins = true,
}: UnitLoopOptions): number {
  const { doorbell, doorbellParked } = UnitLayout.at;
  let busy = 0;
  let spinNs = SPIN_NS;
  while (!stopping()) {
    // Before the step: a ring during it, for work that it did not see, ends the spinning at once.
    const rings = words.load(unit + doorbell);
    if (model.step()) {
      busy++;
      continue;
    }
    if (spins && spin(rings)) continue;
    const parkedAt = clock.nowNs();
    park();
    spinNs = clock.nowNs() - parkedAt < SHORT_PARK_NS ? MAX_SPIN_NS : SPIN_NS;
  }
  const deadline = clock.nowNs() + DRAIN_NS;
  while (model.step() && clock.nowNs() < deadline) busy++;
  return busy;

  /** @returns whether something came up within the spin time */
  function spin(rings: number): boolean {
    const until = clock.nowNs() + spinNs;
    do {
      for (let i = 0; i < SPINS_PER_LOOK; i++) if (words.load(unit + doorbell) !== rings) return true;
      if (model.hasWork() || stopping()) return true;
    } while (clock.nowNs() < until);
    return false;
  }

  /** Whoever gives work adds to the doorbell first and looks at doorbellParked second: one of us sees the other. */
  function park(): void {
    words.store(unit + doorbellParked, 1);
    for (let sliceMs = PARK_SLICE_MS; ; sliceMs = Math.min(2 * sliceMs, MAX_PARK_SLICE_MS)) {
      const seen = words.load(unit + doorbell);
      if (model.hasWork() || stopping()) break;
      if (words.wait(unit + doorbell, seen, model.polled ? POLL_MS : sliceMs) !== 'timed-out') break;
    }
    words.store(unit + doorbellParked, 0);
  }
}
