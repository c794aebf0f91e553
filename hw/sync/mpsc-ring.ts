/**
 * A ring from many producers to one consumer: `slots` slots of a state word and `slotWords` words each.
 *
 *   state: lap << 10 | kind << 8 | thread          lap: how often the ring went round, modulo 2^22
 *
 *   FREE(lap)       --producer P: compare-exchange-->     CLAIMED(lap, P)
 *   CLAIMED(lap, P) --P wrote the words-->                READY(lap)
 *   READY(lap)      --consumer copied the words-->        FREE(lap + 1)
 *   CLAIMED(lap, P) --consumer finds P dead-->            FREE(lap + 1), lost + 1
 *
 * A slot is claimed by its own word, which names the producer: one that dies between claim and READY is found
 * by the consumer, and the slots behind its own are not lost. prod only says where to look for a free slot;
 * a producer that finds the slot there taken moves prod on for its owner. The consumer passes slots in order,
 * so it waits at a claimed slot until that is ready. Slots of one push keep their order, but those of another
 * producer may lie between them.
 */
import { bug } from '../memory/bug.js';
import { type Field, LINE, roundUp } from '../memory/layout.js';
import type { SyncEnv } from './thread.js';

const CONS = LINE;
/** On the consumer's line. */
const LOST = LINE + 4;
const SLOTS = 2 * LINE;

const LAP_SHIFT = 10;
const LAP_MASK = 2 ** 22 - 1;
const KIND_MASK = 3 << 8;
const CLAIMED = 1 << 8;
const READY = 2 << 8;
const THREAD = 0xff;

/** @param slots a power of two. Zeroed memory is an empty ring. */
export const mpscRingField = (slots: number, slotWords: number): Field => ({
  bytes: roundUp(SLOTS + slots * (slotWords + 1) * 4, LINE),
  align: LINE,
});

/** A queue of fixed-size records: many threads push, one pops. */
export class MpscRing {
  readonly #env: SyncEnv;
  readonly #base: number;
  readonly #slots: number;
  readonly #slotsLg2: number;
  readonly #slotWords: number;
  readonly #publishesEarly: boolean;

  constructor(env: SyncEnv, offset: number, slots: number, slotWords: number) {
    if (slots < 1 || (slots & (slots - 1)) !== 0) bug(`ring of ${slots} slots`);
    this.#env = env;
    this.#base = offset;
    this.#slots = slots;
    this.#slotsLg2 = 31 - Math.clz32(slots);
    this.#slotWords = slotWords;
    this.#publishesEarly = env.bugs?.['ring-published-before-written'] === true;
  }

  /**
   * Any thread.
   * @param from  the slots' words, one slot after the other, from index `at`
   * @param count slots to push
   * @returns slots pushed: as many as fit
   */
  push(from: Int32Array, at: number, count: number): number {
    const { words } = this.#env;
    for (let i = 0; i < count; i++) {
      const index = this.#claim();
      if (index < 0) return i;
      const slot = this.#slot(index);
      if (this.#publishesEarly) words.store(slot, this.#free(index) | READY);
      words.write(slot + 4, from, at + i * this.#slotWords, this.#slotWords);
      words.store(slot, this.#free(index) | READY);
    }
    return count;
  }

  /**
   * The consumer alone.
   * @param max slots that `into` has room for, from index `at`
   * @returns slots popped
   */
  pop(into: Int32Array, at: number, max: number): number {
    const { words } = this.#env;
    let cons = words.load(this.#base + CONS) >>> 0;
    let n = 0;
    while (n < max) {
      const slot = this.#slot(cons);
      const state = words.load(slot);
      if ((state & KIND_MASK) === READY) {
        words.read(slot + 4, into, at + n * this.#slotWords, this.#slotWords);
        n++;
      } else if (this.#isAbandoned(slot, state)) {
        words.add(this.#base + LOST, 1);
        // It may have died before it moved prod on, and producers would take the freed slot for a full ring.
        words.compareExchange(this.#base, cons | 0, (cons + 1) | 0);
      } else break;
      words.store(slot, this.#free((cons + this.#slots) >>> 0));
      cons = (cons + 1) >>> 0;
      words.store(this.#base + CONS, cons | 0);
    }
    return n;
  }

  /** Whether pop() would move: a slot is ready, or its producer is dead. The consumer alone. */
  hasWork(): boolean {
    const slot = this.#slot(this.#env.words.load(this.#base + CONS) >>> 0);
    const state = this.#env.words.load(slot);
    return (state & KIND_MASK) === READY || this.#isAbandoned(slot, state);
  }

  /** The producer that claimed the slot the consumer is at and has not filled it, 0 when there is none. */
  claimant(): number {
    const state = this.#env.words.load(this.#slot(this.#env.words.load(this.#base + CONS) >>> 0));
    return (state & KIND_MASK) === CLAIMED ? state & THREAD : 0;
  }

  /** Slots whose producer died before it filled them. */
  lost(): number {
    return this.#env.words.load(this.#base + LOST);
  }

  /** Takes the slot at prod. @returns its index, or -1 when the ring is full */
  #claim(): number {
    const { words, threadId } = this.#env;
    for (;;) {
      const prod = words.load(this.#base) >>> 0;
      const slot = this.#slot(prod);
      const free = this.#free(prod);
      const state = words.compareExchange(slot, free, free | CLAIMED | threadId);
      const sameLap = (state & ~(KIND_MASK | THREAD)) === free;
      // Taken in this lap, by us or by another: prod is behind.
      if (sameLap) words.compareExchange(this.#base, prod | 0, (prod + 1) | 0);
      if (state === free) return prod;
      // Of the lap before and prod did not move meanwhile: the consumer has not come by yet.
      if (!sameLap && words.load(this.#base) >>> 0 === prod) return -1;
    }
  }

  #isAbandoned(slot: number, state: number): boolean {
    const { words, threads } = this.#env;
    if ((state & KIND_MASK) !== CLAIMED || !threads.isDead(state & THREAD)) return false;
    // It may have filled the slot before it died, but after `state` was read.
    return words.load(slot) === state;
  }

  /** The state FREE of the slot at an index. */
  #free(index: number): number {
    return (((index >>> this.#slotsLg2) & LAP_MASK) << LAP_SHIFT) | 0;
  }

  #slot(index: number): number {
    return this.#base + SLOTS + (index & (this.#slots - 1)) * (this.#slotWords + 1) * 4;
  }
}
