/**
 * A sequence lock: readers take nothing, and read again when a writer was there meanwhile.
 *
 *   word: sequence << 8 | writer        sequence modulo 2^24: a reader must not sleep through 2^24 writes
 *
 *   writer        writeBegin by B            writeEnd          reader
 *   0  stable     -> writer = B              bug               reads; good if the word is the same after
 *   A  writing    waits                      sequence + 1, 0   waits
 *   A  A is dead  -> writer = B, EOWNERDEAD  -                 EOWNERDEAD: what is guarded may be half written
 *
 * What is guarded is accessed through Words, never cached between.
 */
import { bug } from '../memory/bug.js';
import type { Field } from '../memory/layout.js';
import type { SyncEnv } from './thread.js';
import { EOWNERDEAD, ETIMEDOUT, NEVER, waitUntil } from './wait.js';

const WRITER = 0xff;
const SEQUENCE_SHIFT = 8;
const WAITERS = 4;
const ALL = Number.POSITIVE_INFINITY;
const isWriting = (word: number): boolean => (word & WRITER) !== 0;

/** Zeroed memory is stable. */
export const seqLockField = (): Field => ({ bytes: 8, align: 4 });

/** Readers who look again when a writer came; they never keep it out. */
export class SeqLock {
  readonly #env: SyncEnv;
  readonly #word: number;
  readonly #stable: () => boolean;
  readonly #begin: () => boolean;
  readonly #writer: () => number;
  readonly #announce: (delta: number) => void;

  constructor(env: SyncEnv, offset: number) {
    const { words } = env;
    this.#env = env;
    this.#word = offset;
    this.#stable = () => !isWriting(words.load(offset));
    this.#begin = () => {
      const word = words.load(offset);
      return !isWriting(word) && words.compareExchange(offset, word, word | env.threadId) === word;
    };
    this.#writer = () => words.load(offset) & WRITER;
    this.#announce = (delta) => void words.add(offset + WAITERS, delta);
  }

  /** @returns 0 | -ETIMEDOUT | -EOWNERDEAD writing, after a writer that died: write all that is guarded */
  writeBegin(deadlineNs = NEVER): number {
    if (this.#begin()) return 0;
    const { words, threads, threadId } = this.#env;
    if (this.#writer() === threadId)
      bug(`thread ${threadId} writes under the seqlock at ${this.#word} twice`);
    for (;;) {
      const result = waitUntil(
        this.#env,
        this.#word,
        this.#begin,
        deadlineNs,
        this.#writer,
        this.#announce,
        undefined,
        isWriting,
      );
      if (result !== -EOWNERDEAD) return result;
      const word = words.load(this.#word);
      if (!threads.isDead(word & WRITER)) continue;
      if (words.compareExchange(this.#word, word, (word & ~WRITER) | threadId) === word) return result;
    }
  }

  writeEnd(): void {
    const { words, threadId } = this.#env;
    const word = words.load(this.#word);
    if ((word & WRITER) !== threadId)
      bug(`thread ${threadId} does not write under the seqlock at ${this.#word}`);
    words.store(this.#word, ((word >>> SEQUENCE_SHIFT) + 1) << SEQUENCE_SHIFT);
    if (words.load(this.#word + WAITERS) !== 0) words.notify(this.#word, ALL);
  }

  /** @returns a ticket for readRetry | -ETIMEDOUT | -EOWNERDEAD */
  readBegin(deadlineNs = NEVER): number {
    const word = this.#env.words.load(this.#word);
    if (!isWriting(word)) return word >>> SEQUENCE_SHIFT;
    const result = waitUntil(
      this.#env,
      this.#word,
      this.#stable,
      deadlineNs,
      this.#writer,
      this.#announce,
      undefined,
      isWriting,
    );
    // A writer that came just now only makes the ticket void.
    return result < 0 ? result : this.#env.words.load(this.#word) >>> SEQUENCE_SHIFT;
  }

  /** @returns whether what was read since readBegin may be mixed: read again */
  readRetry(ticket: number): boolean {
    return this.#env.words.load(this.#word) !== ticket << SEQUENCE_SHIFT;
  }

  /** Copies `count` words as they were at one moment. @returns 0 | -ETIMEDOUT | -EOWNERDEAD */
  read(offset: number, into: Int32Array, count: number, deadlineNs = NEVER): number {
    for (;;) {
      const ticket = this.readBegin(deadlineNs);
      if (ticket < 0) return ticket;
      this.#env.words.read(offset, into, 0, count);
      if (!this.readRetry(ticket)) return 0;
      if (this.#env.clock.nowNs() >= deadlineNs) return -ETIMEDOUT;
    }
  }
}
