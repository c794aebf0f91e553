/**
 * How often each page of a window is pinned: for itself, and as one of a whole chunk. What was pinned as a chunk may
 * be unpinned page by page, and the other way round; only the sum means something.
 */

/** Pages that are pinned together at the cost of one. */
const CHUNK = 512;

export class FramePins {
  readonly #chunks: Int32Array;
  /** Whether pages of a chunk have counts of their own. */
  readonly #mixed: Uint8Array;
  readonly #pages: Int32Array;

  constructor(pages: number) {
    this.#chunks = new Int32Array(pages / CHUNK);
    this.#mixed = new Uint8Array(pages / CHUNK);
    this.#pages = new Int32Array(pages);
  }

  of(page: number): number {
    return this.#chunks[Math.floor(page / CHUNK)]! + this.#pages[page]!;
  }

  add(first: number, end: number): void {
    for (let page = first; page < end; ) {
      const chunk = Math.floor(page / CHUNK);
      if (page % CHUNK === 0 && page + CHUNK <= end) {
        this.#chunks[chunk]!++;
        page += CHUNK;
        continue;
      }
      this.#mixed[chunk] = 1;
      for (const stop = Math.min(end, (chunk + 1) * CHUNK); page < stop; page++) this.#pages[page]!++;
    }
  }

  /** @returns -1, or a page that was not pinned */
  drop(first: number, end: number): number {
    for (let page = first; page < end; ) {
      const chunk = Math.floor(page / CHUNK);
      const stop = Math.min(end, (chunk + 1) * CHUNK);
      const whole = stop - page === CHUNK;
      if (whole) {
        this.#chunks[chunk]!--;
        if (this.#chunks[chunk]! >= 0 && this.#mixed[chunk] === 0) {
          page = stop;
          continue;
        }
      } else this.#mixed[chunk] = 1;
      for (; page < stop; page++) {
        if (!whole) this.#pages[page]!--;
        if (this.of(page) < 0) return page;
      }
    }
    return -1;
  }
}
