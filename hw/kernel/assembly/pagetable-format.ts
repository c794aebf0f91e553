/**
 * What the page-table editor knows of the format: levels, leaves and descriptors of AArch64 tables with 4, 16 and
 * 64 KiB granules, stage 1 and 2 ([DDI0487] D8.2, D8.3), over a descriptor in shared memory
 * (hw/pagetable/page-table-layout.ts) that its owner alone uses.
 *
 * Levels are the spec's, 0 to 3. A page here is 4 KiB whatever the granule G (its log2); an entry at level l
 * spans 2^(G + (G - 3)(3 - l)) bytes. With the 64 KiB granule bits 15:12 of a descriptor are bits 51:48 of the
 * address; with the others they are zero in every address below 2^48, which is all that those can hold (no LPA2).
 */
import {
  LEAF_CONTIGUOUS,
  LEAF_DBM,
  LEAF_DIRTY,
  LEAF_NO_AF,
  LEAF_READ,
  LEAF_WRITE,
  PAGE_TABLE_GRANULE_LG2,
  PAGE_TABLE_INPUT_BITS,
  PAGE_TABLE_OUTPUT_BITS,
  PAGE_TABLE_REASON,
  PAGE_TABLE_ROOT,
  PAGE_TABLE_STAGE,
  PAGE_TABLE_START_LEVEL,
  PAGE_TABLE_WINDOW_BASE,
  PAGE_TABLE_WINDOW_BYTES,
  PAGE_TABLE_WINDOW_LINEAR,
} from './layout';
import { OP_LOAD, schedulePoint } from './machine';

export const VALID: u64 = 1;
export const TABLE: u64 = 3;
export const BLOCK: u64 = 1;
export const PAGE: u64 = 3;
export const TYPE_MASK: u64 = 3;
/** Bits 47:12, where addresses are. */
export const ADDRESS_FIELD: u64 = 0x0000_ffff_ffff_f000;
export const AF: u64 = 1 << 10;
export const DBM: u64 = 1 << 51;
export const CONTIGUOUS: u64 = 1 << 52;
/** AP[2] in stage 1, where it means clean; S2AP[1] in stage 2, where it means dirty. */
export const DIRTY_STATE: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
/** Stage 1: nG, unprivileged, read-only; attribute index 0. */
const NG: u64 = 1 << 11;
const UNPRIVILEGED: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
/** Stage 2: MemAttr normal, inner and outer write-back; S2AP in bits 7:6. */
const MEMATTR_WB: u64 = 0xf << 2;
const S2AP_READ: u64 = 1 << 6;
const S2AP_WRITE: u64 = 1 << 7;
/** Bits 51:48 of an address stand this much lower with the 64 KiB granule. */
const HIGH_SHIFT: u64 = 36;

// The table being worked on: set by begin(), the same until the call returns.
export let stage: u32 = 0;
export let granule: u64 = 12;
export let startLevel: u32 = 0;
/** Entries of the root, concatenated tables included, and of any other table. */
export let rootEntries: u64 = 0;
export let tableEntries: u64 = 512;
export let tableBytes: u64 = 4096;
let bigBlocks: bool = false;

export function begin(pt: usize): void {
  stage = load<u32>(pt, PAGE_TABLE_STAGE);
  granule = u64(load<u32>(pt, PAGE_TABLE_GRANULE_LG2));
  startLevel = load<u32>(pt, PAGE_TABLE_START_LEVEL);
  tableBytes = (<u64>1) << granule;
  tableEntries = tableBytes >> 3;
  rootEntries = (<u64>1) << (u64(load<u32>(pt, PAGE_TABLE_INPUT_BITS)) - 12 - spanBits(startLevel));
  bigBlocks = granule == 12 || (granule == 16 && load<u32>(pt, PAGE_TABLE_OUTPUT_BITS) > 48);
}

export function stop(pt: usize, reason: u32): void {
  store<u32>(pt, reason, PAGE_TABLE_REASON);
}

/** Linear offset of the bytes at an address of the table's space, or 0 when they are not wholly in the window. */
export function tableAt(pt: usize, address: u64, bytes: u64): usize {
  const offset = address - load<u64>(pt, PAGE_TABLE_WINDOW_BASE);
  const size = load<u64>(pt, PAGE_TABLE_WINDOW_BYTES);
  if (offset >= size || size - offset < bytes) return 0;
  return <usize>(load<u32>(pt, PAGE_TABLE_WINDOW_LINEAR) + u32(offset));
}

export function rootAt(pt: usize): usize {
  return tableAt(pt, load<u64>(pt, PAGE_TABLE_ROOT), rootEntries << 3);
}

/** Log2 of the pages that one entry at a level spans. */
export function spanBits(level: u32): u64 {
  return granule - 12 + (granule - 3) * u64(3 - level);
}

/** Log2 of how many neighbours the contiguous hint joins at a level, 0 for none. [DDI0487] D8.7.1 */
export function groupBits(level: u32): u64 {
  if (level < 2) return 0;
  if (granule == 12) return 4;
  return granule == 14 && level == 3 ? 7 : 5;
}

/** Whether a leaf may stand at a level: 1 GiB blocks with 4 KiB, 4 TiB ones with 64 KiB and 52-bit addresses. */
export function leafAllowed(level: u32): bool {
  return level >= 2 || (level == 1 && bigBlocks);
}

export function isLeaf(descriptor: u64, level: u32): bool {
  if (level == 3) return (descriptor & TYPE_MASK) == PAGE;
  return (descriptor & TYPE_MASK) == BLOCK && leafAllowed(level);
}

export function toDescriptor(address: u64): u64 {
  return (address | (address >> HIGH_SHIFT)) & ADDRESS_FIELD;
}

export function addressOf(descriptor: u64): u64 {
  const low = descriptor & ADDRESS_FIELD & ~(tableBytes - 1);
  return granule == 16 ? low | ((descriptor & 0xf000) << HIGH_SHIFT) : low;
}

/** All of a leaf but its address and type, for LEAF_* as hw/pagetable/page-table-layout.ts has them. */
export function leafBits(prot: u32): u64 {
  const accessed = select<u64>(0, AF, (prot & LEAF_NO_AF) != 0) | INNER_SHAREABLE;
  const writable = (prot & LEAF_WRITE) != 0;
  const tracked = writable && (prot & LEAF_DBM) != 0;
  const dbm = select<u64>(DBM, 0, tracked) | accessed;
  const clean = tracked && (prot & LEAF_DIRTY) == 0;
  if (stage == 2)
    return (
      dbm |
      MEMATTR_WB |
      select<u64>(S2AP_READ, 0, (prot & LEAF_READ) != 0) |
      select<u64>(S2AP_WRITE, 0, writable && !clean)
    );
  const reach = select<u64>(UNPRIVILEGED, 0, (prot & (LEAF_READ | LEAF_WRITE)) != 0);
  return dbm | NG | reach | select<u64>(0, READ_ONLY, writable && !clean);
}

/** Whether a tracked leaf was written since it was last made clean. */
export function isDirty(descriptor: u64): bool {
  const state = descriptor & DIRTY_STATE;
  return (descriptor & DBM) != 0 && (stage == 2 ? state != 0 : state == 0);
}

export function cleaned(descriptor: u64): u64 {
  return stage == 2 ? descriptor & ~DIRTY_STATE : descriptor | DIRTY_STATE;
}

export function dirtied(descriptor: u64): u64 {
  return stage == 2 ? descriptor | DIRTY_STATE : descriptor & ~DIRTY_STATE;
}

/** LEAF_* of a leaf. */
export function protOf(descriptor: u64): u32 {
  let prot: u32;
  if (stage == 2) prot = u32(descriptor >> 6) & (LEAF_READ | LEAF_WRITE);
  else if ((descriptor & UNPRIVILEGED) == 0) return 0;
  else prot = (descriptor & READ_ONLY) != 0 ? LEAF_READ : LEAF_READ | LEAF_WRITE;
  if ((descriptor & DBM) != 0) prot |= LEAF_WRITE | LEAF_DBM;
  if ((descriptor & AF) == 0) prot |= LEAF_NO_AF;
  if (isDirty(descriptor)) prot |= LEAF_DIRTY;
  if ((descriptor & CONTIGUOUS) != 0) prot |= LEAF_CONTIGUOUS;
  return prot;
}

/** Level at which leafOf() ended, and log2 of the pages that the leaf spans, its contiguous group as one. */
export let foundLevel: u32 = 0;
export let foundBits: u64 = 0;

/** Finds the leaf of a page. @returns its descriptor, or 0; the rest in foundLevel and foundBits */
export function leafOf(pt: usize, page: u64): u64 {
  let level = startLevel;
  let table = rootAt(pt);
  let index = page >> spanBits(level);
  foundLevel = level;
  if (index >= rootEntries) return 0;
  while (table != 0) {
    foundLevel = level;
    schedulePoint(OP_LOAD, table + usize(index << 3));
    const descriptor = atomic.load<u64>(table + usize(index << 3));
    if ((descriptor & VALID) == 0) return 0;
    if (level == 3 || (descriptor & TYPE_MASK) == BLOCK) {
      if (!isLeaf(descriptor, level)) return 0;
      foundBits = spanBits(level);
      if ((descriptor & CONTIGUOUS) != 0) foundBits += groupBits(level);
      return descriptor;
    }
    level++;
    index = (page >> spanBits(level)) & (tableEntries - 1);
    table = tableAt(pt, addressOf(descriptor), tableBytes);
  }
  return 0;
}

/** Linear offset of the entry for a page at a level, or 0 when the path does not lead there. */
export function slotOf(pt: usize, page: u64, level: u32): usize {
  let table = rootAt(pt);
  let index = page >> spanBits(startLevel);
  if (index >= rootEntries) return 0;
  for (let at = startLevel; table != 0; at++) {
    const slot = table + usize(index << 3);
    if (at == level) return slot;
    schedulePoint(OP_LOAD, slot);
    const descriptor = atomic.load<u64>(slot);
    if (at >= 3 || (descriptor & TYPE_MASK) != TABLE) return 0;
    index = (page >> spanBits(at + 1)) & (tableEntries - 1);
    table = tableAt(pt, addressOf(descriptor), tableBytes);
  }
  return 0;
}
