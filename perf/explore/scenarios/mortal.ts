/**
 * A thread that dies before any of its shared accesses, as a worker that is terminated does: when, is the schedule's
 * choice, since another thread's step is what kills it. Its death is then marked, as a supervisor would.
 */
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { type WaitResult, Words } from '../../../hw/sync/words.js';
import type { ThreadContext } from '../scenario.js';

/** Ghost word and a word of memory, for the step. */
const DOOMED = 7;
const STEP = 504;

/** A dead thread's accesses all throw it: nothing that it does on the way out is seen. */
export class Death extends Error {}

/** The environment of the thread that may die. */
export function mortal(ctx: ThreadContext): SyncEnv {
  const words = new MortalWords(ctx.memory.buffer as SharedArrayBuffer, () => isDoomed(ctx));
  return { ...waitsInSlices(ctx), words };
}

/** The environment of those who outlive it: a death wakes nobody, so they look up from time to time. */
export const waitsInSlices = (ctx: ThreadContext): SyncEnv => ({ ...ctx.env, parkSliceMs: 20 });

/** @param died  called without steps before the thread is marked dead, if it does not come to its end */
export function untilDeath(ctx: ThreadContext, live: () => void, died?: () => void): void {
  try {
    live();
  } catch (error) {
    if (!(error instanceof Death)) throw error;
    died?.();
    ctx.env.threads.markDead(ctx.env.threadId);
  }
}

/** One step, after which the mortal thread makes one access more at most. */
export function kill(ctx: ThreadContext): void {
  doom(ctx, ctx.words, ctx.base + STEP);
}

/** The same, where the step is a word of one's own. */
export function doom(ctx: ThreadContext, words: Words, step: number): void {
  words.add(step, 1);
  ctx.ghost[DOOMED] = 1;
}

export const isDoomed = (ctx: ThreadContext): boolean => ctx.ghost[DOOMED] !== 0;

export class MortalWords extends Words {
  readonly #isDoomed: () => boolean;

  constructor(buffer: SharedArrayBuffer, isDoomed: () => boolean) {
    super(buffer);
    this.#isDoomed = isDoomed;
  }

  override load(offset: number): number {
    this.#live();
    return super.load(offset);
  }

  override store(offset: number, value: number): void {
    this.#live();
    super.store(offset, value);
  }

  override add(offset: number, value: number): number {
    this.#live();
    return super.add(offset, value);
  }

  override sub(offset: number, value: number): number {
    this.#live();
    return super.sub(offset, value);
  }

  override and(offset: number, value: number): number {
    this.#live();
    return super.and(offset, value);
  }

  override or(offset: number, value: number): number {
    this.#live();
    return super.or(offset, value);
  }

  override xor(offset: number, value: number): number {
    this.#live();
    return super.xor(offset, value);
  }

  override compareExchange(offset: number, expected: number, value: number): number {
    this.#live();
    return super.compareExchange(offset, expected, value);
  }

  override write(offset: number, from: Int32Array, at: number, count: number): void {
    this.#live();
    super.write(offset, from, at, count);
  }

  override wait(offset: number, value: number, timeoutMs: number, polled = false): WaitResult {
    this.#live();
    return super.wait(offset, value, timeoutMs, polled);
  }

  override notify(offset: number, count: number): number {
    this.#live();
    return super.notify(offset, count);
  }

  #live(): void {
    if (this.#isDoomed()) throw new Death('killed');
  }
}
