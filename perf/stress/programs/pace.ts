/**
 * How hard a thread drives: bursts of work, then a rest outside every epoch, so long that the thread takes no
 * more than its share of the machine. With more runnable threads than cores, a device that never rests is
 * preempted inside its epoch, and each SYNC then waits for its next time slice. Since the rest follows the
 * burst's wall time, an overloaded machine calms down by itself.
 */
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { rest } from '../../../hw/sync/wait.js';
import type { Random } from '../random.js';

const BURST_MIN_NS = 100_000;
const BURST_SPREAD_NS = 400_000;
const REST_MIN_MS = 0.1;
const REST_MAX_MS = 20;

export class Pace {
  readonly #env: SyncEnv;
  readonly #random: Random;
  readonly #restPerWork: number;
  #began: number;
  #burstNs: number;

  /** @param duty  share of the time to work, above 0 and at most 1 */
  constructor(env: SyncEnv, random: Random, duty: number) {
    this.#env = env;
    this.#random = random;
    this.#restPerWork = 1 / duty - 1;
    this.#began = env.clock.nowNs();
    this.#burstNs = BURST_MIN_NS;
  }

  /** Between two pieces of work: rests when the burst has been long enough. */
  breathe(): void {
    const now = this.#env.clock.nowNs();
    const worked = now - this.#began;
    if (worked < this.#burstNs) return;
    if (this.#restPerWork > 0) {
      const ms = (worked * this.#restPerWork) / 1e6;
      rest(this.#env, Math.min(Math.max(ms, REST_MIN_MS), REST_MAX_MS));
    }
    this.#began = this.#env.clock.nowNs();
    this.#burstNs = BURST_MIN_NS + this.#random.below(BURST_SPREAD_NS);
  }
}
