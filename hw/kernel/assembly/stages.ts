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
 * Tables in memory outside RAM are read, where that memory can be reached (hw/smmuv3/external-walks.ts); an update
 * of theirs by hardware is an external abort.
 *
 * What is mostly the case never comes here: short-walks.ts.
 *
 * Not modelled: LPA2 (DS: 52-bit addresses with 4 and 16 KiB granules, level -1, level-0 blocks), TTB1, small
 * tables (STT), block sizes that BBML would let alias, XNX, memory attributes (but Device memory, for S2PTW).
 */
import {
  AF,
  addressOf,
  alignRoot,
  CONTIGUOUS,
  dirtyByHardware,
  firstBlockLevel,
  fits,
  groupLg2,
  HA_HD_S1,
  HA_HD_S2,
  MEMATTR_HIGH,
  NG,
  S2_WRITE,
} from './descriptors';
import {
  CLASS_IN,
  CLASS_TTD,
  CONTEXT_FLAG_HAD,
  CONTEXT_FLAG_OAS52,
  CONTEXT_FLAG_S1_AF_FAULT,
  CONTEXT_FLAG_S1_HA,
  CONTEXT_FLAG_S2_AF_FAULT,
  CONTEXT_FLAG_S2_HA,
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
import { isExternal, OP_LOAD, OP_RMW, ramWord, schedulePoint } from './machine';
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
  TABLE,
  UNUSUAL,
  W,
} from './permissions';
import {
  knownPlace,
  knownTable,
  quickStage2,
  rememberTable,
  shortBits,
  shortLg2,
  shortPa,
} from './short-walks';

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

/** To be called before the stages of one translation. */
export function beginWalk(): void {
  updateTries = 0;
}

/** Sets what a fault reports. */
export function blame(fault: u32, level: u32, ipa: u64): void {
  outFault = fault;
  outLevel = level;
  outIpa = ipa;
}

/** Hardware update of a descriptor. @returns whether it still was what the walk saw */
function update(word: usize, descriptor: u64, updated: u64): bool {
  schedulePoint(OP_RMW, word);
  return atomic.cmpxchg<u64>(word, descriptor, updated) == descriptor;
}

/** Stage 2, from the start: the descriptor was changed while it was to be updated. */
function stage2Again(context: usize, ipa: u64, need: u32, slot: u64): u32 {
  if (++updateTries < UPDATE_TRIES) return stage2(context, ipa, need);
  outFetch = slot;
  return F_WALK_EABT;
}

/**
 * Stage 2 of one address, by the short walk if that will do.
 * @param need  R, W or X, and perhaps UNUSUAL and TABLE
 * @returns a status; sets outPa, outLg2, outBits, or outLevel (and outFetch)
 */
export function stage2(context: usize, ipa: u64, need: u32): u32 {
  if ((need & UNUSUAL) != 0 || !quickStage2(context, ipa, need)) return fullStage2(context, ipa, need);
  outPa = shortPa;
  outLg2 = shortLg2;
  outBits = shortBits;
  return XLAT_OK;
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
    schedulePoint(OP_LOAD, word);
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
  if (updated != descriptor && (isExternal(word) || !update(word, descriptor, updated)))
    return stage2Again(context, ipa, need, slot);
  outPa = base | (ipa & below);
  outLg2 = u32(shift);
  if ((descriptor & CONTIGUOUS) != 0 && !dirtyByHardware(flags, descriptor, HA_HD_S2))
    outLg2 = u32(groupLg2(granuleLg2, level, shift, base, ipa, inputBits, outputBits));
  outBits = permissions;
  return XLAT_OK;
}

/** Where stage 2 puts a stage-1 descriptor, in outPa. @returns a status */
function tableThroughStage2(context: usize, slot: u64, level: u32): u32 {
  const page = slot & ~0xfff;
  if (knownTable(level) == page) {
    outPa = knownPlace(level) | (slot & 0xfff);
    return XLAT_OK;
  }
  const status = stage2(context, slot, R | TABLE);
  if (status == XLAT_OK) rememberTable(level, slot, outPa);
  return status;
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
    schedulePoint(OP_LOAD, word);
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
    if (isExternal(word)) return abortFetch(pa);
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
