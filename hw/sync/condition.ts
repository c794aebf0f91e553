/**
 * A condition variable, used with a Mutex.
 *
 *   seq       +1 by each signal that somebody may be waiting for: the word slept on
 *   waiters   threads between the start and the end of wait()
 *
 *   waiter (mutex held)                    signaller (after changing what is waited for)
 *   waiters += 1; seen = seq               waiters? seq += 1, notify
 *   unlock; sleep while seq = seen
 *   waiters -= 1; lock
 *
 * The waiter reads seq while it holds the mutex, so a change made under the mutex either is seen by the test
 * before wait() or moves seq past `seen`. wait() may return without a signal of one's own: test again, or use
 * waitFor(). waiters counts a thread that died in wait() for ever, which costs needless notifies.
 */
import type { Field } from '../memory/layout.js';
import type { Mutex } from './mutex.js';
import type { SyncEnv } from './thread.js';
import { ETIMEDOUT, NEVER, waitUntil } from './wait.js';

const WAITERS = 4;
const ALL = Number.POSITIVE_INFINITY;

/** Zeroed memory is a condition nobody waits for. */
export const conditionField = (): Field => ({ bytes: 8, align: 4 });

/** What threads wait for that hold a mutex, and let go of it while they sleep. */
export class Condition {
  readonly #env: SyncEnv;
  readonly #seq: number;

  constructor(env: SyncEnv, offset: number) {
    this.#env = env;
    this.#seq = offset;
  }

  /**
   * @param mutex  held by the caller; held again on return, but for -ENOTRECOVERABLE
   * @returns 0 | -ETIMEDOUT | what Mutex.lock returns
   */
  wait(mutex: Mutex, deadlineNs = NEVER): number {
    const { words } = this.#env;
    mutex.assertHeld();
    words.add(this.#seq + WAITERS, 1);
    const late = this.#env.bugs?.['condition-seq-read-after-unlock'] === true;
    let seen = late ? 0 : words.load(this.#seq);
    mutex.unlock();
    if (late) seen = words.load(this.#seq);
    const waited = waitUntil(this.#env, this.#seq, () => words.load(this.#seq) !== seen, deadlineNs);
    words.sub(this.#seq + WAITERS, 1);
    const locked = mutex.lock();
    return locked < 0 ? locked : waited;
  }

  /** Waits until `holds()`, which is called with the mutex held. @returns as wait() */
  waitFor(mutex: Mutex, holds: () => boolean, deadlineNs = NEVER): number {
    while (!holds()) {
      const result = this.wait(mutex, deadlineNs);
      if (result < 0) return result;
      // Signals that never pause must not keep it past its deadline.
      if (this.#env.clock.nowNs() >= deadlineNs && !holds()) return -ETIMEDOUT;
    }
    return 0;
  }

  /** Wakes at least one thread that waits now. */
  signal(): void {
    this.#wake(1);
  }

  broadcast(): void {
    this.#wake(ALL);
  }

  #wake(count: number): void {
    const { words } = this.#env;
    if (words.load(this.#seq + WAITERS) === 0) return;
    words.add(this.#seq, 1);
    words.notify(this.#seq, count);
  }
}
