/**
 * How one thread is told that it has work: a counter that anyone advances, and a flag that says whether its
 * one listener sleeps. Ringing a listener that is awake costs no system call.
 *
 *   count    +1 by each ring: the word slept on
 *   parked   0 awake | 1 asleep or about to be
 *
 *   ringer                          listener
 *   make work visible               parked = 1
 *   count += 1                      seen = count; any work?
 *   parked? notify                  sleep while count = seen
 *
 * The two words are a cache line apart, as `doorbell, doorbellParked` and `answered, parked` are in the
 * translation unit's and the port's layouts, whose other side is the compiled kernel.
 */
import { type Field, LINE } from '../memory/layout.js';
import type { SyncEnv } from './thread.js';
import { NEVER, waitUntil } from './wait.js';

/** Its place in a layout. */
export const doorbellField = (): Field => ({ bytes: 2 * LINE, align: LINE });

/** Tells one listener that there is work; costs no system call while it is awake. */
export class Doorbell {
  readonly #env: SyncEnv;
  readonly #count: number;
  readonly #parked: number;
  readonly #announce: (delta: 1 | -1) => void;
  readonly #looksEarly: boolean;
  #announced = false;

  constructor(env: SyncEnv, offset: number, parkedOffset = offset + LINE) {
    this.#env = env;
    this.#count = offset;
    this.#parked = parkedOffset;
    this.#looksEarly = env.bugs?.['doorbell-parked-after-look'] === true;
    this.#announce = (delta) => {
      this.#announced = delta === 1;
      env.words.store(this.#parked, delta === 1 ? 1 : 0);
    };
  }

  /** After the work can be seen. Any thread. */
  ring(): void {
    const { words } = this.#env;
    words.add(this.#count, 1);
    if (words.load(this.#parked) !== 0) words.notify(this.#count, 1);
  }

  /**
   * The listener alone. `ready` looks for the work itself: a ring is only a hint that it may be there.
   * @param owner  thread the work must come from, if it can only be one
   * @returns 0 | -ETIMEDOUT | -EOWNERDEAD
   */
  waitFor(ready: () => boolean, deadlineNs = NEVER, owner?: () => number): number {
    const look = this.#looksEarly ? () => !this.#announced && ready() : ready;
    return waitUntil(this.#env, this.#count, look, deadlineNs, owner, this.#announce);
  }

  /** Rings so far, modulo 2^32. */
  rings(): number {
    return this.#env.words.load(this.#count) >>> 0;
  }
}
