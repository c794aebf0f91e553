/** A word on which threads of a scenario wait for one another: what one does, another is to do only after it. */
import type { Machine } from '../../../runtime/machine.js';
import type { ThreadContext } from '../scenario.js';

export class Gate {
  /** Linear offset, for `share`. */
  readonly at: number;
  readonly #ctx: ThreadContext;

  constructor(ctx: ThreadContext, at: number) {
    this.#ctx = ctx;
    this.at = at;
  }

  /** Closed, in a frame of its own. Thread 0, before the others attach. */
  static make(ctx: ThreadContext, machine: Machine): Gate {
    const pfn = machine.frames.alloc();
    machine.frames.zero(pfn, 1);
    return new Gate(ctx, machine.memory.linearOf(pfn * 4096, 4));
  }

  open(): void {
    this.#ctx.words.store(this.at, 1);
    this.#ctx.words.notify(this.at, Number.POSITIVE_INFINITY);
  }

  get isOpen(): boolean {
    return this.#ctx.words.load(this.at) !== 0;
  }

  pass(): void {
    while (!this.isOpen) this.#ctx.words.wait(this.at, 0, Number.POSITIVE_INFINITY);
  }
}
