/**
 * The IOTLB of one translation unit: set-associative, four ways, keyed by VMID, ASID, stages, size and page.
 * One writer (the pIOMMU), any number of readers that check the entry's sequence.
 *
 *   page word   63..12 input page | 11..6 log2 size | 5 S2 | 4 S1 | 3 global | 2 W | 1 R | 0 valid
 *   set         hash(page in units of the size, VMID, ASID, size); a size is probed only if present in leafSizes
 *
 * Entries of EL2 have neither stage bit and VMID 0, so that no command of the other regimes matches them, nor the
 * TLBI_EL2_* any but them. Sizes are what leaves and contiguous groups come in: 4 KiB to 4 TiB.
 *
 * A global entry is kept under the ASID it was walked for, and only invalidation knows that it is global:
 * that never hits wrongly, and costs capacity where global pages are shared by ASIDs.
 * Removing an entry clears its page word and leaves the sequence: a reader either saw it, and is inside its
 * epoch, or did not. Only a refill changes what the other words mean, and only it moves the sequence.
 */
import {
  IOTLB_ENTRIES,
  IOTLB_ENTRY_BYTES,
  IOTLB_ENTRY_FILL_SEQ,
  IOTLB_ENTRY_IPA_PAGE,
  IOTLB_ENTRY_PA,
  IOTLB_ENTRY_PAGE,
  IOTLB_ENTRY_SEQ,
  IOTLB_ENTRY_TAG,
  IOTLB_SETS,
  IOTLB_WAYS,
  LEAF_SIZES_GLOBAL,
  UNIT_FILL_SEQ,
  UNIT_LEAF_SIZES,
} from './layout';
import { OP_LOAD, OP_RMW, OP_STORE, schedulePoint } from './machine';
import { BUG_IOTLB_UNGUARDED, hasBug } from './zoo';

export const VALID: u64 = 1;
export const READ: u64 = 1 << 1;
export const WRITE: u64 = 1 << 2;
export const GLOBAL: u64 = 1 << 3;
export const S1: u64 = 1 << 4;
export const S2: u64 = 1 << 5;
export const SIZE_SHIFT: u64 = 6;
export const PAGE_MASK: u64 = ~0xfff;
/** What a probe compares: all but the permissions and the global bit. */
export const KEY_MASK: u64 = ~(READ | WRITE | GLOBAL);
export const SET_BYTES: u32 = IOTLB_WAYS * IOTLB_ENTRY_BYTES;

/** What `find` saw, in one consistent reading. */
export let hitWord: u64 = 0;
export let hitPa: u64 = 0;
export let hitFillSeq: u32 = 0;
export let hitIpaPage: u32 = 0;
let hitTag: u32 = 0;

export function setMask(iotlb: usize): u32 {
  return load<u32>(iotlb, IOTLB_SETS) - 1;
}

/** What the tag and the size add to the hash of a set. @param sizeBit  log2 of the size, less 12 */
export function spreadOf(tag: u32, sizeBit: u32): u32 {
  return ((tag * 0x9e37_79b1) >>> 16) ^ sizeBit;
}

/** Set number. @param n  page number in units of the entry's size */
export function setIndex(mask: u32, n: u64, spread: u32): u32 {
  return (u32(n) ^ u32(n >> 10) ^ u32(n >> 20) ^ spread) & mask;
}

function setOf(iotlb: usize, mask: u32, n: u64, sizeBit: u32, tag: u32): usize {
  return iotlb + IOTLB_ENTRIES + setIndex(mask, n, spreadOf(tag, sizeBit)) * SET_BYTES;
}

/** Reads one entry under its sequence into hit*. @returns false when a refill got in between */
function readEntry(entry: usize): bool {
  // All loads are atomic: they cost nothing on x86, and keep their order on machines that would reorder them.
  schedulePoint(OP_LOAD, entry + IOTLB_ENTRY_SEQ);
  const seq = atomic.load<u32>(entry, IOTLB_ENTRY_SEQ);
  schedulePoint(OP_LOAD, entry + IOTLB_ENTRY_PAGE);
  hitWord = atomic.load<u64>(entry, IOTLB_ENTRY_PAGE);
  hitTag = atomic.load<u32>(entry, IOTLB_ENTRY_TAG);
  schedulePoint(OP_LOAD, entry + IOTLB_ENTRY_PA);
  hitPa = atomic.load<u64>(entry, IOTLB_ENTRY_PA);
  hitFillSeq = atomic.load<u32>(entry, IOTLB_ENTRY_FILL_SEQ);
  hitIpaPage = atomic.load<u32>(entry, IOTLB_ENTRY_IPA_PAGE);
  if (hasBug(BUG_IOTLB_UNGUARDED)) return (seq & 1) == 0;
  schedulePoint(OP_LOAD, entry + IOTLB_ENTRY_SEQ);
  return (atomic.load<u32>(entry, IOTLB_ENTRY_SEQ) == seq) & ((seq & 1) == 0);
}

function matches(entry: usize, tag: u32, key: u64): bool {
  return (
    (u64(load<u32>(entry, IOTLB_ENTRY_TAG) ^ tag) |
      ((load<u64>(entry, IOTLB_ENTRY_PAGE) ^ key) & KEY_MASK)) ==
    0
  );
}

/**
 * Looks a page up in every size present.
 * @param stages  S1 and/or S2
 * @returns the entry, described by hit*, or 0
 */
export function find(unit: usize, iotlb: usize, tag: u32, stages: u64, page: u64): usize {
  schedulePoint(OP_LOAD, unit + UNIT_LEAF_SIZES);
  let sizes = load<u32>(unit, UNIT_LEAF_SIZES) & ~LEAF_SIZES_GLOBAL;
  const mask = setMask(iotlb);
  let found: usize = 0;
  while (sizes != 0) {
    const bit = ctz(sizes);
    sizes &= sizes - 1;
    const n = page >> u64(bit);
    const key = (n << u64(bit + 12)) | (u64(bit + 12) << SIZE_SHIFT) | stages | VALID;
    const set = setOf(iotlb, mask, n, bit, tag);
    // The way is picked without branches on plain loads, which only guess; the checked reading decides.
    let entry: usize = 0;
    schedulePoint(OP_LOAD, set);
    entry = select<usize>(set, entry, matches(set, tag, key));
    entry = select<usize>(set + 32, entry, matches(set + 32, tag, key));
    entry = select<usize>(set + 64, entry, matches(set + 64, tag, key));
    entry = select<usize>(set + 96, entry, matches(set + 96, tag, key));
    if (entry != 0) {
      if (readEntry(entry) && hitTag == tag && ((hitWord ^ key) & KEY_MASK) == 0) {
        found = entry;
        break;
      }
    }
  }
  return found;
}

export function iotlbInit(unit: usize, iotlb: usize, entries: u32): void {
  schedulePoint(OP_STORE, iotlb);
  store<u32>(iotlb, entries / IOTLB_WAYS, IOTLB_SETS);
  memory.fill(iotlb + IOTLB_ENTRIES, 0, entries * IOTLB_ENTRY_BYTES);
  schedulePoint(OP_STORE, unit + UNIT_LEAF_SIZES);
  atomic.store<u32>(unit, 0, UNIT_LEAF_SIZES);
}

function isEmpty(entry: usize): bool {
  return (load<u32>(entry, IOTLB_ENTRY_PAGE) & u32(VALID)) == 0;
}

/**
 * Inserts one translation, aligned down to its size.
 * @param missed   `find` has just said that there is none of this page
 * @param fillSeq  already taken from the unit
 */
export function fill(
  unit: usize,
  iotlb: usize,
  tag: u32,
  page: u64,
  pa: u64,
  sizeLg2: u32,
  bits: u64,
  ipaPage: u32,
  fillSeq: u32,
  missed: bool,
): void {
  const sizeBit = sizeLg2 - 12;
  const present = load<u32>(unit, UNIT_LEAF_SIZES);
  const wanted = present | (1 << sizeBit) | select<u32>(LEAF_SIZES_GLOBAL, 0, (bits & GLOBAL) != 0);
  if (wanted != present) {
    schedulePoint(OP_STORE, unit + UNIT_LEAF_SIZES);
    atomic.store<u32>(unit, wanted, UNIT_LEAF_SIZES);
  }
  const n = page >> u64(sizeBit);
  const key = (n << u64(sizeLg2)) | (u64(sizeLg2) << SIZE_SHIFT) | (bits & (S1 | S2)) | VALID;
  const set = setOf(iotlb, setMask(iotlb), n, sizeBit, tag);
  // The same key first (never two entries of one key), then an empty way, then one in turn.
  let victim = set + (fillSeq % IOTLB_WAYS) * IOTLB_ENTRY_BYTES;
  victim = select<usize>(set, victim, isEmpty(set));
  victim = select<usize>(set + 32, victim, isEmpty(set + 32));
  victim = select<usize>(set + 64, victim, isEmpty(set + 64));
  victim = select<usize>(set + 96, victim, isEmpty(set + 96));
  if (!missed) {
    victim = select<usize>(set, victim, matches(set, tag, key));
    victim = select<usize>(set + 32, victim, matches(set + 32, tag, key));
    victim = select<usize>(set + 64, victim, matches(set + 64, tag, key));
    victim = select<usize>(set + 96, victim, matches(set + 96, tag, key));
  }
  // An exchange-and-add, not a store: the plain stores below must not pass it.
  schedulePoint(OP_RMW, victim + IOTLB_ENTRY_SEQ);
  const seq = atomic.add<u32>(victim, 1, IOTLB_ENTRY_SEQ);
  schedulePoint(OP_STORE, victim + IOTLB_ENTRY_PAGE);
  store<u32>(victim, tag, IOTLB_ENTRY_TAG);
  store<u64>(victim, key | (bits & (READ | WRITE | GLOBAL)), IOTLB_ENTRY_PAGE);
  schedulePoint(OP_STORE, victim + IOTLB_ENTRY_PA);
  store<u64>(victim, (pa >> u64(sizeLg2)) << u64(sizeLg2), IOTLB_ENTRY_PA);
  store<u32>(victim, fillSeq, IOTLB_ENTRY_FILL_SEQ);
  store<u32>(victim, (ipaPage >> sizeBit) << sizeBit, IOTLB_ENTRY_IPA_PAGE);
  schedulePoint(OP_STORE, victim + IOTLB_ENTRY_SEQ);
  atomic.store<u32>(victim, seq + 2, IOTLB_ENTRY_SEQ);
}

/** Takes the number of the next walk. */
export function nextFillSeq(unit: usize): u32 {
  const seq = load<u32>(unit, UNIT_FILL_SEQ) + 1;
  store<u32>(unit, seq, UNIT_FILL_SEQ);
  return seq;
}

export function iotlbFill(
  unit: usize,
  iotlb: usize,
  tag: u32,
  page: f64,
  pfn: f64,
  sizeLg2: u32,
  bits: u32,
  ipaPage: u32,
): u32 {
  const seq = nextFillSeq(unit);
  fill(unit, iotlb, tag, u64(page), u64(pfn) << 12, sizeLg2, u64(bits), ipaPage, seq, false);
  return seq;
}

export function iotlbProbe(unit: usize, iotlb: usize, tag: u32, stages: u32, page: f64): i32 {
  const entry = find(unit, iotlb, tag, u64(stages), u64(page));
  return entry == 0 ? -1 : i32((entry - iotlb - IOTLB_ENTRIES) / IOTLB_ENTRY_BYTES);
}

function endOf(iotlb: usize): usize {
  return iotlb + IOTLB_ENTRIES + load<u32>(iotlb, IOTLB_SETS) * SET_BYTES;
}

function remove(entry: usize): void {
  schedulePoint(OP_STORE, entry + IOTLB_ENTRY_PAGE);
  // Plain: the SYNC that makes it count moves the generation with an atomic operation first.
  store<u64>(entry, 0, IOTLB_ENTRY_PAGE);
}

/** Removes every entry whose tag and page word equal the given ones under the masks. */
function sweep(iotlb: usize, tagMask: u32, tag: u32, wordMask: u64, word: u64): i32 {
  let removed = 0;
  for (let entry = iotlb + IOTLB_ENTRIES, end = endOf(iotlb); entry < end; entry += IOTLB_ENTRY_BYTES) {
    if (
      ((load<u64>(entry, IOTLB_ENTRY_PAGE) & wordMask) == word) &
      ((load<u32>(entry, IOTLB_ENTRY_TAG) & tagMask) == tag)
    ) {
      remove(entry);
      removed++;
    }
  }
  return removed;
}

export function iotlbInvalidateAll(unit: usize, iotlb: usize): i32 {
  const removed = sweep(iotlb, 0, 0, VALID, VALID);
  schedulePoint(OP_STORE, unit + UNIT_LEAF_SIZES);
  atomic.store<u32>(unit, 0, UNIT_LEAF_SIZES);
  return removed;
}

export function iotlbInvalidateVmid(iotlb: usize, vmid: u32, s1Only: u32): i32 {
  const removed = sweep(iotlb, 0xffff, vmid, VALID | S1, VALID | S1);
  return s1Only != 0 ? removed : removed + sweep(iotlb, 0xffff, vmid, VALID | S1 | S2, VALID | S2);
}

export function iotlbInvalidateAsid(iotlb: usize, vmid: u32, asid: u32): i32 {
  return sweep(iotlb, 0xffff_ffff, vmid | (asid << 16), VALID | S1 | GLOBAL, VALID | S1);
}

function overlaps(word: u64, first: u64, last: u64): bool {
  const start = word >> 12;
  const span: u64 = 1 << (((word >> SIZE_SHIFT) & 63) - 12);
  return (start <= last) & (start + span > first);
}

/**
 * Range removal by looking at the sets the range can lie in: exact when no entry of another tag may match.
 * @returns how many were removed, or -1 when a sweep is cheaper
 */
function probeRange(
  unit: usize,
  iotlb: usize,
  tag: u32,
  wordMask: u64,
  word: u64,
  first: u64,
  last: u64,
): i32 {
  const mask = setMask(iotlb);
  const sizes = load<u32>(unit, UNIT_LEAF_SIZES) & ~LEAF_SIZES_GLOBAL;
  let sets: u64 = 0;
  for (let left = sizes; left != 0; left &= left - 1) {
    const bit = u64(ctz(left));
    sets += (last >> bit) - (first >> bit) + 1;
  }
  // A set looked up by hash costs about as much as two read in passing.
  if (sets * 2 > u64(mask) + 1) return -1;
  let removed = 0;
  for (let left = sizes; left != 0; left &= left - 1) {
    const bit = ctz(left);
    for (let n = first >> u64(bit); n <= last >> u64(bit); n++) {
      const key = (n << u64(bit + 12)) | (u64(bit + 12) << SIZE_SHIFT) | word;
      const set = setOf(iotlb, mask, n, bit, tag);
      for (let entry = set; entry < set + SET_BYTES; entry += IOTLB_ENTRY_BYTES) {
        if (
          load<u32>(entry, IOTLB_ENTRY_TAG) == tag &&
          ((load<u64>(entry, IOTLB_ENTRY_PAGE) ^ key) & wordMask) == 0
        ) {
          remove(entry);
          removed++;
        }
      }
    }
  }
  return removed;
}

export function iotlbInvalidateVa(
  unit: usize,
  iotlb: usize,
  vmid: u32,
  asid: i32,
  firstPage: f64,
  pages: f64,
): i32 {
  if (!(pages > 0)) return 0;
  const first = u64(firstPage);
  const last = first + u64(pages) - 1;
  if (asid >= 0 && (load<u32>(unit, UNIT_LEAF_SIZES) & LEAF_SIZES_GLOBAL) == 0) {
    const word = VALID | S1;
    const removed = probeRange(unit, iotlb, vmid | (u32(asid) << 16), KEY_MASK & ~S2, word, first, last);
    if (removed >= 0) return removed;
  }
  let removed = 0;
  for (let entry = iotlb + IOTLB_ENTRIES, end = endOf(iotlb); entry < end; entry += IOTLB_ENTRY_BYTES) {
    const word = load<u64>(entry, IOTLB_ENTRY_PAGE);
    const tag = load<u32>(entry, IOTLB_ENTRY_TAG);
    if ((word & (VALID | S1)) != (VALID | S1) || (tag & 0xffff) != vmid) continue;
    if (asid >= 0 && tag >>> 16 != u32(asid) && (word & GLOBAL) == 0) continue;
    if (overlaps(word, first, last)) {
      remove(entry);
      removed++;
    }
  }
  return removed;
}

/** Entries of EL2, which are those of neither stage. */
export function iotlbInvalidateEl2All(iotlb: usize): i32 {
  return sweep(iotlb, 0, 0, VALID | S1 | S2, VALID);
}

export function iotlbInvalidateEl2Asid(iotlb: usize, asid: u32): i32 {
  return sweep(iotlb, 0xffff_0000, asid << 16, VALID | S1 | S2 | GLOBAL, VALID);
}

export function iotlbInvalidateEl2Va(unit: usize, iotlb: usize, asid: i32, firstPage: f64, pages: f64): i32 {
  if (!(pages > 0)) return 0;
  const first = u64(firstPage);
  const last = first + u64(pages) - 1;
  if (asid >= 0 && (load<u32>(unit, UNIT_LEAF_SIZES) & LEAF_SIZES_GLOBAL) == 0) {
    const removed = probeRange(unit, iotlb, u32(asid) << 16, KEY_MASK, VALID, first, last);
    if (removed >= 0) return removed;
  }
  let removed = 0;
  for (let entry = iotlb + IOTLB_ENTRIES, end = endOf(iotlb); entry < end; entry += IOTLB_ENTRY_BYTES) {
    const word = load<u64>(entry, IOTLB_ENTRY_PAGE);
    if ((word & (VALID | S1 | S2)) != VALID) continue;
    if (asid >= 0 && load<u32>(entry, IOTLB_ENTRY_TAG) >>> 16 != u32(asid) && (word & GLOBAL) == 0) continue;
    if (overlaps(word, first, last)) {
      remove(entry);
      removed++;
    }
  }
  return removed;
}

export function iotlbInvalidateIpa(unit: usize, iotlb: usize, vmid: u32, firstPage: f64, pages: f64): i32 {
  if (!(pages > 0)) return 0;
  const first = u64(firstPage);
  const last = first + u64(pages) - 1;
  let removed = probeRange(unit, iotlb, vmid, KEY_MASK, VALID | S2, first, last);
  if (removed >= 0) return removed;
  removed = 0;
  for (let entry = iotlb + IOTLB_ENTRIES, end = endOf(iotlb); entry < end; entry += IOTLB_ENTRY_BYTES) {
    const word = load<u64>(entry, IOTLB_ENTRY_PAGE);
    if ((word & (VALID | S1 | S2)) != (VALID | S2) || (load<u32>(entry, IOTLB_ENTRY_TAG) & 0xffff) != vmid)
      continue;
    if (overlaps(word, first, last)) {
      remove(entry);
      removed++;
    }
  }
  return removed;
}

// ---- for checkers, on any thread ----

// A plain look first says whether an entry is worth the checked reading: what is being refilled at that moment
// counts as what it was, or as nobody's yet.

/** Readings of one entry before giving up on it: then it is being refilled, and is nobody's yet. */
const READ_TRIES = 1000;

function readStable(entry: usize): bool {
  for (let i = 0; i < READ_TRIES; i++) if (readEntry(entry)) return (hitWord & VALID) != 0;
  return false;
}

function count(iotlb: usize, tagMask: u32, tag: u32, wordMask: u64, word: u64): i32 {
  let n = 0;
  schedulePoint(OP_LOAD, iotlb + IOTLB_ENTRIES);
  for (let entry = iotlb + IOTLB_ENTRIES, end = endOf(iotlb); entry < end; entry += IOTLB_ENTRY_BYTES)
    if (
      (load<u64>(entry, IOTLB_ENTRY_PAGE) & wordMask) == word &&
      (load<u32>(entry, IOTLB_ENTRY_TAG) & tagMask) == tag &&
      readStable(entry) &&
      (hitTag & tagMask) == tag &&
      (hitWord & wordMask) == word
    )
      n++;
  return n;
}

export function iotlbCountVmid(iotlb: usize, vmid: u32): i32 {
  return (
    count(iotlb, 0xffff, vmid, VALID | S1, VALID | S1) +
    count(iotlb, 0xffff, vmid, VALID | S1 | S2, VALID | S2)
  );
}

export function iotlbCountEl2(iotlb: usize): i32 {
  return count(iotlb, 0, 0, VALID | S1 | S2, VALID);
}

export function iotlbCountAsid(iotlb: usize, vmid: u32, asid: u32): i32 {
  return count(iotlb, 0xffff_ffff, vmid | (asid << 16), VALID | S1 | GLOBAL, VALID | S1);
}

function reaches(pa: u64, word: u64, first: u64, last: u64): bool {
  const span: u64 = 1 << (((word >> SIZE_SHIFT) & 63) - 12);
  return (pa >> 12 <= last) & ((pa >> 12) + span > first);
}

export function iotlbFindPa(iotlb: usize, firstPfn: f64, pages: f64, from: u32): i32 {
  if (!(pages > 0)) return -1;
  const first = u64(firstPfn);
  const last = first + u64(pages) - 1;
  const entries = load<u32>(iotlb, IOTLB_SETS) * IOTLB_WAYS;
  schedulePoint(OP_LOAD, iotlb + IOTLB_ENTRIES);
  for (let i = from; i < entries; i++) {
    const entry = iotlb + IOTLB_ENTRIES + i * IOTLB_ENTRY_BYTES;
    const word = load<u64>(entry, IOTLB_ENTRY_PAGE);
    if ((word & VALID) == 0 || !reaches(load<u64>(entry, IOTLB_ENTRY_PA), word, first, last)) continue;
    if (readStable(entry) && reaches(hitPa, hitWord, first, last)) return i32(i);
  }
  return -1;
}

/** Reads entry `index` for the snapshot* functions. @returns 1, or 0 when empty or no such entry */
export function iotlbSnapshot(iotlb: usize, index: u32): u32 {
  if (index >= load<u32>(iotlb, IOTLB_SETS) * IOTLB_WAYS) return 0;
  return readStable(iotlb + IOTLB_ENTRIES + index * IOTLB_ENTRY_BYTES) ? 1 : 0;
}

export function snapshotTag(): u32 {
  return hitTag;
}
export function snapshotBits(): u32 {
  return u32(hitWord) & 0xfff;
}
export function snapshotPage(): f64 {
  return f64(hitWord >> 12);
}
export function snapshotPfn(): f64 {
  return f64(hitPa >> 12);
}
export function snapshotFillSeq(): u32 {
  return hitFillSeq;
}
export function snapshotIpaPage(): u32 {
  return hitIpaPage;
}
