/**
 * A readers-writer lock that prefers writers: once one is next in line, nobody starts to read. Of several that
 * wait, each is passed by one batch of readers at most.
 *
 *   word:  writer id | id of the writer next in line << 8          readers: one bit a thread
 *
 *   word       readers   readLock by B          writeLock by B
 *   0          none      sets its bit           -> B
 *   0          some      sets its bit           -> B (none enters any more), then waits until they left
 *   A          any       waits                  -> A|B<<8 (or waits to be next), then waits
 *   C<<8       any       waits for C            B = C: -> B; else waits to be next
 *   A is dead            EOWNERDEAD, not held   -> B, EOWNERDEAD
 *   next is dead         strikes it out         strikes it out
 *   a reader is dead     -                      clears its bit: it changed nothing
 *
 * A reader sets its bit, then reads the word; a writer sets the word, then reads the bits: one of the two sees
 * the other. What one waits for lies in several words, so all sleep on `turn`, which whoever may have made
 * another ready advances when `parked` says that somebody sleeps. A thread reads once at a time.
 */
import { bug } from '../memory/bug.js';
import { array, type Field, i32, LINE, layout } from '../memory/layout.js';
import { checkRank, popRank, pushRank } from './lock-rank.js';
import { MAX_THREADS, type SyncEnv } from './thread.js';
import { EOWNERDEAD, NEVER, waitUntil } from './wait.js';

const WRITER = 0xff;
const NEXT_SHIFT = 8;
const READER_WORDS = (MAX_THREADS + 1) / 32;
const ALL = Number.POSITIVE_INFINITY;

const { at, size } = layout('rw-lock', 1, {
  word: i32(),
  turn: i32(),
  parked: i32(),
  readers: array(i32(), READER_WORDS),
});

/** Zeroed memory is a free lock. */
export const rwLockField = (): Field => ({ bytes: size, align: LINE });

/** Many readers or one writer; a writer in line keeps new readers out. */
export class RwLock {
  readonly #env: SyncEnv;
  readonly #base: number;
  readonly #rank: number | undefined;
  /** The word and the bit that say this thread reads. */
  readonly #myReaders: number;
  readonly #myBit: number;
  readonly #announce: (delta: number) => void;

  /** @param rank  see lock-rank.ts; none: not checked */
  constructor(env: SyncEnv, offset: number, rank?: number) {
    this.#env = env;
    this.#base = offset;
    this.#rank = rank;
    this.#myReaders = offset + at.readers + (env.threadId >>> 5) * 4;
    this.#myBit = 1 << (env.threadId & 31);
    this.#announce = (delta) => void env.words.add(offset + at.parked, delta);
  }

  /** @returns 0 | -ETIMEDOUT | -EOWNERDEAD not held: a writer died, and only a writer can take over */
  readLock(deadlineNs = NEVER): number {
    checkRank(this.#env, this.#rank);
    const { threads, threadId } = this.#env;
    if (this.readHeldByMe()) bug(`thread ${threadId} takes the rwlock at ${this.#base} for reading twice`);
    if (!this.#enter()) {
      if (this.writeHeldByMe()) bug(`thread ${threadId} reads under its own write lock at ${this.#base}`);
      const ready = (): boolean => this.#word() === 0 && this.#enter();
      const owner = (): number => this.#deadOrWriter();
      for (;;) {
        const result = this.#wait(ready, deadlineNs, owner);
        if (result === 0) break;
        if (result !== -EOWNERDEAD || threads.isDead(this.#word() & WRITER)) return result;
        this.#strikeOutDeadNext();
      }
    }
    pushRank(this.#env, this.#rank);
    return 0;
  }

  tryReadLock(): boolean {
    if (this.readHeldByMe() || !this.#enter()) return false;
    pushRank(this.#env, this.#rank);
    return true;
  }

  readUnlock(): void {
    this.assertReadHeld();
    popRank(this.#env, this.#rank);
    this.#leave();
  }

  /** @returns 0 | -ETIMEDOUT | -EOWNERDEAD held, after a writer that died: repair what is guarded */
  writeLock(deadlineNs = NEVER): number {
    checkRank(this.#env, this.#rank);
    const { words, threadId } = this.#env;
    if (this.readHeldByMe()) bug(`thread ${threadId} writes under its own read lock at ${this.#base}`);
    let orphanOf = 0;
    if (words.compareExchange(this.#base + at.word, 0, threadId) !== 0) {
      const became = this.#becomeWriter(deadlineNs);
      if (became < 0) return became;
      orphanOf = became;
    }
    const left = this.#awaitReaders(deadlineNs);
    if (left < 0) {
      this.#releaseWriter(orphanOf);
      return left;
    }
    pushRank(this.#env, this.#rank);
    return orphanOf === 0 ? 0 : -EOWNERDEAD;
  }

  tryWriteLock(): boolean {
    const { words, threadId } = this.#env;
    if (this.readHeldByMe()) return false;
    if (words.compareExchange(this.#base + at.word, 0, threadId) !== 0) return false;
    if (this.#anyReader()) {
      this.#releaseWriter(0);
      return false;
    }
    pushRank(this.#env, this.#rank);
    return true;
  }

  writeUnlock(): void {
    this.assertWriteHeld();
    popRank(this.#env, this.#rank);
    this.#releaseWriter(0);
  }

  readHeldByMe(): boolean {
    return (this.#env.words.load(this.#myReaders) & this.#myBit) !== 0;
  }

  writeHeldByMe(): boolean {
    return (this.#word() & WRITER) === this.#env.threadId;
  }

  assertReadHeld(): void {
    if (!this.readHeldByMe())
      bug(`thread ${this.#env.threadId} does not read under the rwlock at ${this.#base}`);
  }

  assertWriteHeld(): void {
    if (!this.writeHeldByMe()) bug(`thread ${this.#env.threadId} does not hold the rwlock at ${this.#base}`);
  }

  #word(): number {
    return this.#env.words.load(this.#base + at.word);
  }

  #enter(): boolean {
    this.#env.words.or(this.#myReaders, this.#myBit);
    if (this.#word() === 0) return true;
    this.#leave();
    return false;
  }

  #leave(): void {
    this.#env.words.and(this.#myReaders, ~this.#myBit);
    if (this.#word() !== 0) this.#wake();
  }

  /** Waits for the word. @returns 0 | the dead writer it was taken over from | -ETIMEDOUT */
  #becomeWriter(deadlineNs: number): number {
    const { words, threads, threadId } = this.#env;
    if (this.writeHeldByMe()) bug(`thread ${threadId} takes the rwlock at ${this.#base} for writing twice`);
    const offset = this.#base + at.word;
    const ready = (): boolean => {
      const word = this.#word();
      const next = word >>> NEXT_SHIFT;
      if ((word & WRITER) === 0 && (next === 0 || next === threadId))
        return words.compareExchange(offset, word, threadId) === word;
      if (next === 0) words.compareExchange(offset, word, word | (threadId << NEXT_SHIFT));
      return false;
    };
    const owner = (): number => this.#deadOrWriter();
    for (;;) {
      const result = this.#wait(ready, deadlineNs, owner);
      if (result === 0) return 0;
      if (result !== -EOWNERDEAD) {
        this.#strikeOut(threadId);
        return result;
      }
      const word = this.#word();
      const dead = word & WRITER;
      const next = word >>> NEXT_SHIFT === threadId ? 0 : word & ~WRITER;
      if (!threads.isDead(dead)) this.#strikeOutDeadNext();
      else if (words.compareExchange(offset, word, next | threadId) === word) return dead;
    }
  }

  /** As the writer: waits until the readers left, those who died included. @returns 0 | -ETIMEDOUT */
  #awaitReaders(deadlineNs: number): number {
    const gone = (): boolean => !this.#anyReader();
    for (;;) {
      if (gone()) return 0;
      const result = this.#wait(gone, deadlineNs, () => this.#forDeadReader(false));
      if (result !== -EOWNERDEAD) return result;
      this.#forDeadReader(true);
    }
  }

  #anyReader(): boolean {
    for (let i = 0; i < READER_WORDS; i++)
      if (this.#env.words.load(this.#base + at.readers + i * 4) !== 0) return true;
    return false;
  }

  /** Finds a dead reader, or clears the bits of them all. @returns the thread id found, or 0 */
  #forDeadReader(clear: boolean): number {
    const { words, threads } = this.#env;
    for (let i = 0; i < READER_WORDS; i++) {
      const offset = this.#base + at.readers + i * 4;
      for (let bits = words.load(offset); bits !== 0; bits &= bits - 1) {
        const bit = bits & -bits;
        const id = i * 32 + 31 - Math.clz32(bit);
        if (!threads.isDead(id)) continue;
        if (!clear) return id;
        words.and(offset, ~bit);
      }
    }
    return 0;
  }

  /** @param to  0, or the dead writer that the lock goes back to unrepaired */
  #releaseWriter(to: number): void {
    this.#env.words.xor(this.#base + at.word, this.#env.threadId ^ to);
    this.#wake();
  }

  /** The writer, or the one next in line when that one is dead or there is no writer. */
  #deadOrWriter(): number {
    const word = this.#word();
    const writer = word & WRITER;
    const next = word >>> NEXT_SHIFT;
    return next !== 0 && (writer === 0 || this.#env.threads.isDead(next)) ? next : writer;
  }

  #strikeOutDeadNext(): void {
    const next = this.#word() >>> NEXT_SHIFT;
    if (next !== 0 && this.#env.threads.isDead(next)) this.#strikeOut(next);
  }

  /** Takes a thread out of the place next in line, if it is there. */
  #strikeOut(id: number): void {
    const { words } = this.#env;
    for (let word = this.#word(); word >>> NEXT_SHIFT === id; word = this.#word())
      if (words.compareExchange(this.#base + at.word, word, word & WRITER) === word) this.#wake();
  }

  #wait(ready: () => boolean, deadlineNs: number, owner: () => number): number {
    return waitUntil(this.#env, this.#base + at.turn, ready, deadlineNs, owner, this.#announce);
  }

  #wake(): void {
    const { words } = this.#env;
    if (words.load(this.#base + at.parked) === 0) return;
    words.add(this.#base + at.turn, 1);
    words.notify(this.#base + at.turn, ALL);
  }
}
