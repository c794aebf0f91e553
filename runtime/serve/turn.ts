/**
 * Puts requests off to the end of the event loop's turn. The kernel reports in one go, in no useful order, what
 * became readable: requests, and descriptors that were closed for the last time. A request may rely on a close that
 * was before it (another process's exit, say), so closes are seen to first.
 */
export class Turn {
  #work: (() => void)[] = [];
  readonly #after: () => void;
  readonly #later: (work: () => void) => void;

  /**
   * @param after  called when a turn's work is done
   * @param later  calls something at the end of the turn; a test that makes its own turns has another
   */
  constructor(after: () => void, later: (work: () => void) => void = setImmediate) {
    this.#after = after;
    this.#later = later;
  }

  add(work: () => void): void {
    if (this.#work.push(work) === 1) this.#later(() => this.#run());
  }

  #run(): void {
    const work = this.#work;
    this.#work = [];
    for (const one of work) one();
    this.#after();
  }
}
