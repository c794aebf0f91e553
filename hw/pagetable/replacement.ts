/**
 * Splitting and collapsing leaves under break-before-make. [DDI0487] D8.16.1.
 *
 *   replace()   the old entries are invalid        the new entries stand (BBM level 2)
 *      |  caller: invalidates `firstPage`, `pages`, `leaf` everywhere, and waits
 *   finish()    the new entries are written        what walkers still recorded in the old ones is taken over
 *   cancel()    or the old ones come back          (no way back)
 *
 * Accessed and dirty state survives each of them. While one is pending its table takes no other edit.
 */
import type { Kernel } from '../kernel/kernel.js';
import { bug } from '../memory/bug.js';
import {
  REASON_DONE,
  REPLACE_COLLAPSE,
  REPLACE_GROUP,
  REPLACE_SPLIT,
  REPLACE_UNGROUP,
  STEP_BREAK,
  STEP_DIRECT,
  STEP_MAKE,
  STEP_SETTLE,
  STEP_UNDO,
} from './page-table-layout.js';

const EFAULT = 14;

/**
 * split: a block becomes a table of leaves of the next level. collapse: the reverse, for a table whose leaves are
 * all there, in one aligned run and alike. ungroup: a contiguous group becomes single leaves. group: the reverse.
 */
export type ReplaceKind = 'split' | 'collapse' | 'ungroup' | 'group';

const WHAT: Readonly<Record<ReplaceKind, number>> = {
  split: REPLACE_SPLIT,
  collapse: REPLACE_COLLAPSE,
  ungroup: REPLACE_UNGROUP,
  group: REPLACE_GROUP,
};

export class Replacement {
  /** What to invalidate before finish(), 4 KiB pages. */
  readonly firstPage: number;
  readonly pages: number;
  /** False when a table was unlinked: walk caches have to forget it too. */
  readonly leaf: boolean;
  readonly #step: (step: number) => number;
  readonly #direct: boolean;
  readonly #closed: () => void;
  #open = true;

  /** @param step  runs one step; @param closed  called when no step is left */
  constructor(
    range: { firstPage: number; pages: number; leaf: boolean },
    direct: boolean,
    step: (step: number) => number,
    closed: () => void,
  ) {
    this.firstPage = range.firstPage;
    this.pages = range.pages;
    this.leaf = range.leaf;
    this.#direct = direct;
    this.#step = step;
    this.#closed = closed;
  }

  /** The first step. @returns REASON_*; anything but REASON_DONE has changed nothing */
  begin(): number {
    return this.#step(this.#direct ? STEP_DIRECT : STEP_BREAK);
  }

  /** After the invalidation is complete. @returns 0 | -EFAULT somebody else wrote into the table meanwhile */
  finish(): number {
    return this.#last(this.#direct ? STEP_SETTLE : STEP_MAKE);
  }

  /** Puts the old entries back: when the invalidation failed, or is not wanted after all. @returns as finish() */
  cancel(): number {
    if (this.#direct) bug('page table: a direct replacement cannot be cancelled');
    return this.#last(STEP_UNDO);
  }

  #last(step: number): number {
    if (!this.#open) bug('page table: a replacement ends twice');
    this.#open = false;
    const reason = this.#step(step);
    this.#closed();
    return reason === REASON_DONE ? 0 : -EFAULT;
  }
}

/** One step of one kind for the entry of a page, as the compiled editor takes it. */
export const stepper =
  (kernel: Kernel, descriptor: number, page: number, level: number, kind: ReplaceKind) =>
  (step: number): number =>
    kernel.ptReplace(descriptor, page, level, WHAT[kind], step);
