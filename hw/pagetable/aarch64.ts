/**
 * AArch64 page tables, VMSAv8-64 with the 4 KiB granule, stage 1 and stage 2 ([DDI0487] D8.3): the editing
 * half (the walking half is the pIOMMU's, hw/kernel/assembly/walk.ts). Blocks of 2 MiB and 1 GiB are used
 * wherever address and length allow. Policy only: frames, roll-back, errnos; the compiled editor does the rest.
 *
 * Not modelled: 16 KiB and 64 KiB granules, 52-bit addresses, contiguous hints, splitting a block.
 */
import type { Kernel } from '../kernel/kernel.js';
import { bug } from '../memory/bug.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import {
  PAGE_TABLE_BYTES,
  PageTableLayout,
  REASON_DONE,
  REASON_EXISTS,
  REASON_FREED,
  REASON_POOL,
  REASON_SPLIT,
} from './page-table-layout.js';

export const PROT_READ = 1;
export const PROT_WRITE = 2;

const ENOMEM = 12;
const EFAULT = 14;
const EEXIST = 17;
const EINVAL = 22;
const ERANGE = 34;

/** Frames asked for at a time: few, because what a table does not use it keeps. */
const REFILL = 4;

/** Where table frames come from; pfns are in the window's address space. */
export interface TableFrames {
  /** @returns pfn | -12 */
  alloc(): number;
  free(pfn: number): void;
}

/** The memory that holds the tables: see page-table-layout.ts. */
export interface TableWindow {
  /** First byte address of the window in the tables' address space. */
  readonly base: number;
  /** The same byte in linear memory. */
  readonly linear: number;
  readonly bytes: number;
}

export interface PageTableOptions {
  readonly memory: MachineMemory;
  readonly kernel: Kernel;
  /** Byte offset of a PAGE_TABLE_BYTES slot of a `pageTablesLayout` region. */
  readonly descriptor: number;
  readonly stage: 1 | 2;
  readonly inputBits: number;
  readonly outputBits: number;
  /** Level of the first look-up; stage 2 concatenates up to 16 roots. */
  readonly startLevel: number;
  /** Byte address of the root, in the window's address space: aligned to its size and zeroed. */
  readonly root: number;
  /** RAM, physically addressed, when absent. */
  readonly window?: TableWindow;
  readonly frames: TableFrames;
}

/** Bytes of a root, concatenation included: 4 KiB to 64 KiB, and its alignment. */
export function rootBytes(inputBits: number, startLevel: number): number {
  const indexBits = inputBits - (39 - 9 * startLevel);
  return 8 * 2 ** Math.max(indexBits, 9);
}

export class PageTable {
  /** Byte address of the root, in the window's address space. */
  readonly root: number;
  readonly #memory: MachineMemory;
  readonly #kernel: Kernel;
  readonly #at: number;
  readonly #frames: TableFrames;
  readonly #inputPages: number;
  readonly #outputPages: number;
  /** Unlinked tables, waiting for their invalidation. */
  #freed: number[] = [];

  constructor(options: PageTableOptions) {
    const { memory, kernel, descriptor, stage, inputBits, outputBits, startLevel, root, frames } = options;
    const window = options.window ?? {
      base: memory.ram.basePa,
      linear: memory.ram.linear,
      bytes: memory.ram.bytes,
    };
    const rootSize = rootBytes(inputBits, startLevel);
    const indexBits = inputBits - (39 - 9 * startLevel);
    if (startLevel < 0 || startLevel > 3 || indexBits < 1 || indexBits > (stage === 2 ? 13 : 9))
      bug(`page table: stage ${stage} of ${inputBits} bits cannot start at level ${startLevel}`);
    if (root % rootSize !== 0 || root < window.base || root + rootSize > window.base + window.bytes)
      bug(`page table: root ${root} is not ${rootSize} aligned bytes of the window`);
    this.root = root;
    this.#memory = memory;
    this.#kernel = kernel;
    this.#at = descriptor;
    this.#frames = frames;
    this.#inputPages = 2 ** (inputBits - 12);
    this.#outputPages = 2 ** (outputBits - 12);
    const { u32 } = memory;
    const at = PageTableLayout.at;
    u32.fill(0, descriptor >>> 2, (descriptor + PAGE_TABLE_BYTES) >>> 2);
    this.#put64(at.root, root);
    this.#put64(at.windowBase, window.base);
    this.#put64(at.windowBytes, window.bytes);
    u32[(descriptor + at.windowLinear) >>> 2] = window.linear;
    u32[(descriptor + at.stage) >>> 2] = stage;
    u32[(descriptor + at.startLevel) >>> 2] = startLevel;
    u32[(descriptor + at.inputBits) >>> 2] = inputBits;
    u32[(descriptor + at.outputBits) >>> 2] = outputBits;
  }

  /**
   * Maps pages with the largest leaves that fit. Changes no translation on failure, though tables may stay,
   * or be unlinked as by `unmap`.
   * @param prot  PROT_*; stage 1 cannot express write without read, and grants both
   * @returns 0 | -ENOMEM | -EEXIST a page is mapped | -ERANGE out of the input or output range | -EFAULT a
   *          table pointer leads out of the window
   */
  map(iovaPage: number, pfn: number, pages: number, prot: number): number {
    if (!inRange(iovaPage, pages, this.#inputPages) || !inRange(pfn, pages, this.#outputPages))
      return -ERANGE;
    let done = 0;
    for (;;) {
      done += this.#kernel.ptMap(this.#at, iovaPage + done, pfn + done, pages - done, prot);
      if (done === pages) return 0;
      const reason = this.#reason();
      if (reason === REASON_POOL && this.#refill()) continue;
      if (done > 0) this.unmap(iovaPage, done);
      if (reason === REASON_POOL) return -ENOMEM;
      return reason === REASON_EXISTS ? -EEXIST : -EFAULT;
    }
  }

  /**
   * Unmaps what is mapped in the range. Tables that lie wholly in the range are unlinked: they are to be
   * given back with `releaseFreed` after the caller's invalidation and SYNC.
   * @returns pages unmapped | -EINVAL the range cuts a block, nothing is changed | -ERANGE | -EFAULT a table
   *          pointer leads out of the window, and the rest of the range is untouched
   */
  unmap(iovaPage: number, pages: number): number {
    if (!inRange(iovaPage, pages, this.#inputPages)) return -ERANGE;
    const last = iovaPage + pages - 1;
    let unmapped = 0;
    let from = iovaPage;
    for (;;) {
      from = this.#kernel.ptUnmap(this.#at, iovaPage, last, from);
      unmapped += this.#get64(PageTableLayout.at.unmapped);
      const reason = this.#reason();
      this.#drain();
      if (reason === REASON_DONE) return unmapped;
      if (reason !== REASON_FREED) return reason === REASON_SPLIT ? -EINVAL : -EFAULT;
    }
  }

  /** @returns pfn of the page, or -1; then `foundLg2` and `foundProt` describe its leaf */
  lookup(iovaPage: number): number {
    return inRange(iovaPage, 1, this.#inputPages) ? this.#kernel.ptLookup(this.#at, iovaPage) : -1;
  }

  /** Log2 of the size in bytes of the leaf that the last `lookup` found. */
  get foundLg2(): number {
    return this.#get32(PageTableLayout.at.foundLg2);
  }

  /** PROT_* of that leaf. */
  get foundProt(): number {
    return this.#get32(PageTableLayout.at.foundProt);
  }

  /** Tables unlinked so far and not taken. */
  get freedTables(): number {
    return this.#freed.length;
  }

  /** The unlinked tables, now the caller's: to be freed when the invalidation of their range is complete. */
  takeFreed(): number[] {
    const freed = this.#freed;
    this.#freed = [];
    return freed;
  }

  /** Gives the unlinked tables back: only after their invalidation and SYNC. */
  releaseFreed(): void {
    for (const pfn of this.takeFreed()) this.#frames.free(pfn);
  }

  /**
   * Unmaps everything and gives every table and spare frame back, but not the root, which is the owner's.
   * Nothing may walk the table any more.
   */
  destroy(): void {
    this.unmap(0, this.#inputPages);
    this.releaseFreed();
    for (let pfn = this.#kernel.ptTakeBack(this.#at); pfn >= 0; pfn = this.#kernel.ptTakeBack(this.#at))
      this.#frames.free(pfn);
  }

  /** @returns whether at least one frame came */
  #refill(): boolean {
    for (let given = 0; ; given++) {
      if (given === REFILL) return true;
      const pfn = this.#frames.alloc();
      if (pfn < 0) return given > 0;
      if (this.#kernel.ptGive(this.#at, pfn) === 0) bug('page table: pool refilled while it had frames');
    }
  }

  #drain(): void {
    for (let pfn = this.#kernel.ptTakeFreed(this.#at); pfn >= 0; pfn = this.#kernel.ptTakeFreed(this.#at))
      this.#freed.push(pfn);
  }

  #reason(): number {
    return this.#get32(PageTableLayout.at.reason);
  }

  #get32(offset: number): number {
    return this.#memory.u32[(this.#at + offset) >>> 2]!;
  }

  #get64(offset: number): number {
    return this.#get32(offset) + this.#get32(offset + 4) * 2 ** 32;
  }

  /** The descriptor is its owner's alone: two halves do. */
  #put64(offset: number, value: number): void {
    this.#memory.u32[(this.#at + offset) >>> 2] = value % 2 ** 32;
    this.#memory.u32[(this.#at + offset + 4) >>> 2] = Math.floor(value / 2 ** 32);
  }
}

function inRange(first: number, pages: number, limit: number): boolean {
  return first >= 0 && pages > 0 && first + pages <= limit;
}
