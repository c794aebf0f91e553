/**
 * A guest kernel's page-frame allocator: IPA frames of its RAM, next fit over a byte per frame. It belongs to
 * the guest's thread; nothing about it is shared.
 */
import { bug } from '../../hw/memory/bug.js';
import { ENOMEM } from '../../uapi/abi/errno.js';

export class GuestFrames {
  readonly #first: number;
  readonly #used: Uint8Array;
  #hint = 0;
  #free: number;

  /** @param firstPfn  IPA frame number of the first frame */
  constructor(firstPfn: number, count: number) {
    this.#first = firstPfn;
    this.#used = new Uint8Array(count);
    this.#free = count;
  }

  /** Frames not handed out. */
  get free(): number {
    return this.#free;
  }

  /**
   * @param alignPages  a power of two
   * @returns first IPA frame number of `pages` consecutive ones | -ENOMEM
   */
  alloc(pages = 1, alignPages = 1): number {
    const found = this.#find(this.#hint, this.#used.length, pages, alignPages);
    const at = found >= 0 ? found : this.#find(0, this.#used.length, pages, alignPages);
    if (at < 0) return -ENOMEM;
    this.#used.fill(1, at, at + pages);
    this.#free -= pages;
    this.#hint = at + pages;
    return this.#first + at;
  }

  release(pfn: number, pages = 1): void {
    const at = pfn - this.#first;
    for (let i = at; i < at + pages; i++) {
      if (this.#used[i] !== 1) bug(`guest frame ${this.#first + i} is released, but was not allocated`);
      this.#used[i] = 0;
    }
    this.#free += pages;
    if (at < this.#hint) this.#hint = at;
  }

  #find(from: number, to: number, pages: number, alignPages: number): number {
    const align = (index: number): number =>
      Math.ceil((index + this.#first) / alignPages) * alignPages - this.#first;
    let start = align(from);
    let at = start;
    while (start + pages <= to) {
      if (at === start + pages) return start;
      if (this.#used[at] === 0) at++;
      else {
        start = align(at + 1);
        at = start;
      }
    }
    return -1;
  }
}
