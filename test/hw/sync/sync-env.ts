/** What the tests of hw/sync stand on: several threads' environments on one thread, and a stepped clock. */
import type { ExecutionContext } from 'ava';
import type { Field } from '../../../hw/memory/layout.js';
import { layout } from '../../../hw/memory/layout.js';
import { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { monotonicClock, type SyncEnv, ThreadTable, ThreadTableLayout } from '../../../hw/sync/thread.js';
import { type WaitResult, Words } from '../../../hw/sync/words.js';
import { watchAccesses } from '../../kit/schedule-hook.js';

/** An environment whose `relax` a test sets to what the other threads do meanwhile. */
export type TestEnv = SyncEnv & { relax?: (() => boolean) | undefined };

/** A clock that moves a millisecond each time it is read. */
export class SteppedClock {
  #now = 0;
  nowNs(): number {
    this.#now += 1e6;
    return this.#now;
  }
  /** A deadline some reads away. */
  soon(): number {
    return this.#now + 10e6;
  }
}

export interface Bench {
  readonly memory: MachineMemory;
  readonly threads: ThreadTable;
  readonly clock: SteppedClock;
  readonly envs: readonly [TestEnv, TestEnv, TestEnv, TestEnv];
  /** Where the primitive lies. */
  readonly offset: number;
}

/** Four threads that never park, and room for one primitive. */
export function bench(field: Field): Bench {
  const memory = MachineMemory.create({ ramBytes: 2 ** 21, controlBytes: 2 ** 20 });
  const threads = new ThreadTable(memory, memory.allocRegion(ThreadTableLayout, 'threads'));
  const { base } = memory.allocRegion(layout('primitive', 1, { it: field }), 'primitive');
  const clock = new SteppedClock();
  const env = (): TestEnv => ({
    words: memory.words,
    threads,
    threadId: threads.register(),
    clock,
    canPark: false,
  });
  return { memory, threads, clock, envs: [env(), env(), env(), env()], offset: base };
}

/** Words that notice a sleep which only its time-out ended. */
class WatchedWords extends Words {
  armed = false;
  overslept = false;
  override wait(offset: number, value: number, timeoutMs: number): WaitResult {
    const result = super.wait(offset, value, timeoutMs);
    if (this.armed && result === 'timed-out') this.overslept = true;
    return result;
  }
}

/**
 * Runs `waiter` again and again, each time with the whole of `waker` between two of its shared accesses: one
 * run for each place, up to its second sleep. Fails when the waiter sleeps although the waker is through.
 * @param scene  makes both anew, from the environments of two threads that park; a waker that returns false
 *               could not run here (the waiter holds its lock) and is called again one access later
 */
export function everyPlaceForWaker(
  t: ExecutionContext,
  field: Field,
  scene: (waiter: SyncEnv, waker: SyncEnv, offset: number) => { waiter: () => number; waker: () => boolean },
): void {
  let places = 0;
  let sleeps = 0;
  for (let place = 0; sleeps < 2; place++, places++) {
    const { memory, envs, offset } = bench(field);
    const words = new WatchedWords(memory.buffer);
    const parking = { canPark: true, clock: monotonicClock, spinNs: 0, parkSliceMs: 1, words };
    const { waiter, waker } = scene({ ...envs[0], ...parking }, { ...envs[1], ...parking }, offset);
    let accesses = 0;
    sleeps = 0;
    let inWaker = false;
    watchAccesses((op) => {
      if (words.armed || inWaker) return;
      if (accesses++ >= place) {
        inWaker = true;
        words.armed = waker();
        inWaker = false;
      }
      if (op === 'wait' && !words.armed) sleeps++;
    });
    try {
      if (waiter() !== 0) t.fail(`place ${place}: the waiter did not get through`);
    } finally {
      watchAccesses(null);
    }
    if (!words.armed) t.fail(`place ${place}: the waiter did not wait for the waker`);
    if (words.overslept) t.fail(`place ${place}: the waiter slept on after the waker was through`);
  }
  t.true(places > 64);
}

/** For a waker of one call that returns nothing. */
export function done(_called: unknown): true {
  return true;
}
