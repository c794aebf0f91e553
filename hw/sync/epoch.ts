/**
 * Epochs: waiting until everyone who may still use what was taken away has let go of it, at the price of two
 * words a visit. The protocol of hw/iotlb/unit-layout.ts in general form.
 *
 *   gen       the generation, never 0        waiting   how many threads synchronize
 *   ack[s]    0 outside, else the generation seen on entry; slot s belongs to one thread
 *
 *   visitor                                   synchronizer (after taking something away)
 *   do ack = gen while gen != ack (*)         gen += 1 (skipping 0); waiting += 1
 *   ... what was reachable then stays ...     sleep until every ack is 0 or not older than gen
 *   ack = 0; waiting? wake                    waiting -= 1
 *
 * (*) from the second time on: waiting? wake.
 *
 * A visitor that reads gen again after storing ack was either seen by the synchronizer or sees the new
 * generation, and with it what was done before. A visitor that died uses nothing any more: it has left.
 * Generations compare modulo 2^32: no visit may last 2^31 of them.
 */
import { bug } from '../memory/bug.js';
import { array, type Field, i32, type Layout, LINE, layout, line } from '../memory/layout.js';
import type { SyncEnv } from './thread.js';
import { EOWNERDEAD, NEVER, waitUntil } from './wait.js';

const ALL = Number.POSITIVE_INFINITY;

const epochLayout = (slots: number): Layout<Record<'gen' | 'waiting' | 'turn' | 'slots', Field>> =>
  layout('epoch', 1, {
    gen: line(i32()),
    waiting: line(i32()),
    /** Futex of the synchronizers. */
    turn: i32(),
    /** A line a slot: ack, then the id of the thread it belongs to. */
    slots: array(line(i32()), slots),
  });

const THREAD = 4;

/** Its place in a layout, with room for so many visitors at a time. */
export const epochField = (slots: number): Field => ({ bytes: epochLayout(slots).size, align: LINE });

/** Visits, and who waits until all that began before are over. */
export class Epoch {
  readonly #env: SyncEnv;
  readonly #base: number;
  readonly #at: ReturnType<typeof epochLayout>['at'];
  readonly #slots: number;

  constructor(env: SyncEnv, offset: number, slots: number) {
    this.#env = env;
    this.#base = offset;
    this.#at = epochLayout(slots).at;
    this.#slots = slots;
  }

  /** Before anyone uses it. */
  init(): void {
    this.#env.words.store(this.#base + this.#at.gen, 1);
  }

  /** Makes the slot this thread's own. Before its first visit. */
  claim(slot: number): void {
    this.#env.words.store(this.#ack(slot) + THREAD, this.#env.threadId);
  }

  /** @returns the generation entered: what was kept from an older one is to be dropped */
  enter(slot: number): number {
    const { words } = this.#env;
    const ack = this.#ack(slot);
    if (words.load(ack) !== 0) bug(`epoch slot ${slot} is entered twice`);
    let gen = words.load(this.#base + this.#at.gen);
    for (let moved = false; ; moved = true) {
      words.store(ack, gen);
      // A synchronizer may have seen the older one, and sleep until that visit ends.
      if (moved) this.#wake();
      if (this.#env.bugs?.['epoch-enter-without-recheck']) return gen >>> 0;
      const now = words.load(this.#base + this.#at.gen);
      if (now === gen) return gen >>> 0;
      gen = now;
    }
  }

  leave(slot: number): void {
    this.#env.words.store(this.#ack(slot), 0);
    this.#wake();
  }

  /** After a slot has ceased to lag. */
  #wake(): void {
    const { words } = this.#env;
    if (words.load(this.#base + this.#at.waiting) === 0) return;
    words.add(this.#base + this.#at.turn, 1);
    words.notify(this.#base + this.#at.turn, ALL);
  }

  /** Starts a generation, for a synchronizer that goes on with other work. @returns what isPast() takes */
  advance(): number {
    const { words } = this.#env;
    const offset = this.#base + this.#at.gen;
    for (;;) {
      const gen = words.load(offset);
      const next = gen === -1 ? 1 : (gen + 1) | 0;
      if (words.compareExchange(offset, gen, next) === gen) return next;
    }
  }

  /** Whether every visit that began before advance() returned `gen` is over. */
  isPast(gen: number): boolean {
    for (let slot = 0; slot < this.#slots; slot++) if (this.#lags(slot, gen)) return false;
    return true;
  }

  /** Waits until every visit under way has ended. Not from inside a visit. @returns 0 | -ETIMEDOUT */
  synchronize(deadlineNs = NEVER): number {
    const { words } = this.#env;
    const gen = this.advance();
    words.add(this.#base + this.#at.waiting, 1);
    let result: number;
    do {
      result = waitUntil(
        this.#env,
        this.#base + this.#at.turn,
        () => this.isPast(gen),
        deadlineNs,
        () => this.#deadVisitor(gen),
      );
      if (result === -EOWNERDEAD) this.#expelDead(gen);
    } while (result === -EOWNERDEAD);
    words.sub(this.#base + this.#at.waiting, 1);
    return result;
  }

  #ack(slot: number): number {
    return this.#base + this.#at.slots + slot * LINE;
  }

  #lags(slot: number, gen: number): boolean {
    const ack = this.#env.words.load(this.#ack(slot));
    return ack !== 0 && ((ack - gen) | 0) < 0;
  }

  #threadOf(slot: number): number {
    return this.#env.words.load(this.#ack(slot) + THREAD);
  }

  /** The thread of a dead visitor that is waited for, or 0. */
  #deadVisitor(gen: number): number {
    for (let slot = 0; slot < this.#slots; slot++)
      if (this.#lags(slot, gen) && this.#env.threads.isDead(this.#threadOf(slot)))
        return this.#threadOf(slot);
    return 0;
  }

  #expelDead(gen: number): void {
    for (let slot = 0; slot < this.#slots; slot++)
      if (this.#lags(slot, gen) && this.#env.threads.isDead(this.#threadOf(slot))) this.leave(slot);
  }
}
