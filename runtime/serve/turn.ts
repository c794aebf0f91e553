/**
 * Puts requests off to the end of the event loop's turn. The kernel reports in one go, in no useful order, what
 * became readable: requests, and descriptors that were closed for the last time. A request may rely on a close that
 * was before it (another process's exit, say), so closes are seen to first.
 */
export class Turn {
  #work: (() => void)[] = [];
  readonly #after: () => void;

  /** @param after  called when a turn's work is done */
  constructor(after: () => void) {
    this.#after = after;
  }

  add(work: () => void): void {
    if (this.#work.push(work) === 1) setImmediate(() => this.#run());
  }

  #run(): void {
    const work = this.#work;
    this.#work = [];
    for (const one of work) one();
    this.#after();
  }
}
