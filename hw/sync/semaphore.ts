/**
 * A counting semaphore.
 *
 *   count   acquire by B          release(n)
 *   0       waits                 -> n, wakes up to n
 *   c > 0   -> c - 1              -> c + n, wakes up to n
 *
 * `waiters` counts those who sleep or are about to (see mutex.ts for why none is missed). A unit has no owner,
 * so a thread that dies holding one takes it along: whoever supervises gives it back.
 */
import { bug } from '../memory/bug.js';
import type { Field } from '../memory/layout.js';
import type { SyncEnv } from './thread.js';
import { NEVER, waitUntil } from './wait.js';

const WAITERS = 4;
const MAX_COUNT = 0x7fff_ffff;
const isUsedUp = (count: number): boolean => count <= 0;

/** Zeroed memory is a semaphore with nothing to acquire. */
export const semaphoreField = (): Field => ({ bytes: 8, align: 4 });

/** A number of units to acquire and release. */
export class Semaphore {
  readonly #env: SyncEnv;
  readonly #count: number;
  readonly #take: () => boolean;
  readonly #announce: (delta: number) => void;

  constructor(env: SyncEnv, offset: number) {
    this.#env = env;
    this.#count = offset;
    this.#take = () => this.tryAcquire();
    this.#announce = (delta) => void env.words.add(offset + WAITERS, delta);
  }

  /** Sets the count. Before anyone uses it. */
  init(count: number): void {
    this.#env.words.store(this.#count, count);
  }

  /** @returns 0 | -ETIMEDOUT */
  acquire(deadlineNs = NEVER): number {
    if (this.tryAcquire()) return 0;
    return waitUntil(
      this.#env,
      this.#count,
      this.#take,
      deadlineNs,
      undefined,
      this.#announce,
      undefined,
      isUsedUp,
    );
  }

  tryAcquire(): boolean {
    const { words } = this.#env;
    let count = words.load(this.#count);
    while (count > 0) {
      const seen = words.compareExchange(this.#count, count, count - 1);
      if (seen === count) return true;
      count = seen;
    }
    return false;
  }

  release(n = 1): void {
    const { words } = this.#env;
    const before = n > 0 ? words.add(this.#count, n) : Number.POSITIVE_INFINITY;
    if (!(before <= MAX_COUNT - n)) bug(`semaphore at ${this.#count}: release of ${n}`);
    if (before !== 0 && this.#env.bugs?.['semaphore-wakes-only-from-zero']) return;
    if (words.load(this.#count + WAITERS) !== 0) words.notify(this.#count, n);
  }

  /** What could be acquired just now. */
  value(): number {
    return this.#env.words.load(this.#count);
  }
}
