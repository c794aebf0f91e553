/**
 * How hard a device drives: bursts of batches, then a short rest outside every epoch. With more threads than
 * cores a device that never rests is preempted inside its epoch, and each SYNC then waits for its time slice.
 */
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { rest } from '../../../hw/sync/wait.js';
import type { Random } from '../random.js';

const BATCHES_PER_BURST = 24;
const REST_MS = 0.4;

export class Pace {
  readonly #env: SyncEnv;
  readonly #random: Random;
  #left = BATCHES_PER_BURST;

  constructor(env: SyncEnv, random: Random) {
    this.#env = env;
    this.#random = random;
  }

  afterBatch(): void {
    if (--this.#left > 0) return;
    this.#left = 1 + this.#random.below(2 * BATCHES_PER_BURST);
    this.rest();
  }

  rest(): void {
    rest(this.#env, REST_MS);
  }
}
