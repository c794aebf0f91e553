/**
 * Frames of the machine's bus that are other processes' memory: the pages that a client of the server lends to
 * its devices. A frame number stands for one page of one owner, the private pages of a process or a file:
 *
 *   pfn = window's first + (page % windowPages)        page: of the process's addresses, or of the file
 *
 * so that neighbours stay neighbours, and what is aligned stays aligned, within a window of 1 GiB: large IO pages
 * form as if the memory were contiguous. Two mappings of one page of a file are one frame.
 *
 * A window is an owner's from the first question about one of its pages until nothing of it is pinned and the
 * owner is gone, or the window has not been asked about for long. Pinned frames are never anybody else's.
 */
import { bug } from '../../hw/memory/bug.js';
import { EFAULT, ENOMEM } from '../../uapi/abi/errno.js';
import type { PhysicalMemory } from '../core/task.js';
import type { ForeignRange } from '../foreign-range.js';
import { FramePins } from './frame-pins.js';

const PAGE = 4096;
/** Windows that nothing pins and that stay their owners', for the next time; each may hold a count for each page. */
const MAX_IDLE = 256;
/** Windows asked about since are no idle ones: the asker may be about to pin. */
const RECENT = 16;

/** Whose pages the frames of a window are. Pages are numbered by the owner. */
export interface FrameOwner {
  readonly name: string;
  /** Bytes of memory, perhaps of several pages. @returns false when there is no such memory any more */
  read(page: number, offset: number, into: Uint8Array): boolean;
  write(page: number, offset: number, from: Uint8Array): boolean;
  /** Whether the page is one of a larger one (PageCompound). */
  isCompound(page: number): boolean;
  /** The first frame of a window was pinned, or the last one was unpinned. */
  pinned(window: FrameWindow, pinned: boolean): void;
  /** Forget this window: it is another's from here on. */
  forget(window: FrameWindow): void;
}

export interface FrameWindow {
  readonly owner: FrameOwner;
  readonly firstPfn: number;
  /** The owner's page that firstPfn is. */
  readonly firstPage: number;
  /** How often each frame is pinned; made with the first pin. */
  pins: FramePins | null;
  /** Sum of `pins`. */
  total: number;
  /** Number of the last question. */
  asked: number;
}

export class ForeignFrames implements PhysicalMemory {
  readonly range: ForeignRange;
  readonly #log: (message: string) => void;
  readonly #windows: (FrameWindow | undefined)[] = [];
  /** Indexes below #windows.length that are nobody's. */
  readonly #free: number[] = [];
  readonly #told = new WeakSet<FrameOwner>();
  #questions = 0;
  #idle = 0;

  constructor(range: ForeignRange, log: (message: string) => void) {
    this.range = range;
    this.#log = log;
  }

  /** Windows that are somebody's. */
  get windows(): number {
    return this.#windows.length - this.#free.length;
  }

  /** Pins held on all frames. */
  get pinned(): number {
    return this.#windows.reduce((sum, window) => sum + (window?.total ?? 0), 0);
  }

  includes(pfn: number): boolean {
    return pfn >= this.range.firstPfn && pfn < this.range.endPfn;
  }

  /**
   * Makes the window that holds an owner's page.
   * @returns -ENOMEM every window of the machine's address space is pinned
   */
  allocate(owner: FrameOwner, page: number): FrameWindow | number {
    const { firstPfn, endPfn, windowPages } = this.range;
    if (this.#idle >= MAX_IDLE) this.#evict();
    let index = this.#free.pop();
    if (index === undefined && firstPfn + (this.#windows.length + 1) * windowPages <= endPfn)
      index = this.#windows.length;
    if (index === undefined) {
      this.#evict();
      index = this.#free.pop();
    }
    if (index === undefined) return -ENOMEM;
    const window: FrameWindow = {
      owner,
      firstPfn: firstPfn + index * windowPages,
      firstPage: Math.floor(page / windowPages) * windowPages,
      pins: null,
      total: 0,
      asked: ++this.#questions,
    };
    this.#windows[index] = window;
    this.#idle++;
    return window;
  }

  /** @returns the frame of an owner's page, which lies in that window */
  frameOf(window: FrameWindow, page: number): number {
    window.asked = ++this.#questions;
    return window.firstPfn + (page - window.firstPage);
  }

  /** Whether somebody may be about to pin a frame that they asked for. */
  isRecent(window: FrameWindow): boolean {
    return window.asked > this.#questions - RECENT;
  }

  /** Gives a window back. One that is pinned stays with its owner, until unpin(). */
  release(window: FrameWindow): void {
    if (window.total > 0) return;
    const index = this.#indexOf(window.firstPfn);
    if (this.#windows[index] !== window) bug(`window of ${window.owner.name} released twice`);
    this.#windows[index] = undefined;
    this.#free.push(index);
    this.#idle--;
  }

  pin(pfn: number, pages: number): void {
    this.#eachWindow(pfn, pages, (window, first, end) => {
      window.pins ??= new FramePins(this.range.windowPages);
      if (window.total === 0) {
        this.#idle--;
        window.owner.pinned(window, true);
      }
      window.total += end - first;
      window.pins.add(first, end);
    });
  }

  unpin(pfn: number, pages: number): void {
    this.#eachWindow(pfn, pages, (window, first, end) => {
      const under = window.pins?.drop(first, end) ?? first;
      if (under >= 0) bug(`frame ${window.firstPfn + under} of ${window.owner.name} unpinned once too often`);
      window.total -= end - first;
      if (window.total > 0) return;
      this.#idle++;
      window.owner.pinned(window, false);
    });
  }

  /** How often a frame is pinned. */
  pins(pfn: number): number {
    const window = this.#windowOf(pfn);
    return window?.pins?.of(pfn - window.firstPfn) ?? 0;
  }

  /** Whether a frame is one of a huge page. */
  isCompound(pfn: number): boolean {
    const window = this.#windowOf(pfn);
    return window?.owner.isCompound(window.firstPage + pfn - window.firstPfn) ?? false;
  }

  read(pfn: number, offset: number, into: Uint8Array): number {
    return this.#access(pfn, offset, into, true);
  }

  write(pfn: number, offset: number, from: Uint8Array): number {
    return this.#access(pfn, offset, from, false);
  }

  #access(pfn: number, offset: number, bytes: Uint8Array, read: boolean): number {
    const { windowPages } = this.range;
    let at = 0;
    let frame = pfn + Math.floor(offset / PAGE);
    let below = offset % PAGE;
    while (at < bytes.byteLength) {
      const window = this.#windowOf(frame);
      if (window === undefined) return -EFAULT;
      const index = frame - window.firstPfn;
      const n = Math.min(bytes.byteLength - at, (windowPages - index) * PAGE - below);
      const part = n === bytes.byteLength ? bytes : bytes.subarray(at, at + n);
      const { owner } = window;
      const page = window.firstPage + index;
      if (!(read ? owner.read(page, below, part) : owner.write(page, below, part))) {
        this.#tell(owner);
        return -EFAULT;
      }
      at += n;
      frame = window.firstPfn + windowPages;
      below = 0;
    }
    return 0;
  }

  #tell(owner: FrameOwner): void {
    if (this.#told.has(owner)) return;
    this.#told.add(owner);
    this.#log(
      `${owner.name}: a device accessed memory that is no longer there; Linux keeps the pages of a mapping, ` +
        'the server has only the process',
    );
  }

  /** Takes windows away that nothing pins and that nobody has asked about of late. */
  #evict(): void {
    for (let index = 0; index < this.#windows.length; index++) {
      const window = this.#windows[index];
      if (window === undefined || window.total > 0 || this.isRecent(window)) continue;
      window.owner.forget(window);
      this.release(window);
    }
  }

  #windowOf(pfn: number): FrameWindow | undefined {
    return this.includes(pfn) ? this.#windows[this.#indexOf(pfn)] : undefined;
  }

  #indexOf(pfn: number): number {
    return Math.floor((pfn - this.range.firstPfn) / this.range.windowPages);
  }

  #eachWindow(
    pfn: number,
    pages: number,
    visit: (window: FrameWindow, first: number, end: number) => void,
  ): void {
    const { windowPages } = this.range;
    for (let at = pfn; at < pfn + pages; ) {
      const window = this.#windowOf(at) ?? bug(`frame ${at} is no foreign one`);
      const first = at - window.firstPfn;
      const end = Math.min(windowPages, first + (pfn + pages - at));
      visit(window, first, end);
      at += end - first;
    }
  }
}
