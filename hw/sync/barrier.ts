/**
 * A barrier for a fixed number of threads, used again and again.
 *
 *   word: generation << 9 | BROKEN << 8 | arrived
 *
 *   arrived        wait()                                   a waiter gives up     breakAll()
 *   < parties - 1  arrived + 1, sleeps until the word's     arrived - 1           BROKEN, wakes all
 *                  generation moves
 *   parties - 1    generation + 1, arrived = 0, wakes all   -                     BROKEN, wakes all
 *   BROKEN         EOWNERDEAD, at once and for all          -                     -
 *
 * Arrival, withdrawal and release are changes of one word, so that a thread that gives up either takes its
 * arrival back or was released. The barrier does not know its parties: the supervisor that sees one die calls
 * breakAll().
 */
import { bug } from '../memory/bug.js';
import type { Field } from '../memory/layout.js';
import type { SyncEnv } from './thread.js';
import { EOWNERDEAD, NEVER, waitUntil } from './wait.js';

const ARRIVED = 0xff;
const BROKEN = 1 << 8;
const GENERATION_SHIFT = 9;
const PARTIES = 4;
const ALL = Number.POSITIVE_INFINITY;

/** Its place in a layout. */
export const barrierField = (): Field => ({ bytes: 8, align: 4 });

/** A meeting of a fixed number of threads: nobody goes on before all have come. */
export class Barrier {
  readonly #env: SyncEnv;
  readonly #word: number;

  constructor(env: SyncEnv, offset: number) {
    this.#env = env;
    this.#word = offset;
  }

  /** Before anyone waits, or to repair a broken barrier that nobody waits at. @param parties 1..255 */
  init(parties: number): void {
    if (!Number.isInteger(parties) || parties < 1 || parties > ARRIVED) bug(`barrier for ${parties} threads`);
    this.#env.words.store(this.#word + PARTIES, parties);
    this.#env.words.store(this.#word, 0);
  }

  /** @returns 1 for the thread that arrived last, 0 for the others | -ETIMEDOUT not arrived | -EOWNERDEAD broken */
  wait(deadlineNs = NEVER): number {
    const { words } = this.#env;
    const parties = words.load(this.#word + PARTIES);
    const word = this.#change((now) => {
      if (now & BROKEN) return now;
      return (now & ARRIVED) + 1 === parties ? nextGeneration(now) : now + 1;
    });
    if (word & BROKEN) return -EOWNERDEAD;
    if ((word & ARRIVED) + 1 === parties) {
      words.notify(this.#word, ALL);
      return 1;
    }
    const late = this.#env.bugs?.['barrier-generation-read-late'] === true;
    const generation = (late ? words.load(this.#word) : word) >>> GENERATION_SHIFT;
    const moved = (now: number): boolean => now >>> GENERATION_SHIFT !== generation || (now & BROKEN) !== 0;
    const result = waitUntil(this.#env, this.#word, () => moved(words.load(this.#word)), deadlineNs);
    // Either still counted, and no more, or released in the last moment.
    const last = result === 0 ? words.load(this.#word) : this.#change((now) => (moved(now) ? now : now - 1));
    if (last >>> GENERATION_SHIFT !== generation) return 0;
    return last & BROKEN ? -EOWNERDEAD : result;
  }

  /** A party will never come: every wait, now and later, ends with -EOWNERDEAD. */
  breakAll(): void {
    this.#env.words.or(this.#word, BROKEN);
    this.#env.words.notify(this.#word, ALL);
  }

  /** Threads that wait now. */
  arrived(): number {
    return this.#env.words.load(this.#word) & ARRIVED;
  }

  /** @returns the word before the change */
  #change(next: (now: number) => number): number {
    const { words } = this.#env;
    let now = words.load(this.#word);
    for (;;) {
      const seen = words.compareExchange(this.#word, now, next(now));
      if (seen === now) return now;
      now = seen;
    }
  }
}

function nextGeneration(word: number): number {
  return (((word >>> GENERATION_SHIFT) + 1) << GENERATION_SHIFT) | 0;
}
