/**
 * The two stages of a walk: AArch64 VMSAv8-64 with 4, 16 and 64 KiB granules, stage 1 (TTB0), stage 2, and
 * stage 1 whose table accesses go through stage 2 ([DDI0487] D8.2, D8.3; [IHI0070] 3.4, 7.3). Faults are named by
 * SMMU event number, and found in the order translation, address size, access flag, permission.
 *
 *   granule   index bits a level   leaves at level      contiguous group, by level
 *   4 KiB     9                    3, 2, 1              16 at 3, 2 and 1
 *   16 KiB    11                   3, 2                 128 at 3, 32 at 2
 *   64 KiB    13                   3, 2, (1 if 52-bit)  32 at 3 and 2
 *
 * The first index is as wide as the input range makes it, which is what concatenated stage-2 roots are. A
 * contiguous group counts as one leaf when its descriptor's own output address is aligned with the input, and it
 * lies inside the input and the output range: then nothing is reached that the one descriptor does not name.
 *
 * Hardware update (HTTU, [DDI0487] D8.5): the Access flag, and the dirty state of a leaf with DBM, change by one
 * 64-bit compare-exchange after everything else allowed the access. An update of a stage-1 descriptor needs
 * write permission in stage 2, where it may mark the table's own page. If the descriptor has changed meanwhile,
 * the walk starts again.
 *
 * Each stage is there twice. The quick one takes the 4 KiB granule and what is mostly the case, says no to the rest
 * and knows nothing of faults; the full one then starts again, and decides.
 *
 * Not modelled: LPA2 (DS: 52-bit addresses with 4 and 16 KiB granules, level -1, level-0 blocks), TTB1, small
 * tables (STT), block sizes that BBML would let alias, XNX, memory attributes (but Device memory, for S2PTW).
 */
import {
  CLASS_IN,
  CLASS_TTD,
  CONTEXT_FLAG_HAD,
  CONTEXT_FLAG_OAS52,
  CONTEXT_FLAG_S1_AF_FAULT,
  CONTEXT_FLAG_S1_HA,
  CONTEXT_FLAG_S1_HD,
  CONTEXT_FLAG_S2_AF_FAULT,
  CONTEXT_FLAG_S2_HA,
  CONTEXT_FLAG_S2_HD,
  CONTEXT_FLAG_S2_PTW,
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
  F_ACCESS,
  F_ADDR_SIZE,
  F_PERMISSION,
  F_TRANSLATION,
  F_WALK_EABT,
  XLAT_FAULT_CLASS_SHIFT,
  XLAT_FAULT_S2,
  XLAT_FAULT_TABLE_WRITE,
  XLAT_OK,
} from './layout';
import { ramBase, ramLastWord, ramLinear, ramWord, schedulePoint } from './machine';
import {
  AP_READ_ONLY,
  AP_TABLE_PRIVILEGED,
  AP_TABLE_READ_ONLY,
  AP_UNPRIVILEGED,
  G,
  onePrivilege,
  PERMISSIONS,
  PRIVILEGED,
  R,
  stage1Permissions,
  stage2Permissions,
  UNUSUAL,
  W,
} from './permissions';

/** Next-level table or output address in a descriptor, bits 47:12. */
export const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
export const AF: u64 = 1 << 10;
const NG: u64 = 1 << 11;
const DBM: u64 = 1 << 51;
const CONTIGUOUS: u64 = 1 << 52;
/** Bits 51:48 of an address, as a descriptor of a 64 KiB granule holds them. */
const HIGH_ADDRESS: u64 = 0xf000;
const HIGH_ADDRESS_SHIFT: u64 = 36;
/** Stage 2: S2AP[1], and MemAttr[3:2], which is 0 for Device memory, with S2FWB or without. */
const S2_WRITE: u64 = 1 << 7;
const MEMATTR_HIGH: u64 = 3 << 4;

/** An access of stage 2 that fetches a descriptor or a CD. */
export const TABLE: u32 = 128;

/** Descriptors that changed under an update, before the walk gives up with an external abort. */
const UPDATE_TRIES: u32 = 1000;

// What the last stage of a walk found. Globals, because a function returns one value.
export let outPa: u64 = 0;
export let outLg2: u32 = 0;
/** READ, WRITE (in stage 1: and global) as they stand in an IOTLB page word; EXECUTE too of an unusual access. */
export let outBits: u32 = 0;
/** On a fault. */
export let outLevel: u32 = 0;
export let outFault: u32 = 0;
export let outIpa: u64 = 0;
/** Physical address whose fetch was aborted. */
export let outFetch: u64 = 0;

let updateTries: u32 = 0;

export function fits(address: u64, bits: u32): bool {
  return bits >= 64 || address >> u64(bits) == 0;
}

/** To be called before the stages of one translation. */
export function beginWalk(): void {
  updateTries = 0;
}

// What the short walks need of a context, worked out once a batch. The shift of the first level is 0 for a stage
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
  forgetTables();
}

/** Sets what a fault reports. */
export function blame(fault: u32, level: u32, ipa: u64): void {
  outFault = fault;
  outLevel = level;
  outIpa = ipa;
}

/** A root is aligned to its own size, of which the low bits of the register are no part. */
function alignRoot(root: u64, inputBits: u32, shift: u64): u64 {
  const lg2 = u64(inputBits) - shift + 3;
  return lg2 <= 4 ? root & ~0xf : root & ~(((<u64>1) << lg2) - 1);
}

/** @param wide  64 KiB granule of an SMMU with 52-bit addresses */
function addressOf(descriptor: u64, wide: bool): u64 {
  let address = descriptor & ADDRESS;
  if (wide) address = (address & ~HIGH_ADDRESS) | ((descriptor & HIGH_ADDRESS) << HIGH_ADDRESS_SHIFT);
  return address;
}

/** Highest level, as the smallest number, at which a block may stand. */
function firstBlockLevel(granuleLg2: u32, wide: bool): u32 {
  return granuleLg2 == 12 ? 1 : 2 - u32(wide);
}

/** Log2 of the size that a leaf with the contiguous bit stands for. */
function groupLg2(
  granuleLg2: u32,
  level: u32,
  leafLg2: u64,
  base: u64,
  input: u64,
  inputBits: u32,
  outputBits: u32,
): u64 {
  let more: u64;
  if (granuleLg2 == 12) more = 4;
  else if (granuleLg2 == 14) more = level == 3 ? 7 : 5;
  else more = level == 1 ? 0 : 5;
  const lg2 = leafLg2 + more;
  const place = (((<u64>1) << more) - 1) << leafLg2;
  return lg2 <= u64(min(inputBits, outputBits)) && ((base ^ input) & place) == 0 ? lg2 : leafLg2;
}

/** Hardware update of a descriptor. @returns whether it still was what the walk saw */
function update(word: usize, descriptor: u64, updated: u64): bool {
  schedulePoint();
  return atomic.cmpxchg<u64>(word, descriptor, updated) == descriptor;
}

/** Log2 of the size of a leaf with the contiguous bit, 4 KiB granule. */
function quickLg2(leaf: u64, shift: u64, input: u64, inputBits: u32, outputBits: u32, both: u32): u32 {
  if (dirtyByHardware(quickFlags, leaf, both)) return u32(shift);
  return u32(groupLg2(12, 1, shift, leaf & ADDRESS, input, inputBits, outputBits));
}

/**
 * Stage 2 with the 4 KiB granule, when all is as it mostly is.
 * @param need  R or W, and perhaps TABLE
 * @returns whether it came to an end that allows the access: sets what `stage2` does. If not, that one says why.
 */
export function quickStage2(context: usize, ipa: u64, need: u32): bool {
  let shift = quickShift2;
  if (shift == 0 || ipa >> u64(quickInput2) != 0) return false;
  const base = ramBase;
  const last = ramLastWord;
  const linear = <usize>ramLinear;
  let offset = quickRoot2 + ((ipa >> shift) << 3) - base;
  let seen: u64 = 0;
  let descriptor: u64 = 0;
  for (;;) {
    if (offset > last) return false;
    schedulePoint();
    descriptor = atomic.load<u64>(linear + u32(offset));
    if (((descriptor & 3) != 3) | (shift == 12)) break;
    seen |= descriptor;
    shift -= 9;
    offset = (descriptor & ADDRESS) + (((ipa >> shift) & 511) << 3) - base;
  }
  const below = ((<u64>1) << shift) - 1;
  const type: u64 = shift == 12 ? 3 : 1;
  const address = descriptor & ADDRESS & ~below;
  if (
    ((descriptor & (AF | 3)) != (AF | type)) |
    (shift > 30) |
    ((((seen & ADDRESS) | address) & quickBeyond2) != 0)
  )
    return false;
  const permissions = (u32(descriptor >> 6) & 3) << 1;
  if ((need & PERMISSIONS & ~permissions) != 0) return false;
  if ((need & TABLE) != 0 && (descriptor & MEMATTR_HIGH) == 0) return false;
  outPa = address | (ipa & below);
  outLg2 = u32(shift);
  if ((descriptor & CONTIGUOUS) != 0) {
    const outputBits = load<u32>(context, CONTEXT_S2_OUTPUT_BITS);
    outLg2 = quickLg2(descriptor, shift, ipa, quickInput2, outputBits, HA_HD_S2);
  }
  outBits = permissions;
  return true;
}

/** Stage 1 likewise, of unprivileged data. */
export function quickStage1(context: usize, iova: u64, need: u32): bool {
  let shift = quickShift1;
  if (shift == 0 || iova >> u64(quickInput1) != 0) return false;
  const base = ramBase;
  const last = ramLastWord;
  const linear = <usize>ramLinear;
  let offset = quickRoot1 + ((iova >> shift) << 3) - base;
  let hierarchy: u64 = 0;
  let descriptor: u64 = 0;
  for (;;) {
    if (offset > last) return false;
    schedulePoint();
    descriptor = atomic.load<u64>(linear + u32(offset));
    if (((descriptor & 3) != 3) | (shift == 12)) break;
    hierarchy |= descriptor;
    shift -= 9;
    offset = (descriptor & ADDRESS) + (((iova >> shift) & 511) << 3) - base;
  }
  return quickLeaf1(context, iova, need, descriptor, hierarchy, shift);
}

/** The same with each table reached through stage 2. */
export function quickNested1(context: usize, iova: u64, need: u32): bool {
  let shift = quickShift1;
  if (shift == 0 || iova >> u64(quickInput1) != 0) return false;
  const base = ramBase;
  const last = ramLastWord;
  const linear = <usize>ramLinear;
  let level = quickLevel1;
  let slot = quickRoot1 + ((iova >> shift) << 3);
  let hierarchy: u64 = 0;
  let descriptor: u64 = 0;
  for (;;) {
    let offset: u64;
    // What tableThroughStage2 begins with, without the call.
    if (knownTable(level) == (slot & ~0xfff)) {
      offset = (knownPlace(level) | (slot & 0xfff)) - base;
    } else {
      if (tableThroughStage2(context, slot, level) != XLAT_OK) return false;
      offset = outPa - base;
    }
    if (offset > last) return false;
    schedulePoint();
    descriptor = atomic.load<u64>(linear + u32(offset));
    if (((descriptor & 3) != 3) | (shift == 12)) break;
    hierarchy |= descriptor;
    shift -= 9;
    level++;
    slot = (descriptor & ADDRESS) + (((iova >> shift) & 511) << 3);
  }
  return quickLeaf1(context, iova, need, descriptor, hierarchy, shift);
}

function quickLeaf1(context: usize, iova: u64, need: u32, descriptor: u64, hierarchy: u64, shift: u64): bool {
  const below = ((<u64>1) << shift) - 1;
  const type: u64 = shift == 12 ? 3 : 1;
  const address = descriptor & ADDRESS & ~below;
  if (
    ((descriptor & (AF | AP_UNPRIVILEGED | 3)) != (AF | AP_UNPRIVILEGED | type)) |
    (shift > 30) |
    ((((hierarchy & ADDRESS) | address) & quickBeyond1) != 0) |
    ((hierarchy & (AP_TABLE_PRIVILEGED | AP_TABLE_READ_ONLY)) != 0)
  )
    return false;
  const permissions = (descriptor & AP_READ_ONLY) == 0 ? R | W : R;
  if ((need & ~permissions) != 0) return false;
  outPa = address | (iova & below);
  outLg2 = u32(shift);
  if ((descriptor & CONTIGUOUS) != 0) {
    const outputBits = load<u32>(context, CONTEXT_S1_OUTPUT_BITS);
    outLg2 = quickLg2(descriptor, shift, iova, quickInput1, outputBits, HA_HD_S1);
  }
  outBits = permissions | select<u32>(G, 0, (descriptor & NG) == 0);
  return true;
}

/** Stage 2, from the start: the descriptor was changed while it was to be updated. */
function stage2Again(context: usize, ipa: u64, need: u32, slot: u64): u32 {
  if (++updateTries < UPDATE_TRIES) return stage2(context, ipa, need);
  outFetch = slot;
  return F_WALK_EABT;
}

/**
 * Stage 2 of one address.
 * @param need  R, W or X, and perhaps UNUSUAL and TABLE
 * @returns a status; sets outPa, outLg2, outBits, or outLevel (and outFetch)
 */
export function stage2(context: usize, ipa: u64, need: u32): u32 {
  if ((need & UNUSUAL) == 0 && quickStage2(context, ipa, need)) return XLAT_OK;
  return fullStage2(context, ipa, need);
}

function fullStage2(context: usize, ipa: u64, need: u32): u32 {
  const flags = load<u32>(context, CONTEXT_FLAGS);
  const inputBits = load<u32>(context, CONTEXT_S2_INPUT_BITS);
  const outputBits = load<u32>(context, CONTEXT_S2_OUTPUT_BITS);
  const granuleLg2 = load<u32>(context, CONTEXT_S2_GRANULE_LG2);
  const wide = (granuleLg2 == 16) & ((flags & CONTEXT_FLAG_OAS52) != 0);
  const stride = granuleLg2 - 3;
  const indexMask = ((<u64>1) << u64(stride)) - 1;
  const pageMask = ~(((<u64>1) << u64(granuleLg2)) - 1);
  let level = load<u32>(context, CONTEXT_S2_START_LEVEL);
  outLevel = level;
  if (!fits(ipa, inputBits) || level > 3) return F_TRANSLATION;
  let shift = u64(granuleLg2 + stride * (3 - level));
  let slot = alignRoot(load<u64>(context, CONTEXT_S2_ROOT), inputBits, shift) + ((ipa >> shift) << 3);
  let descriptor: u64 = 0;
  let word: usize = 0;
  for (;;) {
    word = ramWord(slot);
    outLevel = level;
    if (word == 0) {
      outFetch = slot;
      return F_WALK_EABT;
    }
    schedulePoint();
    descriptor = atomic.load<u64>(word);
    if ((descriptor & 1) == 0) return F_TRANSLATION;
    if (level == 3) {
      if ((descriptor & 2) == 0) return F_TRANSLATION;
      break;
    }
    if ((descriptor & 2) == 0) {
      if (level < firstBlockLevel(granuleLg2, wide)) return F_TRANSLATION;
      break;
    }
    const table = addressOf(descriptor, wide) & pageMask;
    if (!fits(table, outputBits)) return F_ADDR_SIZE;
    level++;
    shift -= u64(stride);
    slot = table + (((ipa >> shift) & indexMask) << 3);
  }
  const below = ((<u64>1) << shift) - 1;
  const base = addressOf(descriptor, wide) & ~below;
  if (!fits(base, outputBits)) return F_ADDR_SIZE;
  let updated = descriptor;
  if ((descriptor & AF) == 0) {
    if ((flags & CONTEXT_FLAG_S2_HA) != 0) updated |= AF;
    else if ((flags & CONTEXT_FLAG_S2_AF_FAULT) != 0) return F_ACCESS;
  }
  let permissions = (u32(descriptor >> 6) & 3) << 1;
  if ((need & UNUSUAL) != 0) permissions = stage2Permissions(descriptor);
  if ((need & PERMISSIONS & ~permissions) != 0) {
    if ((need & PERMISSIONS & ~permissions) != W || !dirtyByHardware(flags, descriptor, HA_HD_S2))
      return F_PERMISSION;
    updated |= S2_WRITE;
    permissions |= W;
  }
  if ((need & TABLE) != 0 && (flags & CONTEXT_FLAG_S2_PTW) != 0 && (descriptor & MEMATTR_HIGH) == 0)
    return F_PERMISSION;
  if (updated != descriptor && !update(word, descriptor, updated))
    return stage2Again(context, ipa, need, slot);
  outPa = base | (ipa & below);
  outLg2 = u32(shift);
  if ((descriptor & CONTIGUOUS) != 0 && !dirtyByHardware(flags, descriptor, HA_HD_S2))
    outLg2 = u32(groupLg2(granuleLg2, level, shift, base, ipa, inputBits, outputBits));
  outBits = permissions;
  return XLAT_OK;
}

const HA_HD_S1: u32 = CONTEXT_FLAG_S1_HA | CONTEXT_FLAG_S1_HD;
const HA_HD_S2: u32 = CONTEXT_FLAG_S2_HA | CONTEXT_FLAG_S2_HD;

/**
 * Whether the leaf's dirty state is hardware's (HD counts only with HA). Such a leaf never stands for its
 * contiguous group: a write must mark the page it is for.
 */
function dirtyByHardware(flags: u32, descriptor: u64, both: u32): bool {
  return ((flags & both) == both) & ((descriptor & DBM) != 0);
}

// A walk cache that lives as long as one batch: for each level of stage 1, the last table page and where
// stage 2 put it. No command is processed within a batch, so nothing can be stale; the next batch starts empty.
const NO_PAGE: u64 = 0xffff_ffff_ffff_ffff;
let tableIpa0: u64 = NO_PAGE;
let tableIpa1: u64 = NO_PAGE;
let tableIpa2: u64 = NO_PAGE;
let tableIpa3: u64 = NO_PAGE;
let tablePa0: u64 = 0;
let tablePa1: u64 = 0;
let tablePa2: u64 = 0;
let tablePa3: u64 = 0;

function forgetTables(): void {
  tableIpa0 = NO_PAGE;
  tableIpa1 = NO_PAGE;
  tableIpa2 = NO_PAGE;
  tableIpa3 = NO_PAGE;
}

function knownTable(level: u32): u64 {
  return select<u64>(
    select<u64>(tableIpa0, tableIpa1, level == 0),
    select<u64>(tableIpa2, tableIpa3, level == 2),
    level < 2,
  );
}

function knownPlace(level: u32): u64 {
  return select<u64>(
    select<u64>(tablePa0, tablePa1, level == 0),
    select<u64>(tablePa2, tablePa3, level == 2),
    level < 2,
  );
}

/** Where stage 2 puts a stage-1 descriptor, in outPa. @returns a status */
function tableThroughStage2(context: usize, slot: u64, level: u32): u32 {
  const page = slot & ~0xfff;
  if (knownTable(level) == page) {
    outPa = knownPlace(level) | (slot & 0xfff);
    return XLAT_OK;
  }
  const status = stage2(context, slot, R | TABLE);
  if (status != XLAT_OK) return status;
  const pa = outPa & ~0xfff;
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
  return XLAT_OK;
}

/**
 * Stage 1 of one address; `nested` sends its table accesses through stage 2.
 * @param need  R, W or X, and perhaps UNUSUAL and PRIVILEGED
 * @returns a status; sets outPa (an IPA when nested), outLg2, outBits, or outFault, outLevel, outIpa, outFetch
 */
export function stage1(context: usize, iova: u64, need: u32, nested: bool): u32 {
  const flags = load<u32>(context, CONTEXT_FLAGS);
  const inputBits = load<u32>(context, CONTEXT_S1_INPUT_BITS);
  const outputBits = load<u32>(context, CONTEXT_S1_OUTPUT_BITS);
  const granuleLg2 = load<u32>(context, CONTEXT_S1_GRANULE_LG2);
  const wide = (granuleLg2 == 16) & ((flags & CONTEXT_FLAG_OAS52) != 0);
  const stride = granuleLg2 - 3;
  const indexMask = ((<u64>1) << u64(stride)) - 1;
  const pageMask = ~(((<u64>1) << u64(granuleLg2)) - 1);
  let level = load<u32>(context, CONTEXT_S1_START_LEVEL);
  outLevel = level;
  outFault = CLASS_IN << XLAT_FAULT_CLASS_SHIFT;
  outIpa = 0;
  if (!fits(iova, inputBits) || level > 3) return F_TRANSLATION;
  let shift = u64(granuleLg2 + stride * (3 - level));
  let slot = alignRoot(load<u64>(context, CONTEXT_S1_ROOT), inputBits, shift) + ((iova >> shift) << 3);
  let hierarchy: u64 = 0;
  let descriptor: u64 = 0;
  let word: usize = 0;
  let pa: u64 = 0;
  for (;;) {
    pa = slot;
    if (nested) {
      const status = tableThroughStage2(context, slot, level);
      if (status != XLAT_OK) {
        outFault = XLAT_FAULT_S2 | (CLASS_TTD << XLAT_FAULT_CLASS_SHIFT);
        outIpa = slot;
        return status;
      }
      pa = outPa;
    }
    word = ramWord(pa);
    outLevel = level;
    if (word == 0) return abortFetch(pa);
    schedulePoint();
    descriptor = atomic.load<u64>(word);
    if ((descriptor & 1) == 0) return F_TRANSLATION;
    if (level == 3) {
      if ((descriptor & 2) == 0) return F_TRANSLATION;
      break;
    }
    if ((descriptor & 2) == 0) {
      if (level < firstBlockLevel(granuleLg2, wide)) return F_TRANSLATION;
      break;
    }
    const table = addressOf(descriptor, wide) & pageMask;
    if (!fits(table, outputBits)) return F_ADDR_SIZE;
    hierarchy |= descriptor;
    level++;
    shift -= u64(stride);
    slot = table + (((iova >> shift) & indexMask) << 3);
  }
  const below = ((<u64>1) << shift) - 1;
  const base = addressOf(descriptor, wide) & ~below;
  if (!fits(base, outputBits)) return F_ADDR_SIZE;
  if ((flags & CONTEXT_FLAG_HAD) != 0) hierarchy = 0;
  let updated = descriptor;
  if ((descriptor & AF) == 0) {
    if ((flags & CONTEXT_FLAG_S1_HA) != 0) updated |= AF;
    else if ((flags & CONTEXT_FLAG_S1_AF_FAULT) != 0) return F_ACCESS;
  }
  let permissions: u32 = 0;
  if (
    (need & UNUSUAL) == 0 &&
    (descriptor & AP_UNPRIVILEGED) != 0 &&
    (hierarchy & AP_TABLE_PRIVILEGED) == 0
  ) {
    permissions = R;
    if ((descriptor & AP_READ_ONLY) == 0 && (hierarchy & AP_TABLE_READ_ONLY) == 0) permissions |= W;
  }
  if ((need & PERMISSIONS & ~permissions) != 0) {
    const dirtiable = dirtyByHardware(flags, descriptor, HA_HD_S1);
    // What hardware may make writable counts as writable.
    const leaf = select<u64>(descriptor & ~AP_READ_ONLY, descriptor, dirtiable);
    permissions = stage1Permissions(context, leaf, hierarchy, (need & PRIVILEGED) != 0);
    if ((need & PERMISSIONS & ~permissions) != 0) return F_PERMISSION;
    if (dirtiable && (need & W) != 0) updated &= ~AP_READ_ONLY;
    // Until it is made so, a write must come here again.
    if ((updated & AP_READ_ONLY) != 0) permissions &= ~W;
  }
  if (updated != descriptor) {
    if (nested) {
      const status = stage2(context, slot, W | TABLE);
      if (status != XLAT_OK) {
        outFault = XLAT_FAULT_S2 | (CLASS_TTD << XLAT_FAULT_CLASS_SHIFT) | XLAT_FAULT_TABLE_WRITE;
        outIpa = slot;
        return status;
      }
      pa = outPa;
      word = ramWord(pa);
      outLevel = level;
      if (word == 0) return abortFetch(pa);
    }
    if (!update(word, descriptor, updated)) {
      if (++updateTries < UPDATE_TRIES) return stage1(context, iova, need, nested);
      return abortFetch(pa);
    }
  }
  outPa = base | (iova & below);
  outLg2 = u32(shift);
  if ((descriptor & CONTIGUOUS) != 0 && !dirtyByHardware(flags, descriptor, HA_HD_S1))
    outLg2 = u32(groupLg2(granuleLg2, level, shift, base, iova, inputBits, outputBits));
  // nG means nothing where there are no ASIDs.
  outBits = permissions | select<u32>(G, 0, (descriptor & NG) == 0 && !onePrivilege(context));
  return XLAT_OK;
}

/** The class of an aborted stage-1 fetch is the fetch itself, whatever it was for. [IHI0070] 7.3.12 */
function abortFetch(pa: u64): u32 {
  outFault = CLASS_TTD << XLAT_FAULT_CLASS_SHIFT;
  outFetch = pa;
  return F_WALK_EABT;
}
