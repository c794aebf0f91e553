/**
 * Page-table walks as the SMMU makes them: AArch64 VMSAv8-64, 4 KiB granule, stage 1 (TTB0), stage 2, and
 * nested, where every stage-1 table access goes through stage 2 ([DDI0487] D8.2, D8.3; [IHI0070] 3.4, 7.3).
 * Faults are named by SMMU event number.
 *
 * Every transaction counts as unprivileged data: XN, PXN and privileged-only permissions play no part.
 * Not modelled: 16 KiB and 64 KiB granules, 52-bit addresses, contiguous hints (each entry stands for itself),
 * TTB1, hardware update of access and dirty flags, memory types.
 */
import { fill, find, hitFillSeq, hitIpaPage, hitPa, hitWord, nextFillSeq } from './iotlb';
import {
  CLASS_CD,
  CLASS_IN,
  CLASS_TTD,
  CONTEXT_ABORT,
  CONTEXT_BYPASS,
  CONTEXT_FLAG_S1_AF_FAULT,
  CONTEXT_FLAG_S2_AF_FAULT,
  CONTEXT_FLAGS,
  CONTEXT_KIND,
  CONTEXT_NESTED,
  CONTEXT_S1,
  CONTEXT_S1_INPUT_BITS,
  CONTEXT_S1_OUTPUT_BITS,
  CONTEXT_S1_ROOT,
  CONTEXT_S1_START_LEVEL,
  CONTEXT_S2,
  CONTEXT_S2_INPUT_BITS,
  CONTEXT_S2_OUTPUT_BITS,
  CONTEXT_S2_ROOT,
  CONTEXT_S2_START_LEVEL,
  CONTEXT_TAG,
  F_ACCESS,
  F_ADDR_SIZE,
  F_PERMISSION,
  F_TRANSLATION,
  F_WALK_EABT,
  XLAT_ABORT,
  XLAT_BYTES,
  XLAT_FAULT,
  XLAT_FAULT_CLASS_SHIFT,
  XLAT_FAULT_S2,
  XLAT_FILL_SEQ,
  XLAT_FLAG_WRITE,
  XLAT_FLAGS,
  XLAT_FROM_BYPASS,
  XLAT_FROM_IOTLB,
  XLAT_FROM_WALK,
  XLAT_IOVA,
  XLAT_IPA,
  XLAT_LEVEL,
  XLAT_OK,
  XLAT_PA,
  XLAT_SIZE_LG2,
  XLAT_SOURCE,
  XLAT_STATUS,
} from './layout';
import { ramWord, schedulePoint } from './machine';

/** Next-level table or output address in a descriptor. */
export const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
export const AF: u64 = 1 << 10;
const NG: u64 = 1 << 11;
/** Stage 1, AP[1]: unprivileged access; AP[2]: read-only. APTable[0] and [1] take the same away below. */
const AP_UNPRIVILEGED: u64 = 1 << 6;
const AP_READ_ONLY: u64 = 1 << 7;
const AP_TABLE_PRIVILEGED: u64 = 1 << 61;
const AP_TABLE_READ_ONLY: u64 = 1 << 62;

/** Permissions as they stand in an IOTLB page word. */
const R: u32 = 2;
const W: u32 = 4;
const GLOBAL: u32 = 8;
const STAGE1: u64 = 16;
const STAGE2: u64 = 32;

// What the last stage of a walk found. Globals, because a function returns one value.
let outPa: u64 = 0;
let outLg2: u32 = 0;
let outBits: u32 = 0;
/** On a fault. */
let outLevel: u32 = 0;
let outFault: u32 = 0;
let outIpa: u64 = 0;
/** Physical address whose fetch was aborted. */
let outFetch: u64 = 0;

function fits(address: u64, bits: u32): bool {
  return bits >= 64 || address >> u64(bits) == 0;
}

/** A root is aligned to its own size, of which the low bits of the register are no part. */
function alignRoot(root: u64, inputBits: u32, startLevel: u32): u64 {
  const lg2 = i32(inputBits) - i32(39 - 9 * startLevel) + 3;
  return lg2 <= 4 ? root & ~0xf : root & ~(((<u64>1) << u64(min(lg2, 16))) - 1);
}

/** Stage 2 of one address. @returns a status; sets outPa, outLg2, outBits, or outLevel (and outFetch) */
function stage2(context: usize, ipa: u64, need: u32): u32 {
  const inputBits = load<u32>(context, CONTEXT_S2_INPUT_BITS);
  const outputBits = load<u32>(context, CONTEXT_S2_OUTPUT_BITS);
  let level = load<u32>(context, CONTEXT_S2_START_LEVEL);
  outLevel = level;
  if (!fits(ipa, inputBits) || level > 3) return F_TRANSLATION;
  let shift = u64(39 - 9 * level);
  // Concatenated roots are one long table: the first index is as wide as the input range makes it.
  let slot = alignRoot(load<u64>(context, CONTEXT_S2_ROOT), inputBits, level) + ((ipa >> shift) << 3);
  let descriptor: u64 = 0;
  for (;;) {
    const word = ramWord(slot);
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
      if (level == 0) return F_TRANSLATION;
      break;
    }
    const table = descriptor & ADDRESS;
    if (!fits(table, outputBits)) return F_ADDR_SIZE;
    level++;
    shift -= 9;
    slot = table + (((ipa >> shift) & 511) << 3);
  }
  const below = ((<u64>1) << shift) - 1;
  const base = descriptor & ADDRESS & ~below;
  if (!fits(base, outputBits)) return F_ADDR_SIZE;
  if ((descriptor & AF) == 0 && (load<u32>(context, CONTEXT_FLAGS) & CONTEXT_FLAG_S2_AF_FAULT) != 0)
    return F_ACCESS;
  const permissions = (u32(descriptor >> 6) & 3) << 1;
  if ((need & ~permissions) != 0) return F_PERMISSION;
  outPa = base | (ipa & below);
  outLg2 = u32(shift);
  outBits = permissions;
  return XLAT_OK;
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

/** Where stage 2 puts a stage-1 descriptor, in outPa. @returns a status */
function tableThroughStage2(context: usize, slot: u64, level: u32): u32 {
  const page = slot & ~0xfff;
  const known = select<u64>(
    select<u64>(tableIpa0, tableIpa1, level == 0),
    select<u64>(tableIpa2, tableIpa3, level == 2),
    level < 2,
  );
  if (known == page) {
    const pa = select<u64>(
      select<u64>(tablePa0, tablePa1, level == 0),
      select<u64>(tablePa2, tablePa3, level == 2),
      level < 2,
    );
    outPa = pa | (slot & 0xfff);
    return XLAT_OK;
  }
  const status = stage2(context, slot, R);
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
 * @returns a status; sets outPa (an IPA when nested), outLg2, outBits, or outFault, outLevel, outIpa, outFetch
 */
function stage1(context: usize, iova: u64, need: u32, nested: bool): u32 {
  const inputBits = load<u32>(context, CONTEXT_S1_INPUT_BITS);
  const outputBits = load<u32>(context, CONTEXT_S1_OUTPUT_BITS);
  let level = load<u32>(context, CONTEXT_S1_START_LEVEL);
  outLevel = level;
  outFault = CLASS_IN << XLAT_FAULT_CLASS_SHIFT;
  outIpa = 0;
  if (!fits(iova, inputBits) || level > 3) return F_TRANSLATION;
  let shift = u64(39 - 9 * level);
  let slot = alignRoot(load<u64>(context, CONTEXT_S1_ROOT), inputBits, level) + ((iova >> shift) << 3);
  let hierarchical: u64 = 0;
  let descriptor: u64 = 0;
  for (;;) {
    let pa = slot;
    if (nested) {
      const status = tableThroughStage2(context, slot, level);
      if (status != XLAT_OK) {
        outFault = XLAT_FAULT_S2 | (CLASS_TTD << XLAT_FAULT_CLASS_SHIFT);
        outIpa = slot;
        return status;
      }
      pa = outPa;
    }
    const word = ramWord(pa);
    outLevel = level;
    if (word == 0) {
      // The class of an aborted stage-1 fetch is the fetch itself, whatever it was for. [IHI0070] 7.3.12
      outFault = CLASS_TTD << XLAT_FAULT_CLASS_SHIFT;
      outFetch = pa;
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
      if (level == 0) return F_TRANSLATION;
      break;
    }
    const table = descriptor & ADDRESS;
    if (!fits(table, outputBits)) return F_ADDR_SIZE;
    hierarchical |= descriptor;
    level++;
    shift -= 9;
    slot = table + (((iova >> shift) & 511) << 3);
  }
  const below = ((<u64>1) << shift) - 1;
  const base = descriptor & ADDRESS & ~below;
  if (!fits(base, outputBits)) return F_ADDR_SIZE;
  if ((descriptor & AF) == 0 && (load<u32>(context, CONTEXT_FLAGS) & CONTEXT_FLAG_S1_AF_FAULT) != 0)
    return F_ACCESS;
  let permissions: u32 = 0;
  if ((descriptor & AP_UNPRIVILEGED) != 0 && (hierarchical & AP_TABLE_PRIVILEGED) == 0) {
    permissions = R;
    if ((descriptor & AP_READ_ONLY) == 0 && (hierarchical & AP_TABLE_READ_ONLY) == 0) permissions |= W;
  }
  if ((need & ~permissions) != 0) return F_PERMISSION;
  outPa = base | (iova & below);
  outLg2 = u32(shift);
  outBits = permissions | select<u32>(GLOBAL, 0, (descriptor & NG) == 0);
  return XLAT_OK;
}

function fail(xlat: usize, status: u32, fillSeq: u32): u32 {
  store<u64>(xlat, status == F_WALK_EABT ? outFetch : 0, XLAT_PA);
  store<u64>(xlat, outIpa, XLAT_IPA);
  store<u32>(xlat, status, XLAT_STATUS);
  store<u32>(xlat, 0, XLAT_SIZE_LG2);
  store<u32>(xlat, fillSeq, XLAT_FILL_SEQ);
  store<u32>(xlat, outFault, XLAT_FAULT);
  store<u32>(xlat, XLAT_FROM_WALK, XLAT_SOURCE);
  store<u32>(xlat, outLevel, XLAT_LEVEL);
  return status;
}

export function succeed(xlat: usize, pa: u64, ipa: u64, sizeLg2: u32, fillSeq: u32, source: u32): void {
  store<u64>(xlat, pa, XLAT_PA);
  store<u64>(xlat, ipa, XLAT_IPA);
  store<u64>(xlat, u64(sizeLg2) << 32, XLAT_STATUS);
  store<u64>(xlat, u64(fillSeq), XLAT_FILL_SEQ);
  store<u64>(xlat, u64(source), XLAT_SOURCE);
}

export function abort(xlat: usize): void {
  succeed(xlat, 0, 0, 0, 0, XLAT_FROM_BYPASS);
  store<u32>(xlat, XLAT_ABORT, XLAT_STATUS);
}

/** Size reported for an address that no table translates: as large as an entry can be. */
export const BYPASS_LG2: u32 = 52;

export function stagesOf(kind: u32): u64 {
  return select<u64>(STAGE1, 0, kind != CONTEXT_S2) | select<u64>(STAGE2, 0, kind != CONTEXT_S1);
}

function one(unit: usize, context: usize, iotlb: usize, xlat: usize): u32 {
  const iova = load<u64>(xlat, XLAT_IOVA);
  const need = select<u32>(W, R, (load<u32>(xlat, XLAT_FLAGS) & XLAT_FLAG_WRITE) != 0);
  const kind = load<u32>(context, CONTEXT_KIND);
  const tag = load<u32>(context, CONTEXT_TAG);
  if (kind == CONTEXT_BYPASS) {
    const bits = load<u32>(context, CONTEXT_S1_OUTPUT_BITS);
    if (bits == 0 || fits(iova, bits)) {
      succeed(xlat, iova, 0, BYPASS_LG2, 0, XLAT_FROM_BYPASS);
      return XLAT_OK;
    }
    outLevel = 0;
    outIpa = 0;
    outFault = CLASS_IN << XLAT_FAULT_CLASS_SHIFT;
    return fail(xlat, F_ADDR_SIZE, 0);
  }
  if (kind == CONTEXT_ABORT || kind > CONTEXT_NESTED) {
    abort(xlat);
    return XLAT_ABORT;
  }
  const stages = stagesOf(kind);
  // An entry that does not permit the access is passed over: the walk then says which stage refuses.
  if (find(unit, iotlb, tag, stages, iova >> 12) != 0 && (u32(hitWord) & need) != 0) {
    const lg2 = u32(hitWord >> 6) & 63;
    const below = ((<u64>1) << u64(lg2)) - 1;
    const ipa = select<u64>(0, (u64(hitIpaPage) << 12) | (iova & below), kind == CONTEXT_S1);
    succeed(xlat, hitPa | (iova & below), ipa, lg2, hitFillSeq, XLAT_FROM_IOTLB);
    return XLAT_OK;
  }
  const fillSeq = nextFillSeq(unit);
  let ipa: u64 = 0;
  let status: u32;
  let bits: u32;
  let lg2: u32;
  if (kind == CONTEXT_S2) {
    ipa = iova;
    status = stage2(context, iova, need);
    if (status != XLAT_OK) {
      outFault = XLAT_FAULT_S2 | (CLASS_IN << XLAT_FAULT_CLASS_SHIFT);
      outIpa = ipa;
      return fail(xlat, status, fillSeq);
    }
    bits = outBits;
    lg2 = outLg2;
  } else {
    status = stage1(context, iova, need, kind == CONTEXT_NESTED);
    if (status != XLAT_OK) return fail(xlat, status, fillSeq);
    bits = outBits;
    lg2 = outLg2;
    if (kind == CONTEXT_NESTED) {
      ipa = outPa;
      status = stage2(context, ipa, need);
      if (status != XLAT_OK) {
        outFault = XLAT_FAULT_S2 | (CLASS_IN << XLAT_FAULT_CLASS_SHIFT);
        outIpa = ipa;
        return fail(xlat, status, fillSeq);
      }
      bits = (bits & outBits) | (bits & GLOBAL);
      lg2 = min(lg2, outLg2);
    }
  }
  fill(unit, iotlb, tag, iova >> 12, outPa, lg2, u64(bits) | stages, u32(ipa >> 12), fillSeq);
  succeed(xlat, outPa, ipa, lg2, fillSeq, XLAT_FROM_WALK);
  return XLAT_OK;
}

export function translate(unit: usize, context: usize, iotlb: usize, xlat: usize): u32 {
  forgetTables();
  return one(unit, context, iotlb, xlat);
}

export function translateBatch(unit: usize, context: usize, iotlb: usize, firstXlat: usize, n: u32): u32 {
  forgetTables();
  let faults: u32 = 0;
  for (let i: u32 = 0; i < n; i++)
    faults += u32(one(unit, context, iotlb, firstXlat + i * XLAT_BYTES) != XLAT_OK);
  return faults;
}

export function translateIpa(context: usize, xlat: usize): u32 {
  const ipa = load<u64>(xlat, XLAT_IOVA);
  const kind = load<u32>(context, CONTEXT_KIND);
  if (kind != CONTEXT_S2 && kind != CONTEXT_NESTED) {
    succeed(xlat, ipa, 0, BYPASS_LG2, 0, XLAT_FROM_BYPASS);
    return XLAT_OK;
  }
  const need = select<u32>(W, R, (load<u32>(xlat, XLAT_FLAGS) & XLAT_FLAG_WRITE) != 0);
  const status = stage2(context, ipa, need);
  if (status != XLAT_OK) {
    outFault = XLAT_FAULT_S2 | (CLASS_CD << XLAT_FAULT_CLASS_SHIFT);
    outIpa = ipa;
    return fail(xlat, status, 0);
  }
  succeed(xlat, outPa, ipa, outLg2, 0, XLAT_FROM_WALK);
  return XLAT_OK;
}
