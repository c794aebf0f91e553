/**
 * AArch64 page tables, VMSAv8-64, stage 1 and stage 2 ([DDI0487] D8.3): the editing half (the walking half is the
 * pIOMMU's, hw/kernel/assembly/walk.ts). Policy only: frames, roll-back, errnos; the compiled editor does the
 * rest. Pages and frame numbers are in units of 4 KiB whatever the granule; what geometry.ts allows is a leaf
 * wherever address and length allow.
 *
 * Not modelled: LPA2 (52-bit addresses with 4 and 16 KiB granules); memory types other than write-back.
 */
import type { Kernel } from '../kernel/kernel.js';
import { bug } from '../memory/bug.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import {
  canStart,
  contiguousLg2,
  type GranuleLg2,
  levelShift,
  maxAddressBits,
  rootBytes,
} from './geometry.js';
import {
  LEAF_CONTIGUOUS,
  PAGE_TABLE_BYTES,
  PageTableLayout,
  REASON_DONE,
  REASON_EXISTS,
  REASON_FREED,
  REASON_POOL,
  REASON_SPLIT,
  REASON_WILD,
} from './page-table-layout.js';
import { type ReplaceKind, Replacement, stepper } from './replacement.js';

export { rootBytes } from './geometry.js';
export {
  LEAF_DBM as PROT_DBM,
  LEAF_DIRTY as PROT_DIRTY,
  LEAF_NO_AF as PROT_NO_AF,
  LEAF_READ as PROT_READ,
  LEAF_WRITE as PROT_WRITE,
} from './page-table-layout.js';

const ENOMEM = 12;
const EFAULT = 14;
const EBUSY = 16;
const EEXIST = 17;
const EINVAL = 22;
const ERANGE = 34;

/** Frames asked for at a time: few, because what a table does not use it keeps. */
const REFILL = 4;
const PAGE_LG2 = 12;

/** Where tables come from, one granule each and aligned to it; pfns are in the window's address space. */
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
  /** 4 KiB when absent. */
  readonly granuleLg2?: GranuleLg2;
  readonly inputBits: number;
  readonly outputBits: number;
  /** Level of the first look-up; stage 2 concatenates up to 16 roots. */
  readonly startLevel: number;
  /** Byte address of the root, in the window's address space: aligned to its size and zeroed. */
  readonly root: number;
  /** map() sets the contiguous hint on whole aligned groups. */
  readonly contiguous?: boolean;
  /** RAM, physically addressed, when absent. */
  readonly window?: TableWindow;
  readonly frames: TableFrames;
}

export class PageTable {
  /** Byte address of the root, in the window's address space. */
  readonly root: number;
  readonly #memory: MachineMemory;
  readonly #kernel: Kernel;
  readonly #at: number;
  readonly #frames: TableFrames;
  readonly #granuleLg2: GranuleLg2;
  readonly #granulePages: number;
  readonly #inputPages: number;
  readonly #outputPages: number;
  /** Unlinked tables, waiting for their invalidation. */
  #freed: number[] = [];
  /** Between the two steps of a replacement. */
  #replacing = false;

  constructor(options: PageTableOptions) {
    const { memory, kernel, descriptor, stage, inputBits, outputBits, startLevel, root, frames } = options;
    const { granuleLg2 = 12, contiguous = false } = options;
    const window = options.window ?? {
      base: memory.ram.basePa,
      linear: memory.ram.linear,
      bytes: memory.ram.bytes,
    };
    const rootSize = rootBytes(inputBits, startLevel, granuleLg2);
    if (!canStart(stage, inputBits, startLevel, granuleLg2))
      bug(
        `page table: stage ${stage} of ${inputBits} bits, granule 2^${granuleLg2}, cannot start at level ${startLevel}`,
      );
    if (Math.max(inputBits, outputBits) > maxAddressBits(granuleLg2))
      bug(`page table: ${inputBits} to ${outputBits} bits are too many for granule 2^${granuleLg2}`);
    if (root % rootSize !== 0 || root < window.base || root + rootSize > window.base + window.bytes)
      bug(`page table: root ${root} is not ${rootSize} aligned bytes of the window`);
    this.root = root;
    this.#memory = memory;
    this.#kernel = kernel;
    this.#at = descriptor;
    this.#frames = frames;
    this.#granuleLg2 = granuleLg2;
    this.#granulePages = 2 ** (granuleLg2 - PAGE_LG2);
    this.#inputPages = 2 ** (inputBits - PAGE_LG2);
    this.#outputPages = 2 ** (outputBits - PAGE_LG2);
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
    u32[(descriptor + at.granuleLg2) >>> 2] = granuleLg2;
    u32[(descriptor + at.contiguous) >>> 2] = contiguous ? 1 : 0;
  }

  /**
   * Maps pages with the largest leaves that fit. Changes no translation on failure, though tables may stay,
   * or be unlinked as by `unmap`.
   * @param prot  PROT_*; stage 1 cannot express write without read, and grants both
   * @returns 0 | -ENOMEM | -EEXIST a page is mapped | -ERANGE out of the input or output range | -EINVAL not
   *          aligned to the granule | -EFAULT a table pointer leads out of the window | -EBUSY a replacement is
   *          pending
   */
  map(iovaPage: number, pfn: number, pages: number, prot: number): number {
    if (!inRange(iovaPage, pages, this.#inputPages) || !inRange(pfn, pages, this.#outputPages))
      return -ERANGE;
    if (!this.#aligned(iovaPage, pages) || !this.#aligned(pfn, pages)) return -EINVAL;
    if (this.#replacing) return -EBUSY;
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
   * @returns pages unmapped | -EINVAL not aligned to the granule, or the range cuts a block or a contiguous
   *          group: nothing is changed | -ERANGE | -EFAULT a table pointer leads out of the window, and the rest
   *          of the range is untouched | -EBUSY a replacement is pending
   */
  unmap(iovaPage: number, pages: number): number {
    if (!inRange(iovaPage, pages, this.#inputPages)) return -ERANGE;
    if (!this.#aligned(iovaPage, pages)) return -EINVAL;
    if (this.#replacing) return -EBUSY;
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

  get foundLevel(): number {
    return this.#get32(PageTableLayout.at.foundLevel);
  }

  /** LEAF_* of that leaf. */
  get foundProt(): number {
    return this.#get32(PageTableLayout.at.foundProt);
  }

  /**
   * First step of replacing what translates a page: see replacement.ts.
   * @param level   of the block (split), of the table's pointer (collapse), of the group's leaves
   * @param direct  the hardware allows the new entries at once: BBM level 2, or 1 for ungroup and group
   * @returns what to invalidate before its finish() | -EINVAL there is no such thing at that level | -ENOMEM |
   *          -EBUSY another replacement is pending | -ERANGE | -EFAULT
   */
  replace(kind: ReplaceKind, iovaPage: number, level: number, direct = false): Replacement | number {
    if (!inRange(iovaPage, 1, this.#inputPages)) return -ERANGE;
    if (this.#replacing) return -EBUSY;
    if (kind === 'split' && this.#get32(PageTableLayout.at.poolCount) === 0 && !this.#refill())
      return -ENOMEM;
    const grouped = kind === 'group' || kind === 'ungroup';
    const spanLg2 =
      levelShift(level, this.#granuleLg2) + (grouped ? contiguousLg2(level, this.#granuleLg2) : 0);
    const pages = 2 ** (spanLg2 - PAGE_LG2);
    const replacement = new Replacement(
      { firstPage: iovaPage - (iovaPage % pages), pages, leaf: kind !== 'collapse' },
      direct,
      stepper(this.#kernel, this.#at, iovaPage, level, kind),
      () => {
        this.#replacing = false;
        this.#drain();
      },
    );
    const reason = replacement.begin();
    if (reason === REASON_WILD) return -EFAULT;
    if (reason !== REASON_DONE) return -EINVAL;
    this.#replacing = true;
    return replacement;
  }

  /**
   * Unmaps a range that may cut blocks and contiguous groups: those are split first.
   * @param invalidate  invalidates everywhere and waits; null: the hardware needs no break (BBM level 2), and
   *                    the caller's own invalidation afterwards does. @returns 0 | -errno
   * @returns as unmap(), but -EINVAL only for alignment | -ENOMEM | what `invalidate` said: nothing is unmapped
   */
  unmapCutting(
    iovaPage: number,
    pages: number,
    invalidate: ((change: Replacement) => number) | null,
  ): number {
    if (!inRange(iovaPage, pages, this.#inputPages)) return -ERANGE;
    if (!this.#aligned(iovaPage, pages)) return -EINVAL;
    const end = iovaPage + pages;
    const status = this.#cutAt(iovaPage, invalidate) || this.#cutAt(end, invalidate);
    return status < 0 ? status : this.unmap(iovaPage, pages);
  }

  /** Splits until no leaf crosses from the page before `page` into it. @returns 0 | -errno */
  #cutAt(page: number, invalidate: ((change: Replacement) => number) | null): number {
    for (;;) {
      if (page >= this.#inputPages || this.lookup(page) < 0) return 0;
      const grouped = (this.foundProt & LEAF_CONTIGUOUS) !== 0;
      const level = this.foundLevel;
      const groupLg2 = grouped ? contiguousLg2(level, this.#granuleLg2) : 0;
      if (page % 2 ** (this.foundLg2 + groupLg2 - PAGE_LG2) === 0) return 0;
      const change = this.replace(grouped ? 'ungroup' : 'split', page, level, invalidate === null);
      if (typeof change === 'number') return change;
      const status = invalidate === null ? 0 : invalidate(change);
      if (status < 0) {
        change.cancel();
        return status;
      }
      const finished = change.finish();
      if (finished < 0) return finished;
    }
  }

  /**
   * Reports which pages of dirty-tracked leaves (PROT_DBM) were written, and makes those leaves clean, to be told
   * again when they are written after the caller's invalidation. A leaf, or contiguous group, that the range cuts
   * is reported as far as the range goes, and stays dirty. Bits are set, never cleared, as iommufd's
   * GET_DIRTY_BITMAP does: bit i is unit i from `iovaPage` on, least significant bit of a byte first.
   * @param bitmap   at least a bit a unit
   * @param unitLg2  log2 of the bytes that a bit stands for, 12 or more
   * @returns leaves found dirty | -ERANGE | -EINVAL the range is not whole units, the bitmap too short | -EFAULT
   */
  readAndClearDirty(
    iovaPage: number,
    pages: number,
    bitmap: Uint8Array,
    { unitLg2 = PAGE_LG2, noClear = false }: { unitLg2?: number; noClear?: boolean } = {},
  ): number {
    if (!inRange(iovaPage, pages, this.#inputPages)) return -ERANGE;
    const unit = 2 ** (unitLg2 - PAGE_LG2);
    if (unitLg2 < PAGE_LG2 || iovaPage % unit !== 0 || pages % unit !== 0) return -EINVAL;
    if (bitmap.length * 8 < pages / unit) return -EINVAL;
    const at = PageTableLayout.at;
    const last = iovaPage + pages - 1;
    let found = 0;
    for (let from = iovaPage; from <= last; ) {
      from = this.#kernel.ptDirty(this.#at, iovaPage, last, from, unitLg2, !noClear);
      found += this.#get32(at.dirtyLeaves);
      const bytes = this.#get32(at.dirtyBytes);
      if (bytes > 0) {
        const first = this.#get64(at.dirtyBase) / 8;
        const bits = this.#at + at.dirty;
        for (let i = 0; i < bytes; i++) bitmap[first + i]! |= this.#memory.u8[bits + i]!;
      }
      if (this.#reason() !== REASON_DONE) return -EFAULT;
    }
    return found;
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

  #aligned(page: number, pages: number): boolean {
    const unit = this.#granulePages;
    return unit === 1 || (page % unit === 0 && pages % unit === 0);
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
