/**
 * A lock for a few instructions: unlock is one store and wakes nobody.
 *
 *   word          lock by B                     unlock by the owner
 *   0  free       -> B, 0                       bug
 *   A  held       spins, then naps in slices    -> 0
 *   A  A is dead  -> B, EOWNERDEAD              -
 *
 * A waiter that spun for long finds its holder descheduled; it then sleeps a millisecond at a time instead of
 * taking the processor the holder needs. What a dead holder left is the taker's to repair: the lock itself
 * keeps no trace of it.
 */
import { bug } from '../memory/bug.js';
import type { Field } from '../memory/layout.js';
import { checkRank, popRank, pushRank } from './lock-rank.js';
import type { SyncEnv } from './thread.js';
import { EOWNERDEAD, NEVER, waitUntil } from './wait.js';

const FREE = 0;
const NAP_MS = 1;
const isHeld = (word: number): boolean => word !== FREE;

/** Zeroed memory is a free lock. */
export const spinLockField = (): Field => ({ bytes: 4, align: 4 });

/** A lock for a few instructions: who waits spins, then naps. */
export class SpinLock {
  readonly #env: SyncEnv;
  readonly #word: number;
  readonly #rank: number | undefined;

  /** @param rank  see lock-rank.ts; none: not checked */
  constructor(env: SyncEnv, offset: number, rank?: number) {
    this.#env = env;
    this.#word = offset;
    this.#rank = rank;
  }

  /** @returns 0 | -ETIMEDOUT | -EOWNERDEAD held, taken over from a dead thread */
  lock(deadlineNs = NEVER): number {
    checkRank(this.#env, this.#rank);
    if (this.#take()) {
      pushRank(this.#env, this.#rank);
      return 0;
    }
    const { words, threads, threadId } = this.#env;
    if (this.heldByMe()) bug(`thread ${threadId} locks the spin lock at ${this.#word} twice`);
    const take = (): boolean => words.load(this.#word) === FREE && this.#take();
    const owner = (): number => words.load(this.#word);
    for (;;) {
      const result = waitUntil(this.#env, this.#word, take, deadlineNs, owner, undefined, NAP_MS, isHeld);
      if (result === -EOWNERDEAD) {
        const dead = owner();
        if (!threads.isDead(dead) || words.compareExchange(this.#word, dead, threadId) !== dead) continue;
      } else if (result !== 0) return result;
      pushRank(this.#env, this.#rank);
      return result;
    }
  }

  tryLock(): boolean {
    if (!this.#take()) return false;
    pushRank(this.#env, this.#rank);
    return true;
  }

  unlock(): void {
    this.assertHeld();
    popRank(this.#env, this.#rank);
    this.#env.words.store(this.#word, FREE);
  }

  assertHeld(): void {
    if (!this.heldByMe()) bug(`thread ${this.#env.threadId} does not hold the spin lock at ${this.#word}`);
  }

  heldByMe(): boolean {
    return this.#env.words.load(this.#word) === this.#env.threadId;
  }

  #take(): boolean {
    return this.#env.words.compareExchange(this.#word, FREE, this.#env.threadId) === FREE;
  }
}
