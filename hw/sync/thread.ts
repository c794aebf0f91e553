/**
 * Who is calling: the identity, clock and waiting policy of a thread, and the table in shared memory that
 * says which threads are alive. A primitive stores the owner's thread id in its word, so that a waiter can
 * see that the owner died (the supervisor marks it) instead of waiting for ever.
 *
 *   FREE(0) --register--> ALIVE(1) --retire--> FREE     --markDead--> DEAD(2), never used again
 */
import type { BugSwitches } from '../bugs/bug-switches.js';
import { array, i32, layout, line } from '../memory/layout.js';
import type { Words } from './words.js';

export const MAX_THREADS = 255;

/** state[id]: the registering thread, then the supervisor (DEAD). deaths: the supervisor adds one per death. */
export const ThreadTableLayout = layout('threads', 1, {
  deaths: line(i32()),
  /** Always 0: what a thread that only wants to rest parks on. */
  still: line(i32()),
  state: array(i32(), MAX_THREADS + 1),
});

const FREE = 0;
const ALIVE = 1;
const DEAD = 2;

/** Monotonic time in nanoseconds. Injected: nothing in hw or runtime reads a clock of its own. */
export interface Clock {
  nowNs(): number;
  /** What to add so that the times of several threads compare. Default 0. */
  readonly epochNs?: number;
}

/** `performance.now()` starts at 0 on each thread; the processor's clock does not. */
export const monotonicClock: Clock = {
  nowNs: () => performance.now() * 1e6,
  get epochNs() {
    epochNs ??= Math.min(...Array.from({ length: 16 }, offsetNs));
    return epochNs;
  },
};

let epochNs: number | undefined;

/** The least of several is the one least delayed between the two readings. */
function offsetNs(): number {
  const ownNs = performance.now() * 1e6;
  return Number(process.hrtime.bigint()) - ownNs;
}

/**
 * One thread's view of a machine's synchronisation.
 * @property relax  called while spinning; inline machines step their models here and return whether
 *                  anything moved. Absent when the models run on threads of their own.
 * @property canPark  false on a thread that may not block (it then only spins and relaxes)
 * @property spin     false: look once, then park; for an explorer, to which every look is a step
 * @property spinNs   how long to spin before parking; a default when absent
 * @property parkSliceMs  longest sleep before looking again whether the awaited thread died; a default when
 *                  absent. A long one makes a lost wake-up show as a time-out.
 */
export interface SyncEnv {
  readonly words: Words;
  readonly threads: ThreadTable;
  readonly threadId: number;
  readonly clock: Clock;
  readonly canPark: boolean;
  readonly spin?: boolean | undefined;
  readonly spinNs?: number | undefined;
  readonly parkSliceMs?: number | undefined;
  /** Known bugs switched on; none when absent. */
  readonly bugs?: BugSwitches | undefined;
  relax?: (() => boolean) | undefined;
}

/** Who is alive: threads register, a supervisor marks who died. */
export class ThreadTable {
  readonly #words: Words;
  readonly #base: number;

  constructor(memory: { readonly words: Words }, region: { readonly base: number }) {
    this.#words = memory.words;
    this.#base = region.base;
  }

  /** @returns a thread id in 1..MAX_THREADS, or -1 when the table is full */
  register(): number {
    for (let id = 1; id <= MAX_THREADS; id++)
      if (this.#words.compareExchange(this.#state(id), FREE, ALIVE) === FREE) return id;
    return -1;
  }

  /** A thread leaves in good order, holding nothing. */
  retire(id: number): void {
    this.#words.compareExchange(this.#state(id), ALIVE, FREE);
  }

  /** The supervisor's verdict. The id is not used again, so locks it held stay recognisable. */
  markDead(id: number): void {
    this.#words.store(this.#state(id), DEAD);
    this.#words.add(this.#base + ThreadTableLayout.at.deaths, 1);
  }

  /** Byte offset of a word that never changes. */
  get still(): number {
    return this.#base + ThreadTableLayout.at.still;
  }

  isDead(id: number): boolean {
    return this.#words.load(this.#state(id)) === DEAD;
  }

  #state(id: number): number {
    return this.#base + ThreadTableLayout.at.state + id * 4;
  }
}
