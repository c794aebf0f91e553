/**
 * The page-table editor: map, unmap and look up in AArch64 tables with the 4 KiB granule ([DDI0487] D8.3), over
 * a descriptor in shared memory (hw/pagetable/page-table-layout.ts) that its owner alone uses.
 *
 * A walker may read any table at any time. So a leaf or a table pointer is written as one aligned 64-bit word,
 * never in halves; a table is zeroed before its pointer is published; and a call ends with a fence, before its
 * owner can issue an invalidation. Leaves in a run are plain stores: an engine makes one aligned 64-bit machine
 * store of each, and the exchange that an atomic store compiles to would cost four times as much.
 *
 * Levels are the spec's: 0 to 3, a leaf at level l spans 2^(39 - 9l) bytes.
 */
import {
  FREED_FRAMES,
  PAGE_TABLE_FOUND_LG2,
  PAGE_TABLE_FOUND_PROT,
  PAGE_TABLE_FREED,
  PAGE_TABLE_FREED_COUNT,
  PAGE_TABLE_INPUT_BITS,
  PAGE_TABLE_POOL,
  PAGE_TABLE_POOL_COUNT,
  PAGE_TABLE_REASON,
  PAGE_TABLE_ROOT,
  PAGE_TABLE_STAGE,
  PAGE_TABLE_START_LEVEL,
  PAGE_TABLE_UNMAPPED,
  PAGE_TABLE_WINDOW_BASE,
  PAGE_TABLE_WINDOW_BYTES,
  PAGE_TABLE_WINDOW_LINEAR,
  POOL_FRAMES,
  REASON_DONE,
  REASON_EXISTS,
  REASON_FREED,
  REASON_POOL,
  REASON_SPLIT,
  REASON_WILD,
} from './layout';
import { fence, schedulePoint } from './machine';
import { ADDRESS, AF } from './walk';

const TABLE: u64 = 3;
const BLOCK: u64 = 1;
const PAGE: u64 = 3;
const TYPE_MASK: u64 = 3;
const INNER_SHAREABLE: u64 = 3 << 8;
/** Stage 1: nG, unprivileged, read-only; attribute index 0. */
const NG: u64 = 1 << 11;
const UNPRIVILEGED: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
/** Stage 2: MemAttr normal, inner and outer write-back; S2AP in bits 7:6. */
const MEMATTR_WB: u64 = 0xf << 2;
const S2AP_SHIFT: u64 = 6;
const PROT_WRITE: u32 = 2;
const PROT_ALL: u32 = 3;

function leafBits(stage: u32, prot: u32): u64 {
  if (stage == 2) return MEMATTR_WB | INNER_SHAREABLE | AF | (u64(prot & PROT_ALL) << S2AP_SHIFT);
  const reach = select<u64>(UNPRIVILEGED, 0, (prot & PROT_ALL) != 0);
  return reach | select<u64>(0, READ_ONLY, (prot & PROT_WRITE) != 0) | INNER_SHAREABLE | AF | NG;
}

function protOf(stage: u32, descriptor: u64): u32 {
  if (stage == 2) return u32(descriptor >> S2AP_SHIFT) & PROT_ALL;
  if ((descriptor & UNPRIVILEGED) == 0) return 0;
  return (descriptor & READ_ONLY) != 0 ? 1 : PROT_ALL;
}

/** Linear offset of the table at an address, or 0 when it is not wholly in the window. */
function tableAt(pt: usize, address: u64, bytes: u64): usize {
  const offset = address - load<u64>(pt, PAGE_TABLE_WINDOW_BASE);
  const size = load<u64>(pt, PAGE_TABLE_WINDOW_BYTES);
  if (offset >= size || size - offset < bytes) return 0;
  return <usize>(load<u32>(pt, PAGE_TABLE_WINDOW_LINEAR) + u32(offset));
}

/** Entries of the root, concatenated ones included. */
function rootEntries(pt: usize): u64 {
  return (
    (<u64>1) << u64(load<u32>(pt, PAGE_TABLE_INPUT_BITS) - 39 + 9 * load<u32>(pt, PAGE_TABLE_START_LEVEL))
  );
}

/** Log2 of the pages that one entry at a level spans. */
function spanBits(level: u32): u64 {
  return u64(27 - 9 * level);
}

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

function stop(pt: usize, reason: u32): void {
  store<u32>(pt, reason, PAGE_TABLE_REASON);
}

export function ptMap(pt: usize, firstPage: f64, firstPfn: f64, pages: f64, prot: u32): f64 {
  const total = u64(pages);
  const leaf = leafBits(load<u32>(pt, PAGE_TABLE_STAGE), prot);
  const startLevel = load<u32>(pt, PAGE_TABLE_START_LEVEL);
  const root = tableAt(pt, load<u64>(pt, PAGE_TABLE_ROOT), rootEntries(pt) * 8);
  let page = u64(firstPage);
  let pfn = u64(firstPfn);
  let left = total;
  stop(pt, root == 0 ? REASON_WILD : REASON_DONE);
  while (left > 0 && load<u32>(pt, PAGE_TABLE_REASON) == REASON_DONE) {
    let level = startLevel;
    let table = root;
    let bits = spanBits(level);
    let index = page >> bits;
    let entries = rootEntries(pt);
    for (;;) {
      const slot = table + usize(index * 8);
      const descriptor = atomic.load<u64>(slot);
      const span: u64 = 1 << bits;
      const leafFits = level == 3 || (level != 0 && left >= span && ((page | pfn) & (span - 1)) == 0);
      if (leafFits && (level == 3 || (descriptor & TYPE_MASK) != TABLE)) {
        const kind = level == 3 ? PAGE : BLOCK;
        const n = min(left >> bits, entries - index);
        let i: u64 = 0;
        for (; i < n; i++) {
          if ((load<u64>(slot + usize(i * 8)) & 1) != 0) break;
          store<u64>(slot + usize(i * 8), ((pfn + (i << bits)) << 12) | leaf | kind);
          schedulePoint();
        }
        page += i << bits;
        pfn += i << bits;
        left -= i << bits;
        // What stopped a run of blocks may be a table, which the next descent goes into.
        if (i < n && (i == 0 || level == 3)) stop(pt, REASON_EXISTS);
        break;
      }
      let address = descriptor & ADDRESS;
      if ((descriptor & 1) == 0) {
        const n = load<u32>(pt, PAGE_TABLE_POOL_COUNT);
        if (n == 0) {
          stop(pt, REASON_POOL);
          break;
        }
        address = load<u64>(pt + (n - 1) * 8, PAGE_TABLE_POOL);
        const fresh = tableAt(pt, address, 4096);
        if (fresh == 0) {
          stop(pt, REASON_WILD);
          break;
        }
        store<u32>(pt, n - 1, PAGE_TABLE_POOL_COUNT);
        memory.fill(fresh, 0, 4096);
        schedulePoint();
        atomic.store<u64>(slot, address | TABLE);
      } else if ((descriptor & TYPE_MASK) != TABLE) {
        stop(pt, REASON_EXISTS);
        break;
      }
      table = tableAt(pt, address, 4096);
      if (table == 0) {
        stop(pt, REASON_WILD);
        break;
      }
      level++;
      bits = spanBits(level);
      index = (page >> bits) & 511;
      entries = 512;
    }
  }
  fence(pt + PAGE_TABLE_REASON);
  return f64(total - left);
}

/** Finds the leaf of a page. @returns its descriptor, or 0; the level in foundLevel */
let foundLevel: u32 = 0;
function leafOf(pt: usize, page: u64): u64 {
  let level = load<u32>(pt, PAGE_TABLE_START_LEVEL);
  let table = tableAt(pt, load<u64>(pt, PAGE_TABLE_ROOT), rootEntries(pt) * 8);
  let index = page >> spanBits(level);
  if (index >= rootEntries(pt)) return 0;
  while (table != 0) {
    const descriptor = atomic.load<u64>(table + usize(index * 8));
    if ((descriptor & 1) == 0) return 0;
    if (level == 3 || (descriptor & TYPE_MASK) == BLOCK) {
      foundLevel = level;
      const valid = level == 3 ? (descriptor & TYPE_MASK) == PAGE : level != 0;
      return valid ? descriptor : 0;
    }
    level++;
    index = (page >> spanBits(level)) & 511;
    table = tableAt(pt, descriptor & ADDRESS, 4096);
  }
  return 0;
}

export function ptLookup(pt: usize, page: f64): f64 {
  const n = u64(page);
  const descriptor = leafOf(pt, n);
  if (descriptor == 0) return -1;
  const bits = spanBits(foundLevel);
  const below = ((<u64>1) << bits) - 1;
  store<u32>(pt, u32(bits) + 12, PAGE_TABLE_FOUND_LG2);
  store<u32>(pt, protOf(load<u32>(pt, PAGE_TABLE_STAGE), descriptor), PAGE_TABLE_FOUND_PROT);
  return f64((((descriptor & ADDRESS) >> 12) & ~below) | (n & below));
}

// The range being unmapped, and where the work stands.
let rangeFirst: u64 = 0;
let rangeLast: u64 = 0;
let cursor: u64 = 0;
let unmapped: u64 = 0;

function unlink(pt: usize, slot: usize, address: u64): void {
  atomic.store<u64>(slot, 0);
  const n = load<u32>(pt, PAGE_TABLE_FREED_COUNT);
  store<u64>(pt + n * 8, address, PAGE_TABLE_FREED);
  store<u32>(pt, n + 1, PAGE_TABLE_FREED_COUNT);
}

/** Clears the last-level entries from the cursor to `last`. */
function clearPages(table: usize, last: u64): void {
  let slot = table + usize((cursor & 511) * 8);
  const end = slot + usize((last - cursor + 1) * 8);
  let n: u64 = 0;
  for (; slot < end; slot += 8) {
    const descriptor = load<u64>(slot);
    n += descriptor & (descriptor >> 1) & 1;
    if (descriptor != 0) store<u64>(slot, 0);
    schedulePoint();
  }
  unmapped += n;
  cursor = last + 1;
}

/**
 * Works through the entries of one table from the cursor to `last`, which the table spans.
 * @returns whether it got to the end (else PAGE_TABLE_REASON says why not)
 */
function clearTable(pt: usize, table: usize, level: u32, last: u64, indexMask: u64): bool {
  if (level == 3) {
    clearPages(table, last);
    return true;
  }
  const bits = spanBits(level);
  const span: u64 = 1 << bits;
  while (cursor <= last) {
    const slot = table + usize(((cursor >> bits) & indexMask) * 8);
    const first = cursor & ~(span - 1);
    const entryLast = first + span - 1;
    const descriptor = atomic.load<u64>(slot);
    if ((descriptor & 1) == 0) {
      cursor = min(entryLast, last) + 1;
      continue;
    }
    if ((descriptor & TYPE_MASK) == BLOCK) {
      // Wholly in the range: ptUnmap made sure before it began.
      atomic.store<u64>(slot, 0);
      unmapped += span;
      cursor = entryLast + 1;
      continue;
    }
    const address = descriptor & ADDRESS;
    const child = tableAt(pt, address, 4096);
    if (child == 0) {
      stop(pt, REASON_WILD);
      return false;
    }
    const whole = first >= rangeFirst && entryLast <= rangeLast;
    if (whole && load<u32>(pt, PAGE_TABLE_FREED_COUNT) >= FREED_FRAMES) {
      stop(pt, REASON_FREED);
      return false;
    }
    if (!clearTable(pt, child, level + 1, min(entryLast, last), 511)) return false;
    if (!whole) continue;
    if (load<u32>(pt, PAGE_TABLE_FREED_COUNT) >= FREED_FRAMES) {
      // Its children took the last places: this table is empty, and is unlinked when we come again.
      cursor = first;
      stop(pt, REASON_FREED);
      return false;
    }
    unlink(pt, slot, address);
  }
  return true;
}

/** @returns whether the leaf that holds `page` begins before it (`side` 0) or ends after it (1) */
function cuts(pt: usize, page: u64, side: u64): bool {
  if (leafOf(pt, page) == 0) return false;
  return ((page + side) & (((<u64>1) << spanBits(foundLevel)) - 1)) != 0;
}

export function ptUnmap(pt: usize, firstPage: f64, lastPage: f64, from: f64): f64 {
  rangeFirst = u64(firstPage);
  rangeLast = u64(lastPage);
  cursor = u64(from);
  unmapped = 0;
  store<u64>(pt, 0, PAGE_TABLE_UNMAPPED);
  stop(pt, REASON_DONE);
  if (cuts(pt, rangeFirst, 0) || cuts(pt, rangeLast, 1)) {
    stop(pt, REASON_SPLIT);
    return f64(cursor);
  }
  const root = tableAt(pt, load<u64>(pt, PAGE_TABLE_ROOT), rootEntries(pt) * 8);
  if (root == 0) stop(pt, REASON_WILD);
  else clearTable(pt, root, load<u32>(pt, PAGE_TABLE_START_LEVEL), rangeLast, rootEntries(pt) - 1);
  store<u64>(pt, unmapped, PAGE_TABLE_UNMAPPED);
  fence(pt + PAGE_TABLE_REASON);
  return f64(cursor);
}
