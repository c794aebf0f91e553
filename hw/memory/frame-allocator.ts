/**
 * Physical frames of a machine: a binary buddy allocator over RAM, 4 KiB to 1 GiB, and phantom frames past it.
 * Vocabulary: a pfn is a physical address / 4096 on the machine's bus; a block of order k is 2^k frames,
 * naturally aligned. RAM begins at a multiple of 1 GiB, so alignment within RAM is alignment on the bus.
 *
 *   order 2   [       free        ]                  a block is in the tree of its own order only
 *   order 1                        [used ] [ free ]  alloc splits the smallest block that is large enough,
 *   order 0                       [u][free]          the least address first; free joins buddies again
 *
 * Single writer (the core thread); the state is in shared memory, so that other threads can look. Frames are
 * handed out as they are: contents are the caller's business.
 */
import { bug } from './bug.js';
import { BitTree } from './frame-allocator-bits.js';
import { PhantomFrames } from './frame-allocator-phantom.js';
import { blocksOf, FRAME_BYTES, FRAME_LG2, framesLayout, freeTreeOffset, ORDERS } from './frames-layout.js';
import { roundUp } from './layout.js';
import type { MachineMemory, Region } from './machine-memory.js';

const ENOMEM = 12;
const DEFAULT_OAS_BITS = 48;
/** What to xor a word of `used` with so that the bits sought are the ones. */
const USED = 0;
const FREE = -1;

export class FrameAllocator {
  readonly #memory: MachineMemory;
  readonly #freePages: number;
  readonly #used: number;
  readonly #free: BitTree[] = [];
  readonly #phantom: PhantomFrames;
  /** RAM is frames [first, first + frames). */
  readonly #first: number;
  readonly #frames: number;
  /** Told of RAM frames as they become free: for a checker. */
  onFree: ((pfn: number, pages: number) => void) | null = null;

  /** Attaches to a region that init() has filled. */
  constructor(memory: MachineMemory, region: Region) {
    const { at } = framesLayout(memory.ram.bytes);
    this.#memory = memory;
    this.#first = memory.ram.basePa / FRAME_BYTES;
    this.#frames = memory.ram.bytes / FRAME_BYTES;
    this.#freePages = region.base + at.freePages;
    this.#used = (region.base + at.used) / 4;
    for (let order = 0; order < ORDERS; order++) {
      const base = region.base + at.free + freeTreeOffset(this.#frames, order);
      this.#free.push(new BitTree(memory.i32, base, blocksOf(this.#frames, order)));
    }
    this.#phantom = new PhantomFrames(memory, region, this.#first + this.#frames);
  }

  /**
   * Fills a new region: all RAM free, all phantom frames never used. Once, by the thread that creates it.
   * @param oasBits output address size: phantom frames end at 2^oasBits bytes
   * @param endPfn  or there, if that is less
   */
  static init(
    memory: MachineMemory,
    region: Region,
    oasBits = DEFAULT_OAS_BITS,
    endPfn = Number.POSITIVE_INFINITY,
  ): FrameAllocator {
    memory.u8.fill(0, region.base, region.base + region.size);
    const allocator = new FrameAllocator(memory, region);
    allocator.#phantom.init(Math.min(2 ** (oasBits - FRAME_LG2), endPfn));
    allocator.#give(0, allocator.#frames);
    memory.words.store(allocator.#freePages, allocator.#frames);
    return allocator;
  }

  /**
   * @param sizeLg2 log2 of the block's bytes, 12 to 30
   * @returns the first pfn of a naturally aligned block, or -ENOMEM
   */
  alloc(sizeLg2 = FRAME_LG2): number {
    const order = sizeLg2 - FRAME_LG2;
    if (!Number.isInteger(order) || order < 0 || order >= ORDERS) bug(`frame block of 2^${sizeLg2} bytes`);
    const frame = this.#takeBlock(order);
    if (frame < 0) return frame;
    this.#setUsed(frame, 2 ** order);
    return this.#first + frame;
  }

  /**
   * A contiguous run of any length. Tries one block that covers it first; only when there is none does it look
   * at every frame.
   * @param alignPages a power of two
   * @returns the first pfn, or -ENOMEM
   */
  allocRun(pages: number, alignPages = 1): number {
    checkRun(pages, alignPages);
    const order = Math.max(ceilLg2(pages), ceilLg2(alignPages));
    let frame = order < ORDERS ? this.#takeBlock(order) : -ENOMEM;
    if (frame >= 0) this.#give(frame + pages, frame + 2 ** order);
    else {
      frame = this.#findRun(pages, alignPages);
      if (frame < 0) return frame;
      this.#takeRange(frame, frame + pages);
    }
    this.#setUsed(frame, pages);
    return this.#first + frame;
  }

  /** Phantom frames, below 2^oasBits. @returns the first pfn, or -ENOMEM */
  allocPhantom(pages: number, alignPages = 1): number {
    checkRun(pages, alignPages);
    return this.#phantom.alloc(pages, alignPages);
  }

  isPhantom(pfn: number): boolean {
    return pfn >= this.#first + this.#frames;
  }

  /** Gives back all or a part of what was allocated. A frame that is not allocated is a bug. */
  free(pfn: number, pages: number): void {
    checkRun(pages, 1);
    if (this.isPhantom(pfn)) {
      this.#phantom.free(pfn, pages);
      return;
    }
    const frame = this.#frameOf(pfn, pages);
    const end = frame + pages;
    const unused = this.#firstInState(FREE, frame, end);
    if (unused >= 0) bug(`double free of frame ${this.#first + unused}`);
    this.onFree?.(pfn, pages);
    this.#clearUsed(frame, pages);
    this.#give(frame, end);
  }

  /** Takes given RAM frames for good use elsewhere (firmware tables). A frame that is not free is a bug. */
  reserve(pfn: number, pages: number): void {
    checkRun(pages, 1);
    const frame = this.#frameOf(pfn, pages);
    if (this.#firstInState(USED, frame, frame + pages) >= 0)
      bug(`reserve of frames ${pfn}+${pages}, not all free`);
    this.#takeRange(frame, frame + pages);
    this.#setUsed(frame, pages);
  }

  /** RAM frames not handed out. */
  freePages(): number {
    return this.#memory.words.load(this.#freePages);
  }

  /** RAM frame handed out or reserved; false for any other. */
  isAllocated(pfn: number): boolean {
    const frame = pfn - this.#first;
    return frame >= 0 && frame < this.#frames && this.#isUsed(frame);
  }

  /** Clears the bytes of RAM frames. Phantom frames have none. */
  zero(pfn: number, pages: number): void {
    if (this.isPhantom(pfn)) return;
    const linear = this.#memory.ram.linear + this.#frameOf(pfn, pages) * FRAME_BYTES;
    // By eight: filling shared memory takes as long per element, however wide.
    this.#memory.i64.fill(0n, linear / 8, (linear + pages * FRAME_BYTES) / 8);
  }

  #frameOf(pfn: number, pages: number): number {
    const frame = pfn - this.#first;
    if (!Number.isInteger(frame) || frame < 0 || frame + pages > this.#frames)
      bug(`frames ${pfn}+${pages} are not this machine's RAM`);
    return frame;
  }

  /** Takes a free block out of the trees, splitting a larger one when need be. @returns its frame or -ENOMEM */
  #takeBlock(order: number): number {
    for (let k = order; k < ORDERS; k++) {
      const block = this.#free[k]!.first();
      if (block < 0) continue;
      this.#free[k]!.clear(block);
      const frame = block * 2 ** k;
      for (let half = k - 1; half >= order; half--) this.#free[half]!.set((frame >>> half) + 1);
      return frame;
    }
    return -ENOMEM;
  }

  /** Takes the free frames [frame, end), out of whatever blocks they are in. */
  #takeRange(frame: number, end: number): void {
    for (let at = frame; at < end; ) {
      let order = 0;
      while (!this.#free[order]!.has(at >>> order)) order++;
      const first = (at >>> order) * 2 ** order;
      const last = first + 2 ** order;
      this.#free[order]!.clear(at >>> order);
      this.#give(first, at);
      this.#give(Math.min(end, last), last);
      at = last;
    }
  }

  /** Puts the frames [frame, end) into the trees as blocks as large as they can be, joined with their buddies. */
  #give(frame: number, end: number): void {
    for (let at = frame; at < end; ) {
      let order = Math.min(ORDERS - 1, 31 - Math.clz32(end - at));
      if (at !== 0) order = Math.min(order, 31 - Math.clz32(at & -at));
      const next = at + 2 ** order;
      let block = at >>> order;
      while (order < ORDERS - 1 && this.#hasBlock(order, block ^ 1)) {
        this.#free[order]!.clear(block ^ 1);
        block >>>= 1;
        order++;
      }
      this.#free[order]!.set(block);
      at = next;
    }
  }

  #hasBlock(order: number, block: number): boolean {
    return (block + 1) * 2 ** order <= this.#frames && this.#free[order]!.has(block);
  }

  /** First fit over the frames, for a run that no single block covers. */
  #findRun(pages: number, alignPages: number): number {
    const first = this.#first;
    for (let at = roundUp(first, alignPages) - first; at + pages <= this.#frames; ) {
      const used = this.#firstInState(USED, at, at + pages);
      if (used < 0) return at;
      at = roundUp(first + used + 1, alignPages) - first;
    }
    return -ENOMEM;
  }

  /** The first frame of [frame, end) that is USED, or FREE; -1 when there is none. */
  #firstInState(state: number, frame: number, end: number): number {
    for (let at = frame; at < end; ) {
      const word = (this.#memory.i32[this.#used + (at >>> 5)]! ^ state) >>> (at & 31);
      if (word !== 0) {
        const found = at + (31 - Math.clz32(word & -word));
        return found < end ? found : -1;
      }
      at = (at | 31) + 1;
    }
    return -1;
  }

  #isUsed(frame: number): boolean {
    return (this.#memory.i32[this.#used + (frame >>> 5)]! & (1 << (frame & 31))) !== 0;
  }

  #setUsed(frame: number, pages: number): void {
    const { i32, words } = this.#memory;
    const end = frame + pages;
    for (let at = frame; at < end; at = (at | 31) + 1)
      i32[this.#used + (at >>> 5)]! |= maskFrom(at & 31, Math.min(32, end - (at & ~31)));
    words.sub(this.#freePages, pages);
  }

  #clearUsed(frame: number, pages: number): void {
    const { i32, words } = this.#memory;
    const end = frame + pages;
    for (let at = frame; at < end; at = (at | 31) + 1)
      i32[this.#used + (at >>> 5)]! &= ~maskFrom(at & 31, Math.min(32, end - (at & ~31)));
    words.add(this.#freePages, pages);
  }
}

function checkRun(pages: number, alignPages: number): void {
  if (!Number.isSafeInteger(pages) || pages <= 0) bug(`run of ${pages} frames`);
  if (alignPages < 1 || 2 ** ceilLg2(alignPages) !== alignPages) bug(`run aligned to ${alignPages} frames`);
}

/** Least k with 2^k >= value; exact past 2^32, where phantom runs reach. */
function ceilLg2(value: number): number {
  if (value <= 0x4000_0000) return value <= 1 ? 0 : 32 - Math.clz32(value - 1);
  return 30 + ceilLg2(Math.ceil(value / 0x4000_0000));
}

/** Bits [from, to) of a word. */
function maskFrom(from: number, to: number): number {
  const low = to === 32 ? -1 : (1 << to) - 1;
  return low & (-1 << from);
}
