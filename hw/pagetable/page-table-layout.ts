/**
 * A page table's descriptor: what the compiled editor needs to know about one table. Writer and reader: the
 * thread that owns the table (for host tables the core, for a guest's the guest), so nothing here is guarded.
 * The tables themselves are read by the pIOMMU at any time: 64-bit words, each written in one piece.
 *
 *   address space of the table            linear memory
 *   windowBase + windowBytes  --------->  windowLinear + windowBytes
 *        | table frames |                      | same bytes |
 *   windowBase                --------->  windowLinear
 *
 * For a host table the address space is physical and the window is RAM; a guest that edits its tables in
 * guest RAM has IPAs and its RAM's place instead, and the same code serves both.
 */
import { array, type Layout, layout, raw, u32, u64 } from '../memory/layout.js';

/** Table frames set aside before a map, and unlinked tables that one unmap may produce before it pauses. */
export const POOL_FRAMES = 32;
export const FREED_FRAMES = 64;
/** Units that one call of the dirty scan can report. */
export const DIRTY_WINDOW = 4096;

export const PageTableLayout = layout('page-table', 2, {
  /** Byte address of the root in the window's address space. */
  root: u64(),
  windowBase: u64(),
  windowBytes: u64(),
  /** Out of unmap: 4 KiB pages that were mapped and are no more. */
  unmapped: u64(),
  /** Between the steps of a direct collapse: byte address of the table that was replaced. */
  retired: u64(),
  /** Out of the dirty scan: the unit that bit 0 of `dirty` stands for, a multiple of 8. */
  dirtyBase: u64(),
  windowLinear: u32(),
  /** 1 or 2. */
  stage: u32(),
  startLevel: u32(),
  inputBits: u32(),
  outputBits: u32(),
  /** 12, 14 or 16. */
  granuleLg2: u32(),
  /** 1: map sets the contiguous hint on whole groups. */
  contiguous: u32(),
  /** Out of map, unmap and replace: REASON_*. */
  reason: u32(),
  /** Out of lookup: log2 of the leaf's size, its level, LEAF_*. */
  foundLg2: u32(),
  foundLevel: u32(),
  foundProt: u32(),
  /** Out of the dirty scan: leaves whose last page was reported, and the bytes of `dirty` that mean something. */
  dirtyLeaves: u32(),
  dirtyBytes: u32(),
  poolCount: u32(),
  freedCount: u32(),
  /** Byte addresses. */
  pool: array(u64(), POOL_FRAMES),
  freed: array(u64(), FREED_FRAMES),
  /** One bit a unit, least significant first. */
  dirty: raw(DIRTY_WINDOW / 8),
});

export const PAGE_TABLE_BYTES = PageTableLayout.size;

/** @param count how many page tables the region can describe; slot i is at `tables` + i * PAGE_TABLE_BYTES */
export const pageTablesLayout = (count: number): Layout<{ tables: ReturnType<typeof raw> }> =>
  layout('page-tables', 2, { tables: raw(PAGE_TABLE_BYTES * count) });

/** What a leaf permits. The numbers of the first two are IOMMU_READ's and IOMMU_WRITE's. */
export const LEAF_READ = 1;
export const LEAF_WRITE = 2;
/** With LEAF_WRITE: dirty tracking by hardware (DBM); the leaf starts writable-clean. */
export const LEAF_DBM = 1 << 8;
/** The access flag starts clear. */
export const LEAF_NO_AF = 1 << 9;
/** Written since it was last made clean. Into map, with LEAF_DBM: the leaf starts writable-dirty instead. */
export const LEAF_DIRTY = 1 << 10;
/** Only out of lookup: member of a contiguous group. */
export const LEAF_CONTIGUOUS = 1 << 11;

/** Why map, unmap or replace stopped. */
export const REASON_DONE = 0;
/** map, replace: the pool is empty; give frames and call again for the rest. */
export const REASON_POOL = 1;
/** unmap: the freed list is full; take from it and call again for the rest. */
export const REASON_FREED = 2;
/** map: a valid leaf is in the way. */
export const REASON_EXISTS = 3;
/** unmap: the range cuts a block or a contiguous group; nothing was changed. */
export const REASON_SPLIT = 4;
/** A table pointer leads out of the window: somebody else wrote into the table. */
export const REASON_WILD = 5;
/** replace: what stands there is not what the operation works on; nothing was changed. */
export const REASON_SHAPE = 6;

/** What to replace (hw/kernel/assembly/pagetable-replace.ts). */
export const REPLACE_SPLIT = 0;
export const REPLACE_COLLAPSE = 1;
export const REPLACE_UNGROUP = 2;
export const REPLACE_GROUP = 3;
/** Make the entries invalid; then write the new ones, or the old ones again. */
export const STEP_BREAK = 0;
export const STEP_MAKE = 1;
export const STEP_UNDO = 4;
/** Write the new entries over the old ones; then take over what walkers still wrote into the old ones. */
export const STEP_DIRECT = 2;
export const STEP_SETTLE = 3;
