/** The windows of one owner of foreign frames, by the page they begin at. */
import type { ForeignFrames, FrameOwner, FrameWindow } from './foreign-frames.js';

export class OwnerWindows {
  readonly #frames: ForeignFrames;
  readonly #owner: FrameOwner;
  readonly #windows = new Map<number, FrameWindow>();
  #last: FrameWindow | null = null;

  constructor(frames: ForeignFrames, owner: FrameOwner) {
    this.#frames = frames;
    this.#owner = owner;
  }

  /**
   * @param out  frame of the page, and how many frames of `pages` follow it without a gap
   * @returns 0 | -ENOMEM
   */
  runAt(page: number, pages: number, out: { pfn: number; pages: number }): number {
    const { windowPages } = this.#frames.range;
    let window = this.#last;
    if (window === null || page < window.firstPage || page >= window.firstPage + windowPages) {
      const slot = Math.floor(page / windowPages);
      const known = this.#windows.get(slot) ?? this.#frames.allocate(this.#owner, page);
      if (typeof known === 'number') return known;
      this.#windows.set(slot, known);
      this.#last = window = known;
    }
    out.pfn = this.#frames.frameOf(window, page);
    out.pages = Math.min(pages, window.firstPage + windowPages - page);
    return 0;
  }

  get recent(): boolean {
    for (const window of this.#windows.values()) if (this.#frames.isRecent(window)) return true;
    return false;
  }

  forget(window: FrameWindow): void {
    this.#windows.delete(Math.floor(window.firstPage / this.#frames.range.windowPages));
    if (this.#last === window) this.#last = null;
  }

  /** Gives back what is not pinned. */
  release(): void {
    for (const window of [...this.#windows.values()]) {
      if (window.total > 0) continue;
      this.forget(window);
      this.#frames.release(window);
    }
  }
}
