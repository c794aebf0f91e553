/**
 * A robust mutex. The word holds the owner's thread id, so that a waiter sees an owner that died.
 *
 *   word          meaning            lock by B                    unlock by the owner
 *   0             free               -> B, 0                      bug
 *   A             held               waits                        -> 0, wakes one
 *   A, A is dead  orphan             -> B|INCONSISTENT, EOWNERDEAD   -
 *   B|INCONSISTENT  held, broken     waits                        -> NOTRECOVERABLE, wakes all
 *                                                                 (after markConsistent: B)
 *   NOTRECOVERABLE  lost for good    ENOTRECOVERABLE              bug
 *
 * `waiters` counts those who sleep or are about to: unlock changes the word first and reads the count after,
 * a waiter counts itself first and reads the word after, so one of the two sees the other. A waiter that dies
 * stays counted, which costs a needless notify and nothing else.
 */
import { bug } from '../memory/bug.js';
import type { Field } from '../memory/layout.js';
import { checkRank, popRank, pushRank } from './lock-rank.js';
import type { SyncEnv } from './thread.js';
import { EOWNERDEAD, NEVER, waitUntil } from './wait.js';

export const ENOTRECOVERABLE = 131;

const FREE = 0;
const OWNER = 0xff;
const INCONSISTENT = 1 << 8;
const NOTRECOVERABLE = 1 << 9;
const WAITERS = 4;

/** Values a waiter may sleep on: somebody will unlock. */
const isHeld = (word: number): boolean => word !== FREE && word !== NOTRECOVERABLE;

/** Zeroed memory is a free mutex. */
export const mutexField = (): Field => ({ bytes: 8, align: 4 });

/** A lock that threads sleep for; the next owner is told when the last one died with it. */
export class Mutex {
  readonly #env: SyncEnv;
  readonly #word: number;
  readonly #rank: number | undefined;

  /** @param rank  see lock-rank.ts; none: not checked */
  constructor(env: SyncEnv, offset: number, rank?: number) {
    this.#env = env;
    this.#word = offset;
    this.#rank = rank;
  }

  /**
   * @returns 0 | -ETIMEDOUT
   *   | -EOWNERDEAD held, but the last owner died in its section: repair, markConsistent(), or give up by unlock()
   *   | -ENOTRECOVERABLE not held, nor ever again
   */
  lock(deadlineNs = NEVER): number {
    const { words, threadId } = this.#env;
    checkRank(this.#env, this.#rank);
    let result = 0;
    if (words.compareExchange(this.#word, FREE, threadId) !== FREE) {
      result = this.#lockSlow(deadlineNs);
      if (result !== 0 && result !== -EOWNERDEAD) return result;
    }
    pushRank(this.#env, this.#rank);
    return result;
  }

  /** @returns whether the mutex is held now. It takes neither an orphan nor one not recoverable. */
  tryLock(): boolean {
    const { words, threadId } = this.#env;
    if (words.compareExchange(this.#word, FREE, threadId) !== FREE) return false;
    pushRank(this.#env, this.#rank);
    return true;
  }

  unlock(): void {
    const { words, threadId } = this.#env;
    const word = words.load(this.#word);
    if ((word & OWNER) !== threadId)
      bug(`unlock by thread ${threadId} of a mutex that thread ${word & OWNER} holds`);
    popRank(this.#env, this.#rank);
    const broken = (word & INCONSISTENT) !== 0;
    const early = this.#env.bugs?.['mutex-wakes-before-release'] === true;
    const seenEarly = early && words.load(this.#word + WAITERS) !== 0;
    words.store(this.#word, broken ? NOTRECOVERABLE : FREE);
    if (early ? seenEarly : words.load(this.#word + WAITERS) !== 0)
      words.notify(this.#word, broken ? NEVER : 1);
  }

  /** After -EOWNERDEAD and a repair: what the mutex guards is whole again. */
  markConsistent(): void {
    this.assertHeld();
    this.#env.words.and(this.#word, ~INCONSISTENT);
  }

  assertHeld(): void {
    if (!this.heldByMe()) bug(`thread ${this.#env.threadId} does not hold the mutex at ${this.#word}`);
  }

  heldByMe(): boolean {
    return this.owner() === this.#env.threadId;
  }

  /** @returns thread id of the owner, 0 when free */
  owner(): number {
    return this.#env.words.load(this.#word) & OWNER;
  }

  #lockSlow(deadlineNs: number): number {
    const { words, threadId } = this.#env;
    const ready = (): boolean => {
      const word = words.load(this.#word);
      if (word === NOTRECOVERABLE) return true;
      return word === FREE && words.compareExchange(this.#word, FREE, threadId) === FREE;
    };
    const owner = (): number => this.owner();
    const announce = (delta: number): void => void words.add(this.#word + WAITERS, delta);
    if (this.heldByMe()) bug(`thread ${threadId} locks the mutex at ${this.#word} twice`);
    for (;;) {
      const result = waitUntil(this.#env, this.#word, ready, deadlineNs, owner, announce, undefined, isHeld);
      if (result === 0) return this.heldByMe() ? 0 : -ENOTRECOVERABLE;
      if (result !== -EOWNERDEAD || this.#takeOrphan()) return result;
    }
  }

  /** One waiter becomes the orphan's owner; the others go on waiting, for it. */
  #takeOrphan(): boolean {
    const { words, threads, threadId } = this.#env;
    const word = words.load(this.#word);
    if (!threads.isDead(word & OWNER)) return false;
    return words.compareExchange(this.#word, word, threadId | INCONSISTENT) === word;
  }
}
