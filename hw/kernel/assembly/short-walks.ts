/**
 * Short walks: the 4 KiB granule, unprivileged data, tables and leaves as they mostly are. They say no to all
 * else, know nothing of faults and change nothing; stages.ts then starts again, and decides.
 *
 *   place   where the last descriptor stands, found without reading it if that is at level 3
 *   end     that descriptor, read once: what it allows and where it leads
 *
 * Between the two, the descriptors of many walks can be fetched at once.
 */
import {
  ADDRESS,
  AF,
  alignRoot,
  CONTIGUOUS,
  dirtyByHardware,
  groupLg2,
  HA_HD_S1,
  HA_HD_S2,
  MEMATTR_HIGH,
  NG,
} from './descriptors';
import {
  CONTEXT_FLAGS,
  CONTEXT_S1_GRANULE_LG2,
  CONTEXT_S1_INPUT_BITS,
  CONTEXT_S1_OUTPUT_BITS,
  CONTEXT_S1_ROOT,
  CONTEXT_S1_START_LEVEL,
  CONTEXT_S2_GRANULE_LG2,
  CONTEXT_S2_INPUT_BITS,
  CONTEXT_S2_OUTPUT_BITS,
  CONTEXT_S2_ROOT,
  CONTEXT_S2_START_LEVEL,
} from './layout';
import { OP_LOAD, ramBase, ramLastWord, ramLinear, schedulePoint } from './machine';
import {
  AP_READ_ONLY,
  AP_TABLE_PRIVILEGED,
  AP_TABLE_READ_ONLY,
  AP_UNPRIVILEGED,
  G,
  PERMISSIONS,
  R,
  TABLE,
  W,
} from './permissions';

// What the end of a short walk found, as out* of stages.ts.
export let shortPa: u64 = 0;
export let shortLg2: u32 = 0;
export let shortBits: u32 = 0;

// What these walks need of a context, worked out once a batch. The shift of the first level is 0 for a stage
// that they do not serve: another granule, or a range that makes no sense.
let quickFlags: u32 = 0;
let quickShift1: u64 = 0;
let quickShift2: u64 = 0;
let quickLevel1: u32 = 0;
let quickRoot1: u64 = 0;
let quickRoot2: u64 = 0;
let quickInput1: u32 = 0;
let quickInput2: u32 = 0;
/** Bits that no address of the stage's tables and leaves may have. */
let quickBeyond1: u64 = 0;
let quickBeyond2: u64 = 0;
/** For a table descriptor of stage 1 also what takes permissions away from all below it. */
let quickRefused1: u64 = 0;

function quickShift(granuleLg2: u32, level: u32, inputBits: u32): u64 {
  const shift: u32 = 39 - 9 * level;
  return granuleLg2 == 12 && level <= 3 && inputBits > shift && inputBits <= 48 ? u64(shift) : 0;
}

function beyond(outputBits: u32): u64 {
  return outputBits >= 48 ? 0 : ADDRESS & ~(((<u64>1) << u64(outputBits)) - 1);
}

/** To be called before the translations of one batch: nothing of the context may change until its end. */
export function useContext(context: usize): void {
  quickFlags = load<u32>(context, CONTEXT_FLAGS);
  quickInput1 = load<u32>(context, CONTEXT_S1_INPUT_BITS);
  quickInput2 = load<u32>(context, CONTEXT_S2_INPUT_BITS);
  quickLevel1 = load<u32>(context, CONTEXT_S1_START_LEVEL);
  quickShift1 = quickShift(load<u32>(context, CONTEXT_S1_GRANULE_LG2), quickLevel1, quickInput1);
  quickShift2 = quickShift(
    load<u32>(context, CONTEXT_S2_GRANULE_LG2),
    load<u32>(context, CONTEXT_S2_START_LEVEL),
    quickInput2,
  );
  quickRoot1 = alignRoot(load<u64>(context, CONTEXT_S1_ROOT), quickInput1, quickShift1);
  quickRoot2 = alignRoot(load<u64>(context, CONTEXT_S2_ROOT), quickInput2, quickShift2);
  quickBeyond1 = beyond(load<u32>(context, CONTEXT_S1_OUTPUT_BITS));
  quickBeyond2 = beyond(load<u32>(context, CONTEXT_S2_OUTPUT_BITS));
  quickRefused1 = quickBeyond1 | AP_TABLE_PRIVILEGED | AP_TABLE_READ_ONLY;
  forgetTables();
}

// A walk cache that lives as long as one batch: the last table of level 3 of each stage, by the address bits that
// choose it, and its offset in RAM; for each level of a nested stage 1, the last table page and where stage 2
// put it. No command is processed within a batch, so nothing can be stale; the next batch starts empty.
const NO_PAGE: u64 = 0xffff_ffff_ffff_ffff;
const TABLE_SHIFT: u64 = 21;
let lastTable1: u64 = NO_PAGE;
let lastTable2: u64 = NO_PAGE;
let lastPlace1: u64 = 0;
let lastPlace2: u64 = 0;
let tableIpa0: u64 = NO_PAGE;
let tableIpa1: u64 = NO_PAGE;
let tableIpa2: u64 = NO_PAGE;
let tableIpa3: u64 = NO_PAGE;
let tablePa0: u64 = 0;
let tablePa1: u64 = 0;
let tablePa2: u64 = 0;
let tablePa3: u64 = 0;

function forgetTables(): void {
  lastTable1 = NO_PAGE;
  lastTable2 = NO_PAGE;
  tableIpa0 = NO_PAGE;
  tableIpa1 = NO_PAGE;
  tableIpa2 = NO_PAGE;
  tableIpa3 = NO_PAGE;
}

export function knownTable(level: u32): u64 {
  return select<u64>(
    select<u64>(tableIpa0, tableIpa1, level == 0),
    select<u64>(tableIpa2, tableIpa3, level == 2),
    level < 2,
  );
}

export function knownPlace(level: u32): u64 {
  return select<u64>(
    select<u64>(tablePa0, tablePa1, level == 0),
    select<u64>(tablePa2, tablePa3, level == 2),
    level < 2,
  );
}

/** @param slot  of a descriptor, which stage 2 puts at @param place */
export function rememberTable(level: u32, slot: u64, place: u64): void {
  const page = slot & ~0xfff;
  const pa = place & ~0xfff;
  if (level == 0) {
    tableIpa0 = page;
    tablePa0 = pa;
  } else if (level == 1) {
    tableIpa1 = page;
    tablePa1 = pa;
  } else if (level == 2) {
    tableIpa2 = page;
    tablePa2 = pa;
  } else {
    tableIpa3 = page;
    tablePa3 = pa;
  }
}

/** Log2 of the size of a leaf with the contiguous bit, 4 KiB granule. */
function quickLg2(leaf: u64, shift: u64, input: u64, inputBits: u32, outputBits: u32, both: u32): u32 {
  if (dirtyByHardware(quickFlags, leaf, both)) return u32(shift);
  return u32(groupLg2(12, 1, shift, leaf & ADDRESS, input, inputBits, outputBits));
}

// A place is an offset in RAM and, from bit 32 on, the shift of its level; 0: the full walk is to look.
const LAST_LEVEL: u64 = (<u64>12) << 32;

function inTable(table: u64, input: u64): u64 {
  return table + ((input >> 9) & 0xff8);
}

/** Fetches what a place names, as far as the cache. @returns what it was, of no meaning by then */
export function touch(place: u64): u64 {
  return load<u64>(<usize>ramLinear + u32(place));
}

/** Of stage 2 with the 4 KiB granule. */
export function placeOfStage2(ipa: u64): u64 {
  return ipa >> TABLE_SHIFT == lastTable2 ? LAST_LEVEL | inTable(lastPlace2, ipa) : findPlaceOfStage2(ipa);
}

function findPlaceOfStage2(ipa: u64): u64 {
  let shift = quickShift2;
  if (shift == 0 || ipa >> u64(quickInput2) != 0) return 0;
  const base = ramBase;
  const last = ramLastWord;
  const linear = <usize>ramLinear;
  let offset = quickRoot2 + ((ipa >> shift) << 3) - base;
  let seen: u64 = 0;
  while (offset <= last) {
    if (shift == 12) break;
    schedulePoint(OP_LOAD, linear + u32(offset));
    const descriptor = atomic.load<u64>(linear + u32(offset));
    if ((descriptor & 3) != 3) break;
    seen |= descriptor;
    shift -= 9;
    offset = (descriptor & ADDRESS) + (((ipa >> shift) & 511) << 3) - base;
  }
  if (offset > last || (seen & quickBeyond2) != 0) return 0;
  if (shift == 12) {
    lastTable2 = ipa >> TABLE_SHIFT;
    lastPlace2 = offset - inTable(0, ipa);
  }
  return (shift << 32) | offset;
}

/** Of stage 1. */
export function placeOfStage1(iova: u64): u64 {
  return iova >> TABLE_SHIFT == lastTable1 ? LAST_LEVEL | inTable(lastPlace1, iova) : findPlaceOfStage1(iova);
}

function findPlaceOfStage1(iova: u64): u64 {
  let shift = quickShift1;
  if (shift == 0 || iova >> u64(quickInput1) != 0) return 0;
  const base = ramBase;
  const last = ramLastWord;
  const linear = <usize>ramLinear;
  let offset = quickRoot1 + ((iova >> shift) << 3) - base;
  let hierarchy: u64 = 0;
  while (offset <= last) {
    if (shift == 12) break;
    schedulePoint(OP_LOAD, linear + u32(offset));
    const descriptor = atomic.load<u64>(linear + u32(offset));
    if ((descriptor & 3) != 3) break;
    hierarchy |= descriptor;
    shift -= 9;
    offset = (descriptor & ADDRESS) + (((iova >> shift) & 511) << 3) - base;
  }
  return offset <= last && (hierarchy & quickRefused1) == 0 ? foundPlace1(iova, shift, offset) : 0;
}

/** Of stage 1, each table reached through stage 2. */
export function placeOfNested1(context: usize, iova: u64): u64 {
  return iova >> TABLE_SHIFT == lastTable1
    ? LAST_LEVEL | inTable(lastPlace1, iova)
    : findPlaceOfNested1(context, iova);
}

function findPlaceOfNested1(context: usize, iova: u64): u64 {
  let shift = quickShift1;
  if (shift == 0 || iova >> u64(quickInput1) != 0) return 0;
  const base = ramBase;
  const last = ramLastWord;
  const linear = <usize>ramLinear;
  let level = quickLevel1;
  let slot = quickRoot1 + ((iova >> shift) << 3);
  let hierarchy: u64 = 0;
  let offset: u64 = 0;
  for (;;) {
    if (knownTable(level) == (slot & ~0xfff)) {
      offset = (knownPlace(level) | (slot & 0xfff)) - base;
    } else {
      // Not the full stage 2: it may set the Access flag, before its turn.
      if (!quickStage2(context, slot, R | TABLE)) return 0;
      rememberTable(level, slot, shortPa);
      offset = shortPa - base;
    }
    if (offset > last) return 0;
    if (shift == 12) break;
    schedulePoint(OP_LOAD, linear + u32(offset));
    const descriptor = atomic.load<u64>(linear + u32(offset));
    if ((descriptor & 3) != 3) break;
    hierarchy |= descriptor;
    shift -= 9;
    level++;
    slot = (descriptor & ADDRESS) + (((iova >> shift) & 511) << 3);
  }
  return (hierarchy & quickRefused1) == 0 ? foundPlace1(iova, shift, offset) : 0;
}

function foundPlace1(iova: u64, shift: u64, offset: u64): u64 {
  if (shift == 12) {
    lastTable1 = iova >> TABLE_SHIFT;
    lastPlace1 = offset - inTable(0, iova);
  }
  return (shift << 32) | offset;
}

/**
 * The end of a short walk of stage 2.
 * @param need  R or W, and perhaps TABLE
 * @returns whether the descriptor allows the access: sets short*. If not, the full walk says why.
 */
export function endStage2(context: usize, ipa: u64, need: u32, place: u64): bool {
  if (place == 0) return false;
  const shift = place >> 32;
  schedulePoint(OP_LOAD, <usize>ramLinear + u32(place));
  const descriptor = atomic.load<u64>(<usize>ramLinear + u32(place));
  const below = ((<u64>1) << shift) - 1;
  const type: u64 = shift == 12 ? 3 : 1;
  const address = descriptor & ADDRESS & ~below;
  if (((descriptor & (AF | 3)) != (AF | type)) | (shift > 30) | ((address & quickBeyond2) != 0)) return false;
  const permissions = (u32(descriptor >> 6) & 3) << 1;
  if ((need & PERMISSIONS & ~permissions) != 0) return false;
  if ((need & TABLE) != 0 && (descriptor & MEMATTR_HIGH) == 0) return false;
  shortPa = address | (ipa & below);
  shortLg2 = u32(shift);
  if ((descriptor & CONTIGUOUS) != 0) {
    const outputBits = load<u32>(context, CONTEXT_S2_OUTPUT_BITS);
    shortLg2 = quickLg2(descriptor, shift, ipa, quickInput2, outputBits, HA_HD_S2);
  }
  shortBits = permissions;
  return true;
}

/** The end of one of stage 1, for unprivileged data. */
export function endStage1(context: usize, iova: u64, need: u32, place: u64): bool {
  if (place == 0) return false;
  const shift = place >> 32;
  schedulePoint(OP_LOAD, <usize>ramLinear + u32(place));
  const descriptor = atomic.load<u64>(<usize>ramLinear + u32(place));
  const below = ((<u64>1) << shift) - 1;
  const type: u64 = shift == 12 ? 3 : 1;
  const address = descriptor & ADDRESS & ~below;
  if (
    ((descriptor & (AF | AP_UNPRIVILEGED | 3)) != (AF | AP_UNPRIVILEGED | type)) |
    (shift > 30) |
    ((address & quickBeyond1) != 0)
  )
    return false;
  const permissions = (descriptor & AP_READ_ONLY) == 0 ? R | W : R;
  if ((need & ~permissions) != 0) return false;
  shortPa = address | (iova & below);
  shortLg2 = u32(shift);
  if ((descriptor & CONTIGUOUS) != 0) {
    const outputBits = load<u32>(context, CONTEXT_S1_OUTPUT_BITS);
    shortLg2 = quickLg2(descriptor, shift, iova, quickInput1, outputBits, HA_HD_S1);
  }
  shortBits = permissions | select<u32>(G, 0, (descriptor & NG) == 0);
  return true;
}

export function quickStage2(context: usize, ipa: u64, need: u32): bool {
  return endStage2(context, ipa, need, placeOfStage2(ipa));
}
