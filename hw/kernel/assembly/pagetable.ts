/**
 * The page-table editor: map, unmap and look up (the format is pagetable-format.ts; dirty tracking and the
 * replacement of entries have files of their own).
 *
 * A walker may read any table at any time. So a leaf or a table pointer is written as one aligned 64-bit word,
 * never in halves; a table is complete before its pointer is published; and a call ends with a fence, before its
 * owner can issue an invalidation. Leaves in a run are plain stores: an engine makes one aligned 64-bit machine
 * store of each, and the exchange that an atomic store compiles to would cost four times as much.
 */
import {
  FREED_FRAMES,
  PAGE_TABLE_CONTIGUOUS,
  PAGE_TABLE_FOUND_LEVEL,
  PAGE_TABLE_FOUND_LG2,
  PAGE_TABLE_FOUND_PROT,
  PAGE_TABLE_FREED,
  PAGE_TABLE_FREED_COUNT,
  PAGE_TABLE_POOL,
  PAGE_TABLE_POOL_COUNT,
  PAGE_TABLE_REASON,
  PAGE_TABLE_UNMAPPED,
  POOL_FRAMES,
  REASON_DONE,
  REASON_EXISTS,
  REASON_FREED,
  REASON_POOL,
  REASON_SPLIT,
  REASON_WILD,
} from './layout';
import { fence, OP_LOAD, OP_STORE, schedulePoint, schedulePointIfValid } from './machine';
import {
  addressOf,
  BLOCK,
  begin,
  CONTIGUOUS,
  foundBits,
  foundLevel,
  granule,
  groupBits,
  leafAllowed,
  leafBits,
  leafOf,
  PAGE,
  protOf,
  rootAt,
  rootEntries,
  spanBits,
  startLevel,
  stop,
  TABLE,
  TYPE_MASK,
  tableAt,
  tableBytes,
  tableEntries,
  toDescriptor,
  VALID,
} from './pagetable-format';
import { BUG_LINKED_FIRST, hasBug } from './zoo';

export function ptGive(pt: usize, pfn: f64): u32 {
  const n = load<u32>(pt, PAGE_TABLE_POOL_COUNT);
  if (n >= POOL_FRAMES) return 0;
  store<u64>(pt + n * 8, u64(pfn) << 12, PAGE_TABLE_POOL);
  store<u32>(pt, n + 1, PAGE_TABLE_POOL_COUNT);
  return 1;
}

export function ptTakeBack(pt: usize): f64 {
  const n = load<u32>(pt, PAGE_TABLE_POOL_COUNT);
  if (n == 0) return -1;
  store<u32>(pt, n - 1, PAGE_TABLE_POOL_COUNT);
  return f64(load<u64>(pt + (n - 1) * 8, PAGE_TABLE_POOL) >> 12);
}

export function ptTakeFreed(pt: usize): f64 {
  const n = load<u32>(pt, PAGE_TABLE_FREED_COUNT);
  if (n == 0) return -1;
  store<u32>(pt, n - 1, PAGE_TABLE_FREED_COUNT);
  return f64(load<u64>(pt + (n - 1) * 8, PAGE_TABLE_FREED) >> 12);
}

/** Takes a frame from the pool. @returns its address, or 0 with the reason told; it lies in the window */
export function takeFrame(pt: usize): u64 {
  const n = load<u32>(pt, PAGE_TABLE_POOL_COUNT);
  if (n == 0) {
    stop(pt, REASON_POOL);
    return 0;
  }
  const address = load<u64>(pt + (n - 1) * 8, PAGE_TABLE_POOL);
  if (tableAt(pt, address, tableBytes) == 0 || (address & (tableBytes - 1)) != 0) {
    stop(pt, REASON_WILD);
    return 0;
  }
  store<u32>(pt, n - 1, PAGE_TABLE_POOL_COUNT);
  return address;
}

/** An unlinked table: room for it was made sure of. */
export function giveUp(pt: usize, address: u64): void {
  const n = load<u32>(pt, PAGE_TABLE_FREED_COUNT);
  store<u64>(pt + n * 8, address, PAGE_TABLE_FREED);
  store<u32>(pt, n + 1, PAGE_TABLE_FREED_COUNT);
}

// The run being mapped, and where the work stands.
let page: u64 = 0;
let pfn: u64 = 0;
let left: u64 = 0;
let leaf: u64 = 0;
let joined: bool = false;

function leafFits(level: u32, bits: u64): bool {
  if (level == 3) return true;
  const span: u64 = 1 << bits;
  return left >= span && ((page | pfn) & (span - 1)) == 0 && leafAllowed(level);
}

/** Hint for the next run: nextRun() decides. */
let hint: u64 = 0;

/**
 * How many leaves of one table can be written in a row, `room` of them at most. The run ends where bits 51:48
 * of the address change, and where whole contiguous groups begin or end.
 */
function nextRun(level: u32, bits: u64, room: u64): u64 {
  const below48: u64 = (1 << 36) - 1;
  let n = min(min(left >> bits, room), (below48 + 1 - (pfn & below48)) >> bits);
  hint = 0;
  const group = groupBits(level);
  if (!joined || group == 0) return n;
  const pages: u64 = 1 << (bits + group);
  if (((page ^ pfn) & (pages - 1)) != 0) return n;
  const beyond = (page & (pages - 1)) >> bits;
  if (beyond != 0) return min(n, ((<u64>1) << group) - beyond);
  if (n >> group == 0) return n;
  hint = CONTIGUOUS;
  n = (n >> group) << group;
  return n;
}

function advance(n: u64, bits: u64): void {
  page += n << bits;
  pfn += n << bits;
  left -= n << bits;
}

/** The first valid of `n` entries, or `n`. */
function firstValid(slot: usize, n: u64): u64 {
  for (let i: u64 = 0; i < n; i++) if ((load<u64>(slot + usize(i << 3)) & VALID) != 0) return i;
  return n;
}

/** Writes leaves into a table that walkers see. @returns whether a run of `n` found no valid entry */
function writeRun(slot: usize, level: u32, bits: u64, run: u64): bool {
  let n = run;
  const group = groupBits(level);
  if (hint != 0) {
    // A group that is begun is finished: what is in its way is looked for first. What precedes that in its own
    // group goes without the hint.
    schedulePoint(OP_LOAD, slot);
    const free = firstValid(slot, n);
    n = (free >> group) << group;
    if (n == 0) {
      n = free;
      hint = 0;
    }
  }
  const step: u64 = 4096 << bits;
  let value = toDescriptor(pfn << 12) | leaf | hint | select<u64>(PAGE, BLOCK, level == 3);
  const end = slot + usize(n << 3);
  let at = slot;
  for (; at < end; at += 8) {
    schedulePoint(OP_STORE, at);
    if ((load<u64>(at) & VALID) != 0) break;
    store<u64>(at, value);
    value += step;
  }
  const written = u64(at - slot) >> 3;
  advance(written, bits);
  return written == run;
}

/** Fills a table that no walker sees yet: leaves from `index` on, the rest invalid. */
function fillFresh(table: usize, level: u32, bits: u64, index: u64): void {
  const n = nextRun(level, bits, tableEntries - index);
  const step: u64 = 4096 << bits;
  let value = toDescriptor(pfn << 12) | leaf | hint | select<u64>(PAGE, BLOCK, level == 3);
  const first = table + usize(index << 3);
  const end = first + usize(n << 3);
  if (first > table) memory.fill(table, 0, first - table);
  for (let at = first; at < end; at += 8) {
    store<u64>(at, value);
    value += step;
  }
  const tableEnd = table + usize(tableBytes);
  if (end < tableEnd) memory.fill(end, 0, tableEnd - end);
  advance(n, bits);
}

/** From the root down to the first leaf to write; writes as many as lie together there. */
function mapSome(pt: usize, root: usize): void {
  let level = startLevel;
  let table = root;
  let bits = spanBits(level);
  let index = page >> bits;
  let entries = rootEntries;
  for (;;) {
    const slot = table + usize(index << 3);
    schedulePoint(OP_LOAD, slot);
    const descriptor = atomic.load<u64>(slot);
    const isTable = level != 3 && (descriptor & TYPE_MASK) == TABLE;
    if (!isTable && leafFits(level, bits)) {
      const before = left;
      if (writeRun(slot, level, bits, nextRun(level, bits, entries - index))) return;
      // What stopped a run of blocks may be a table, which the next descent goes into.
      if (level == 3 || left == before) stop(pt, REASON_EXISTS);
      return;
    }
    if (!isTable && (descriptor & VALID) != 0) {
      stop(pt, REASON_EXISTS);
      return;
    }
    let address = addressOf(descriptor);
    const below = level + 1;
    const belowBits = spanBits(below);
    const belowIndex = (page >> belowBits) & (tableEntries - 1);
    if (!isTable) {
      address = takeFrame(pt);
      if (address == 0) return;
      const fresh = tableAt(pt, address, tableBytes);
      const filled = leafFits(below, belowBits);
      if (hasBug(BUG_LINKED_FIRST)) {
        schedulePoint(OP_STORE, slot);
        atomic.store<u64>(slot, toDescriptor(address) | TABLE);
        schedulePoint(OP_STORE, fresh);
      }
      if (filled) fillFresh(fresh, below, belowBits, belowIndex);
      else memory.fill(fresh, 0, usize(tableBytes));
      if (!hasBug(BUG_LINKED_FIRST)) {
        schedulePoint(OP_STORE, slot);
        atomic.store<u64>(slot, toDescriptor(address) | TABLE);
      }
      if (filled) return;
    }
    table = tableAt(pt, address, tableBytes);
    if (table == 0) {
      stop(pt, REASON_WILD);
      return;
    }
    level = below;
    bits = belowBits;
    index = belowIndex;
    entries = tableEntries;
  }
}

export function ptMap(pt: usize, firstPage: f64, firstPfn: f64, pages: f64, prot: u32): f64 {
  begin(pt);
  const total = u64(pages);
  page = u64(firstPage);
  pfn = u64(firstPfn);
  left = total;
  leaf = leafBits(prot);
  joined = load<u32>(pt, PAGE_TABLE_CONTIGUOUS) != 0;
  const root = rootAt(pt);
  stop(pt, root == 0 ? REASON_WILD : REASON_DONE);
  while (left > 0 && load<u32>(pt, PAGE_TABLE_REASON) == REASON_DONE) mapSome(pt, root);
  fence(pt + PAGE_TABLE_REASON);
  return f64(total - left);
}

export function ptLookup(pt: usize, page: f64): f64 {
  begin(pt);
  const n = u64(page);
  const descriptor = leafOf(pt, n);
  if (descriptor == 0) return -1;
  const bits = spanBits(foundLevel);
  const below = ((<u64>1) << bits) - 1;
  store<u32>(pt, u32(bits) + 12, PAGE_TABLE_FOUND_LG2);
  store<u32>(pt, foundLevel, PAGE_TABLE_FOUND_LEVEL);
  store<u32>(pt, protOf(descriptor), PAGE_TABLE_FOUND_PROT);
  return f64(((addressOf(descriptor) >> 12) & ~below) | (n & below));
}

// The range being unmapped, and where the work stands.
let rangeFirst: u64 = 0;
let rangeLast: u64 = 0;
let cursor: u64 = 0;
let unmapped: u64 = 0;

/** Clears the last-level entries from the cursor to `last`. */
function clearPages(table: usize, last: u64, indexMask: u64): void {
  const bits = granule - 12;
  const first = (cursor >> bits) & indexMask;
  let slot = table + usize(first << 3);
  const end = slot + usize(((last >> bits) - (cursor >> bits) + 1) << 3);
  let n: u64 = 0;
  for (; slot < end; slot += 8) {
    schedulePointIfValid(slot);
    const descriptor = load<u64>(slot);
    n += descriptor & (descriptor >> 1) & VALID;
    if (descriptor != 0) {
      schedulePoint(OP_STORE, slot);
      store<u64>(slot, 0);
    }
  }
  unmapped += n << bits;
  cursor = last + 1;
}

/** Counts the pages of a last-level table, which is about to be unlinked as it stands. */
function countPages(table: usize): void {
  let n: u64 = 0;
  const end = table + usize(tableBytes);
  schedulePoint(OP_LOAD, table);
  for (let slot = table; slot < end; slot += 32) {
    const a = load<u64>(slot);
    const b = load<u64>(slot, 8);
    const c = load<u64>(slot, 16);
    const d = load<u64>(slot, 24);
    n += (a & (a >> 1) & VALID) + (b & (b >> 1) & VALID) + (c & (c >> 1) & VALID) + (d & (d >> 1) & VALID);
  }
  unmapped += n << (granule - 12);
}

/**
 * Works through the entries of one table from the cursor to `last`, which the table spans.
 * @returns whether it got to the end (else PAGE_TABLE_REASON says why not)
 */
function clearTable(pt: usize, table: usize, level: u32, last: u64, indexMask: u64): bool {
  if (level == 3) {
    clearPages(table, last, indexMask);
    return true;
  }
  const bits = spanBits(level);
  const span: u64 = 1 << bits;
  while (cursor <= last) {
    const slot = table + usize(((cursor >> bits) & indexMask) << 3);
    const first = cursor & ~(span - 1);
    const entryLast = first + span - 1;
    schedulePointIfValid(slot);
    const descriptor = atomic.load<u64>(slot);
    if ((descriptor & VALID) == 0) {
      cursor = min(entryLast, last) + 1;
      continue;
    }
    if ((descriptor & TYPE_MASK) == BLOCK) {
      // Wholly in the range: ptUnmap made sure before it began.
      schedulePoint(OP_STORE, slot);
      store<u64>(slot, 0);
      unmapped += span;
      cursor = entryLast + 1;
      continue;
    }
    const address = addressOf(descriptor);
    const child = tableAt(pt, address, tableBytes);
    if (child == 0) {
      stop(pt, REASON_WILD);
      return false;
    }
    const whole = first >= rangeFirst && entryLast <= rangeLast;
    if (whole && load<u32>(pt, PAGE_TABLE_FREED_COUNT) >= FREED_FRAMES) {
      stop(pt, REASON_FREED);
      return false;
    }
    if (whole && level == 2) {
      // Its leaves go with it: nothing writes them any more but a walker that is still inside.
      countPages(child);
      cursor = entryLast + 1;
    } else if (!clearTable(pt, child, level + 1, min(entryLast, last), tableEntries - 1)) return false;
    if (!whole) continue;
    if (load<u32>(pt, PAGE_TABLE_FREED_COUNT) >= FREED_FRAMES) {
      // Its children took the last places: this table is empty, and is unlinked when we come again.
      cursor = first;
      stop(pt, REASON_FREED);
      return false;
    }
    schedulePoint(OP_STORE, slot);
    atomic.store<u64>(slot, 0);
    giveUp(pt, address);
  }
  return true;
}

/** @returns whether the leaf (or contiguous group) of `page` begins before it (`side` 0) or ends after it (1) */
function cuts(pt: usize, page: u64, side: u64): bool {
  if (leafOf(pt, page) == 0) return false;
  return ((page + side) & (((<u64>1) << foundBits) - 1)) != 0;
}

export function ptUnmap(pt: usize, firstPage: f64, lastPage: f64, from: f64): f64 {
  begin(pt);
  rangeFirst = u64(firstPage);
  rangeLast = u64(lastPage);
  cursor = u64(from);
  unmapped = 0;
  store<u64>(pt, 0, PAGE_TABLE_UNMAPPED);
  stop(pt, REASON_DONE);
  let cut = cuts(pt, rangeFirst, 0);
  // Within one last-level table without groups there is nothing more to cut.
  const within = foundLevel == 3 && (rangeFirst ^ rangeLast) >> spanBits(2) == 0;
  if (!within || load<u32>(pt, PAGE_TABLE_CONTIGUOUS) != 0) cut = cut || cuts(pt, rangeLast, 1);
  if (cut) {
    stop(pt, REASON_SPLIT);
    return f64(cursor);
  }
  const root = rootAt(pt);
  if (root == 0) stop(pt, REASON_WILD);
  else clearTable(pt, root, startLevel, rangeLast, rootEntries - 1);
  store<u64>(pt, unmapped, PAGE_TABLE_UNMAPPED);
  fence(pt + PAGE_TABLE_REASON);
  return f64(cursor);
}
