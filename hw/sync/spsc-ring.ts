/**
 * A ring from one producer to one consumer: `slots` slots of `slotWords` words.
 *
 *   cons          prod                     prod, cons: slots moved so far, modulo 2^32; full at `slots` apart
 *    v             v
 *   [ready][ready][free  ][free  ]         producer: writes slots, then prod      (sole writer of prod)
 *                                          consumer: reads slots, then cons       (sole writer of cons)
 *
 * Neither side waits: a Doorbell tells the other one. A producer that dies left whole slots or none.
 */
import { bug } from '../memory/bug.js';
import { type Field, LINE, roundUp } from '../memory/layout.js';
import type { SyncEnv } from './thread.js';

const CONS = LINE;
const SLOTS = 2 * LINE;

/** @param slots a power of two. Zeroed memory is an empty ring. */
export const spscRingField = (slots: number, slotWords: number): Field => ({
  bytes: roundUp(SLOTS + slots * slotWords * 4, LINE),
  align: LINE,
});

/** A queue of fixed-size records: one thread pushes, one pops. */
export class SpscRing {
  readonly #env: SyncEnv;
  readonly #base: number;
  readonly #slots: number;
  readonly #slotWords: number;
  readonly #publishesEarly: boolean;
  readonly #forgetsWrap: boolean;

  constructor(env: SyncEnv, offset: number, slots: number, slotWords: number) {
    if (slots < 1 || (slots & (slots - 1)) !== 0) bug(`ring of ${slots} slots`);
    this.#env = env;
    this.#base = offset;
    this.#slots = slots;
    this.#slotWords = slotWords;
    this.#publishesEarly = env.bugs?.['ring-published-before-written'] === true;
    this.#forgetsWrap = env.bugs?.['ring-full-taken-for-empty'] === true;
  }

  /**
   * The producer alone.
   * @param from  the slots' words, one slot after the other, from index `at`
   * @param count slots to push
   * @returns slots pushed: as many as fit
   */
  push(from: Int32Array, at: number, count: number): number {
    const { words } = this.#env;
    const prod = words.load(this.#base);
    const n = Math.min(count, this.#slots - this.#filled(prod, words.load(this.#base + CONS)));
    if (this.#publishesEarly && n > 0) words.store(this.#base, (prod + n) | 0);
    for (let i = 0; i < n; i++)
      words.write(this.#slot((prod + i) >>> 0), from, at + i * this.#slotWords, this.#slotWords);
    if (n > 0) words.store(this.#base, (prod + n) | 0);
    return n;
  }

  /**
   * The consumer alone.
   * @param max slots that `into` has room for, from index `at`
   * @returns slots popped
   */
  pop(into: Int32Array, at: number, max: number): number {
    const { words } = this.#env;
    const cons = words.load(this.#base + CONS);
    const n = Math.min(max, this.#filled(words.load(this.#base), cons));
    for (let i = 0; i < n; i++)
      words.read(this.#slot((cons + i) >>> 0), into, at + i * this.#slotWords, this.#slotWords);
    if (n > 0) words.store(this.#base + CONS, (cons + n) | 0);
    return n;
  }

  /** Slots to pop: exact for the two ends, a moment's view for others. */
  filled(): number {
    const { words } = this.#env;
    const cons = words.load(this.#base + CONS);
    return this.#filled(words.load(this.#base), cons);
  }

  #filled(prod: number, cons: number): number {
    if (this.#forgetsWrap) return (prod - cons) & (this.#slots - 1);
    return Math.min((prod - cons) >>> 0, this.#slots);
  }

  #slot(index: number): number {
    return this.#base + SLOTS + (index & (this.#slots - 1)) * this.#slotWords * 4;
  }
}
