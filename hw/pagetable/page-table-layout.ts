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

export const PageTableLayout = layout('page-table', 1, {
  /** Byte address of the root in the window's address space. */
  root: u64(),
  windowBase: u64(),
  windowBytes: u64(),
  /** Out of unmap: pages that were mapped and are no more. */
  unmapped: u64(),
  windowLinear: u32(),
  /** 1 or 2. */
  stage: u32(),
  startLevel: u32(),
  inputBits: u32(),
  outputBits: u32(),
  /** Out of map and unmap: REASON_*. */
  reason: u32(),
  /** Out of lookup: log2 of the leaf's size, PROT_*. */
  foundLg2: u32(),
  foundProt: u32(),
  poolCount: u32(),
  freedCount: u32(),
  /** Byte addresses. */
  pool: array(u64(), POOL_FRAMES),
  freed: array(u64(), FREED_FRAMES),
});

export const PAGE_TABLE_BYTES = PageTableLayout.size;

/** @param count how many page tables the region can describe; slot i is at `tables` + i * PAGE_TABLE_BYTES */
export const pageTablesLayout = (count: number): Layout<{ tables: ReturnType<typeof raw> }> =>
  layout('page-tables', 1, { tables: raw(PAGE_TABLE_BYTES * count) });

/** Why map or unmap stopped. */
export const REASON_DONE = 0;
/** map: the pool is empty; give frames and call again for the rest. */
export const REASON_POOL = 1;
/** unmap: the freed list is full; take from it and call again for the rest. */
export const REASON_FREED = 2;
/** map: a valid leaf is in the way. */
export const REASON_EXISTS = 3;
/** unmap: the range cuts a block; nothing was changed. */
export const REASON_SPLIT = 4;
/** A table pointer leads out of the window: somebody else wrote into the table. */
export const REASON_WILD = 5;
