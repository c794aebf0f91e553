/**
 * Replacing valid entries by others that translate the same: a block by a table of smaller leaves and back, a
 * contiguous group by single leaves and back. [DDI0487] D8.16.1 asks for break-before-make:
 *
 *   STEP_BREAK   the entries lose their valid bit and keep the rest, which hardware ignores
 *                ... the caller invalidates and waits: from then on no walker and no cache uses them ...
 *   STEP_MAKE    the new entries are written; what hardware recorded in the old ones until then is kept
 *   STEP_UNDO    instead: the old entries become valid again
 *
 * Hardware with BBM level 2 allows the new entries over the old ones at once, STEP_DIRECT; after the same
 * invalidation STEP_SETTLE takes over what walkers that still had the old entries recorded there.
 *
 * Between the steps the caller lets nobody else edit this table.
 */
import {
  FREED_FRAMES,
  PAGE_TABLE_FREED_COUNT,
  PAGE_TABLE_POOL_COUNT,
  PAGE_TABLE_REASON,
  PAGE_TABLE_RETIRED,
  REASON_DONE,
  REASON_FREED,
  REASON_POOL,
  REASON_SHAPE,
  REASON_WILD,
  REPLACE_COLLAPSE,
  REPLACE_GROUP,
  REPLACE_SPLIT,
  REPLACE_UNGROUP,
  STEP_BREAK,
  STEP_DIRECT,
  STEP_MAKE,
  STEP_SETTLE,
  STEP_UNDO,
} from './layout';
import { fence, OP_LOAD, OP_RMW, OP_STORE, schedulePoint } from './machine';
import { giveUp, takeFrame } from './pagetable';
import {
  ADDRESS_FIELD,
  AF,
  addressOf,
  BLOCK,
  begin,
  CONTIGUOUS,
  DBM,
  DIRTY_STATE,
  dirtied,
  groupBits,
  isDirty,
  isLeaf,
  leafAllowed,
  PAGE,
  rootEntries,
  slotOf,
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

function breakEntry(slot: usize): void {
  schedulePoint(OP_RMW, slot);
  atomic.and<u64>(slot, ~VALID);
}

function restore(slot: usize): void {
  schedulePoint(OP_RMW, slot);
  atomic.or<u64>(slot, VALID);
}

function isTable(descriptor: u64, level: u32): bool {
  return level < 3 && (descriptor & TYPE_MASK) == TABLE;
}

/** Whether an entry was such a thing before it was broken. */
function wasLeaf(descriptor: u64, level: u32): bool {
  return (descriptor & VALID) == 0 && isLeaf(descriptor | VALID, level);
}

// ---- a block and a table of smaller leaves ----

/** Fills an unpublished table with the leaves that a block at `level` stands for. */
function scatter(table: usize, block: u64, level: u32): void {
  const bits = spanBits(level + 1);
  const base = addressOf(block) & ~(((<u64>4096) << spanBits(level)) - 1);
  const rest = block & ~ADDRESS_FIELD & ~TYPE_MASK & ~CONTIGUOUS;
  let value = toDescriptor(base) | rest | select<u64>(PAGE, BLOCK, level + 1 == 3);
  for (let i: u64 = 0; i < tableEntries; i++) {
    store<u64>(table + usize(i << 3), value);
    value += (<u64>4096) << bits;
  }
}

/** @returns REASON_* */
function split(pt: usize, slot: usize, level: u32, step: u32): u32 {
  schedulePoint(OP_LOAD, slot);
  const descriptor = atomic.load<u64>(slot);
  if (step == STEP_UNDO) {
    restore(slot);
    return REASON_DONE;
  }
  if (step == STEP_SETTLE) return REASON_DONE;
  if (step == STEP_MAKE) {
    if (!wasLeaf(descriptor, level)) return REASON_SHAPE;
  } else {
    if (level == 3 || !isLeaf(descriptor, level) || (descriptor & CONTIGUOUS) != 0) return REASON_SHAPE;
    if (load<u32>(pt, PAGE_TABLE_POOL_COUNT) == 0) return REASON_POOL;
  }
  if (step == STEP_BREAK) {
    breakEntry(slot);
    return REASON_DONE;
  }
  const address = takeFrame(pt);
  if (address == 0) return load<u32>(pt, PAGE_TABLE_REASON);
  const table = tableAt(pt, address, tableBytes);
  let was = descriptor;
  for (;;) {
    if (!hasBug(BUG_LINKED_FIRST)) scatter(table, was, level);
    schedulePoint(OP_RMW, slot);
    const seen = atomic.cmpxchg<u64>(slot, was, toDescriptor(address) | TABLE);
    if (seen == was) break;
    // A walker marked the block meanwhile.
    was = seen;
  }
  if (hasBug(BUG_LINKED_FIRST)) {
    schedulePoint(OP_STORE, table);
    scatter(table, was, level);
  }
  return REASON_DONE;
}

/** Bits in which leaves that become one may differ: what hardware writes, and the hint. */
function recorded(descriptor: u64): u64 {
  return AF | CONTIGUOUS | select<u64>(DIRTY_STATE, 0, (descriptor & DBM) != 0);
}

/** Whether the leaves of a table translate as one block at `level` would. */
function uniform(table: usize, level: u32): bool {
  schedulePoint(OP_LOAD, table);
  const like = load<u64>(table);
  if (!leafAllowed(level) || !isLeaf(like, level + 1)) return false;
  if ((addressOf(like) & (((<u64>4096) << spanBits(level)) - 1)) != 0) return false;
  const ignored = recorded(like);
  const step = (<u64>4096) << spanBits(level + 1);
  let want = like & ~ignored;
  for (let i: u64 = 1; i < tableEntries; i++) {
    want += step;
    if ((load<u64>(table + usize(i << 3)) & ~ignored) != want) return false;
  }
  return true;
}

/** Accessed and dirty as any of `n` leaves is, on top of `like`. */
function gathered(slot: usize, n: u64, like: u64): u64 {
  let value = like;
  for (let i: u64 = 0; i < n; i++) {
    schedulePoint(OP_LOAD, slot + usize(i << 3));
    const descriptor = atomic.load<u64>(slot + usize(i << 3));
    value |= descriptor & AF;
    if (isDirty(descriptor)) value = dirtied(value);
  }
  return value;
}

function collapse(pt: usize, slot: usize, level: u32, step: u32): u32 {
  schedulePoint(OP_LOAD, slot);
  const descriptor = atomic.load<u64>(slot);
  if (step == STEP_UNDO) {
    restore(slot);
    return REASON_DONE;
  }
  let address = addressOf(descriptor);
  if (step == STEP_SETTLE) address = load<u64>(pt, PAGE_TABLE_RETIRED);
  else if (!isTable(step == STEP_MAKE ? descriptor | VALID : descriptor, level)) return REASON_SHAPE;
  const table = tableAt(pt, address, tableBytes);
  if (table == 0) return REASON_WILD;
  if (step != STEP_SETTLE && !uniform(table, level)) return REASON_SHAPE;
  if (step == STEP_BREAK) {
    breakEntry(slot);
    return REASON_DONE;
  }
  if (step == STEP_SETTLE) {
    for (let was = descriptor; ; ) {
      const value = gathered(table, tableEntries, was);
      schedulePoint(OP_RMW, slot);
      const seen = atomic.cmpxchg<u64>(slot, was, value);
      if (seen == was) break;
      was = seen;
    }
    giveUp(pt, address);
    return REASON_DONE;
  }
  if (load<u32>(pt, PAGE_TABLE_FREED_COUNT) >= FREED_FRAMES) return REASON_FREED;
  const like = (load<u64>(table) & ~CONTIGUOUS & ~TYPE_MASK) | BLOCK;
  const block = gathered(table, tableEntries, like);
  schedulePoint(OP_STORE, slot);
  atomic.store<u64>(slot, block);
  if (step == STEP_MAKE) giveUp(pt, address);
  else store<u64>(pt, address, PAGE_TABLE_RETIRED);
  return REASON_DONE;
}

// ---- a contiguous group and single leaves ----

/** Whether `n` leaves can carry the hint together: one run of addresses, aligned as a whole, all alike. */
function groupable(slot: usize, level: u32, n: u64, valid: u64): bool {
  schedulePoint(OP_LOAD, slot);
  const like = load<u64>(slot) | valid;
  const step = (<u64>4096) << spanBits(level);
  if (!isLeaf(like, level) || (addressOf(like) & ((step << groupBits(level)) - 1)) != 0) return false;
  const ignored = recorded(like);
  let want = like & ~ignored;
  for (let i: u64 = 1; i < n; i++) {
    want += step;
    if (((load<u64>(slot + usize(i << 3)) | valid) & ~ignored) != want) return false;
  }
  return true;
}

/** Gives or takes the hint from every member; all become dirty where one is. */
function rehint(slot: usize, n: u64, contiguous: u64): void {
  let dirty = false;
  schedulePoint(OP_LOAD, slot);
  for (let i: u64 = 0; i < n; i++) dirty = dirty || isDirty(atomic.load<u64>(slot + usize(i << 3)));
  for (let i: u64 = 0; i < n; i++) {
    const at = slot + usize(i << 3);
    schedulePoint(OP_LOAD, at);
    for (let was = atomic.load<u64>(at); ; ) {
      const alike = dirty && (was & DBM) != 0 ? dirtied(was) : was;
      schedulePoint(OP_RMW, at);
      const seen = atomic.cmpxchg<u64>(at, was, (alike & ~CONTIGUOUS) | contiguous | VALID);
      if (seen == was) break;
      was = seen;
    }
  }
}

function regroup(slot: usize, level: u32, step: u32, contiguous: u64): u32 {
  const n: u64 = 1 << groupBits(level);
  if (step == STEP_BREAK || step == STEP_DIRECT) {
    schedulePoint(OP_LOAD, slot);
    for (let i: u64 = 0; i < n; i++) {
      const descriptor = load<u64>(slot + usize(i << 3));
      if (!isLeaf(descriptor, level) || (descriptor & CONTIGUOUS) == contiguous) return REASON_SHAPE;
    }
    if (contiguous != 0 && !groupable(slot, level, n, 0)) return REASON_SHAPE;
  }
  if (step == STEP_BREAK) for (let i: u64 = 0; i < n; i++) breakEntry(slot + usize(i << 3));
  else if (step == STEP_UNDO) for (let i: u64 = 0; i < n; i++) restore(slot + usize(i << 3));
  // A walker that had the group in hand marked one member for all: settled, all are marked.
  else rehint(slot, n, contiguous);
  return REASON_DONE;
}

/**
 * One step of one replacement, of the entry for a page at a level (a group: the leaves around the page).
 * @returns REASON_*; anything but REASON_DONE has changed nothing
 */
export function ptReplace(pt: usize, page: f64, level: u32, what: u32, step: u32): u32 {
  begin(pt);
  stop(pt, REASON_DONE);
  let reason: u32 = REASON_SHAPE;
  if (level >= startLevel && level <= 3) {
    const group = what >= REPLACE_UNGROUP ? groupBits(level) : <u64>0;
    const entries = level == startLevel ? rootEntries : tableEntries;
    const first = u64(page) & ~(((<u64>1) << (spanBits(level) + group)) - 1);
    const slot = slotOf(pt, first, level);
    if (slot == 0 || entries >> group == 0 || (what >= REPLACE_UNGROUP && group == 0)) reason = REASON_SHAPE;
    else if (what == REPLACE_SPLIT) reason = split(pt, slot, level, step);
    else if (what == REPLACE_COLLAPSE) reason = collapse(pt, slot, level, step);
    else reason = regroup(slot, level, step, what == REPLACE_GROUP ? CONTIGUOUS : <u64>0);
  }
  fence(pt + PAGE_TABLE_REASON);
  stop(pt, reason);
  return reason;
}
