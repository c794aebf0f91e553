/**
 * Something that is done once, by whoever comes first, while the others wait for it.
 *
 *   word            run(fn) by B
 *   0     new       -> B, fn(), then DONE and wakes all; a throw: back to 0, wakes all
 *   A     running   waits
 *   A, A is dead    -> B, fn() again: fn must bear being cut short and repeated
 *   DONE            nothing
 */
import { bug } from '../memory/bug.js';
import type { Field } from '../memory/layout.js';
import type { SyncEnv } from './thread.js';
import { EOWNERDEAD, NEVER, waitUntil } from './wait.js';

const NEW = 0;
const DONE = 1 << 8;
const WAITERS = 4;
const ALL = Number.POSITIVE_INFINITY;
const isRunning = (word: number): boolean => word !== NEW && word !== DONE;

/** Zeroed memory is something not done yet. */
export const onceField = (): Field => ({ bytes: 8, align: 4 });

/** Something that one thread does for all. */
export class Once {
  readonly #env: SyncEnv;
  readonly #word: number;

  constructor(env: SyncEnv, offset: number) {
    this.#env = env;
    this.#word = offset;
  }

  /**
   * @throws what fn throws; it is then not done
   * @returns 1 done by this call | 0 done before | -ETIMEDOUT
   */
  run(fn: () => void, deadlineNs = NEVER): number {
    const { words, threads, threadId } = this.#env;
    const ready = (): boolean => !isRunning(words.load(this.#word));
    const owner = (): number => words.load(this.#word) & 0xff;
    const announce = (delta: number): void => void words.add(this.#word + WAITERS, delta);
    for (;;) {
      const word = words.load(this.#word);
      if (word === DONE) return 0;
      if (word === threadId) bug(`once at ${this.#word} runs itself`);
      if (word === NEW || threads.isDead(word)) {
        if (words.compareExchange(this.#word, word, threadId) !== word) continue;
        this.#runHere(fn);
        return 1;
      }
      const result = waitUntil(
        this.#env,
        this.#word,
        ready,
        deadlineNs,
        owner,
        announce,
        undefined,
        isRunning,
      );
      if (result !== 0 && result !== -EOWNERDEAD) return result;
    }
  }

  isDone(): boolean {
    return this.#env.words.load(this.#word) === DONE;
  }

  #runHere(fn: () => void): void {
    const { words } = this.#env;
    let end = NEW;
    try {
      fn();
      end = DONE;
    } finally {
      words.store(this.#word, end);
      if (words.load(this.#word + WAITERS) !== 0) words.notify(this.#word, ALL);
    }
  }
}
