/**
 * Reading the dirty state that hardware keeps in leaves with DBM ([DDI0487] D8.4.6), and making it clean again.
 *
 * A walker sets dirty by compare-exchange, and so does this file make clean: what was set in between is seen
 * and reported. Of a contiguous group hardware may mark any member, so a group is dirty as a whole.
 */
import {
  DIRTY_WINDOW,
  PAGE_TABLE_DIRTY,
  PAGE_TABLE_DIRTY_BASE,
  PAGE_TABLE_DIRTY_BYTES,
  PAGE_TABLE_DIRTY_LEAVES,
  PAGE_TABLE_REASON,
  REASON_DONE,
  REASON_WILD,
} from './layout';
import { fence, OP_LOAD, OP_RMW, OP_STORE, schedulePoint, schedulePointIfValid } from './machine';
import {
  addressOf,
  begin,
  CONTIGUOUS,
  cleaned,
  DBM,
  groupBits,
  isDirty,
  isLeaf,
  rootAt,
  rootEntries,
  spanBits,
  startLevel,
  stop,
  tableAt,
  tableBytes,
  tableEntries,
  VALID,
} from './pagetable-format';
import { BUG_DIRTY_NO_CAS, hasBug } from './zoo';

// The range being scanned, and where the work stands.
let first: u64 = 0;
let last: u64 = 0;
let cursor: u64 = 0;
let unitBits: u64 = 0;
let clearing: bool = false;
/** Dirty leaves told to their end so far. */
let leaves: u32 = 0;
/** The first dirty page fixes where the window begins: at the byte of its bit. */
let windowBase: u64 = 0;
let windowBytes: u32 = 0;

/** Sets the bits of units [from, to], relative to the window. */
function mark(pt: usize, from: u64, to: u64): void {
  const bits = pt + PAGE_TABLE_DIRTY;
  for (let unit = from; unit <= to; ) {
    const byte = bits + usize(unit >> 3);
    if ((unit & 7) == 0 && to - unit >= 7) {
      const n = (to - unit + 1) >> 3;
      memory.fill(byte, 0xff, usize(n));
      unit += n << 3;
    } else {
      store<u8>(byte, load<u8>(byte) | u8((<u32>1) << u32(unit & 7)));
      unit++;
    }
  }
}

/** Makes a leaf clean that was found, and told, to be dirty: if it is no longer, or not yet, it stays as it is. */
function clean(slot: usize): void {
  schedulePoint(OP_LOAD, slot);
  let descriptor = load<u64>(slot);
  while (isDirty(descriptor)) {
    if (hasBug(BUG_DIRTY_NO_CAS)) {
      schedulePoint(OP_STORE, slot);
      atomic.store<u64>(slot, cleaned(descriptor));
      return;
    }
    schedulePoint(OP_RMW, slot);
    const seen = atomic.cmpxchg<u64>(slot, descriptor, cleaned(descriptor));
    if (seen == descriptor) return;
    descriptor = seen;
  }
}

/**
 * Reports the leaf of `count` entries (a group has several) that spans [leafFirst, leafLast].
 * @returns false when the window ends before it does: the next call begins where this one stopped
 */
function report(pt: usize, slot: usize, count: u64, leafFirst: u64, leafLast: u64): bool {
  let dirty = false;
  let read: u64 = 0;
  if (hasBug(BUG_DIRTY_NO_CAS)) {
    schedulePoint(OP_LOAD, slot);
    read = load<u64>(slot);
  }
  for (let i: u64 = 0; i < count && !dirty; i++) {
    schedulePoint(OP_LOAD, slot + usize(i << 3));
    dirty = isDirty(load<u64>(slot + usize(i << 3)));
  }
  const from = max(leafFirst, cursor);
  const to = min(leafLast, last);
  if (!dirty) {
    if (hasBug(BUG_DIRTY_NO_CAS)) {
      // What was clean is written back clean: what hardware set meanwhile was told to nobody.
      if (clearing && (read & DBM) != 0 && !isDirty(read)) {
        schedulePoint(OP_STORE, slot);
        atomic.store<u64>(slot, read);
      }
    }
    cursor = to + 1;
    return true;
  }
  const unit = (from - first) >> unitBits;
  if (windowBytes == 0) {
    windowBase = unit & ~7;
    store<u64>(pt, windowBase, PAGE_TABLE_DIRTY_BASE);
    memory.fill(pt + PAGE_TABLE_DIRTY, 0, DIRTY_WINDOW >> 3);
  }
  const lastUnit = (to - first) >> unitBits;
  const windowLast = windowBase + u64(DIRTY_WINDOW) - 1;
  if (unit > windowLast) return false;
  const markLast = min(lastUnit, windowLast) - windowBase;
  mark(pt, unit - windowBase, markLast);
  windowBytes = u32(markLast >> 3) + 1;
  if (lastUnit > windowLast) {
    cursor = first + ((windowLast + 1) << unitBits);
    return false;
  }
  leaves++;
  // A leaf that the range cuts stays dirty: its other pages have not been reported.
  if (clearing && leafFirst >= first && leafLast <= last)
    for (let i: u64 = 0; i < count; i++) clean(slot + usize(i << 3));
  cursor = to + 1;
  return true;
}

/** @returns whether it got to `tableLast`, which the table spans, or to the end of the range */
function scanTable(pt: usize, table: usize, level: u32, tableLast: u64, indexMask: u64): bool {
  const bits = spanBits(level);
  const span: u64 = 1 << bits;
  while (cursor <= tableLast) {
    const entryFirst = cursor & ~(span - 1);
    const entryLast = entryFirst + span - 1;
    let slot = table + usize(((cursor >> bits) & indexMask) << 3);
    if (level != 3) schedulePointIfValid(slot);
    const descriptor = level == 3 ? load<u64>(slot) : atomic.load<u64>(slot);
    if ((descriptor & VALID) == 0) {
      cursor = min(entryLast, tableLast) + 1;
      continue;
    }
    if (isLeaf(descriptor, level)) {
      const group = groupBits(level);
      if ((descriptor & CONTIGUOUS) == 0 || group == 0 || indexMask >> group == 0) {
        if (!report(pt, slot, 1, entryFirst, entryLast)) return false;
        continue;
      }
      const pages: u64 = span << group;
      const groupFirst = entryFirst & ~(pages - 1);
      slot -= usize(((entryFirst - groupFirst) >> bits) << 3);
      if (!report(pt, slot, (<u64>1) << group, groupFirst, groupFirst + pages - 1)) return false;
      continue;
    }
    const child: usize = level == 3 ? 0 : tableAt(pt, addressOf(descriptor), tableBytes);
    if (child == 0) {
      stop(pt, REASON_WILD);
      return false;
    }
    if (!scanTable(pt, child, level + 1, min(entryLast, tableLast), tableEntries - 1)) return false;
  }
  return true;
}

/**
 * Looks for dirty leaves in [firstPage, lastPage], from `from` on, until more is found than the window holds.
 * @returns the page to go on from, past lastPage when done; PAGE_TABLE_REASON is REASON_WILD when it cannot
 */
export function ptDirty(pt: usize, firstPage: f64, lastPage: f64, from: f64, unitLg2: u32, clear: u32): f64 {
  begin(pt);
  first = u64(firstPage);
  last = u64(lastPage);
  cursor = u64(from);
  unitBits = u64(unitLg2 - 12);
  clearing = clear != 0;
  leaves = 0;
  windowBytes = 0;
  stop(pt, REASON_DONE);
  const root = rootAt(pt);
  if (root == 0) stop(pt, REASON_WILD);
  else scanTable(pt, root, startLevel, last, rootEntries - 1);
  store<u32>(pt, leaves, PAGE_TABLE_DIRTY_LEAVES);
  store<u32>(pt, windowBytes, PAGE_TABLE_DIRTY_BYTES);
  fence(pt + PAGE_TABLE_REASON);
  return f64(cursor);
}
