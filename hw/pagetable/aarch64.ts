/**
 * AArch64 page tables, VMSAv8-64 with the 4 KiB granule, stage 1 and stage 2 ([DDI0487] D8.3): the editing
 * half (the walking half is the pIOMMU's, hw/kernel/assembly/walk.ts). Blocks of 2 MiB and 1 GiB are used
 * wherever address and length allow. Policy only: frames, roll-back, errnos; the compiled editor does the rest.
 *
 * Not modelled: 16 KiB and 64 KiB granules, 52-bit addresses, contiguous hints, splitting a block.
 */
import type { Kernel } from '../kernel/kernel.js';
import type { MachineMemory } from '../memory/machine-memory.js';

export const PROT_READ = 1;
export const PROT_WRITE = 2;

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
  readonly root: number;
  constructor(options: PageTableOptions) {
    this.root = options.root;
  }

  /**
   * Maps pages with the largest leaves that fit. Changes nothing on failure, except that tables may stay.
   * @param prot  PROT_*
   * @returns 0 | -ENOMEM | -EEXIST a page is mapped | -ERANGE out of the input or output range | -EFAULT a
   *          table pointer leads out of the window
   */
  map(_iovaPage: number, _pfn: number, _pages: number, _prot: number): number {
    return 0;
  }

  /**
   * Unmaps what is mapped in the range. Tables that lie wholly in the range are unlinked: they are to be
   * given back with `releaseFreed` after the caller's invalidation and SYNC.
   * @returns pages unmapped | -EINVAL the range cuts a block | -ERANGE | -EFAULT
   */
  unmap(_iovaPage: number, _pages: number): number {
    return 0;
  }

  /** @returns pfn of the page, or -1; then `foundLg2` and `foundProt` describe its leaf */
  lookup(_iovaPage: number): number {
    return -1;
  }

  get foundLg2(): number {
    return 0;
  }

  get foundProt(): number {
    return 0;
  }

  /** Tables unlinked so far and not released. */
  get freedTables(): number {
    return 0;
  }

  /** The list of unlinked tables, taken from this table: to release when its invalidation completes. */
  takeFreed(): number[] {
    return [];
  }

  /** Gives the unlinked tables back: only after their invalidation and SYNC. */
  releaseFreed(): void {
    this.takeFreed();
  }

  /** Gives every table and spare frame back, the root excepted (it is the owner's). Nothing may walk it any more. */
  destroy(): void {
    this.takeFreed();
  }
}
