/**
 * Translation as the SMMU makes it: IOTLB, the stages that the StreamContext asks for, fill, answer. [IHI0070] 3.3.
 *
 *   cached     unprivileged data (EL2 without E2H: data): IOTLB first, and the walk fills it
 *   unusual    privileged and instruction accesses, by their own saying or by STE.PRIVCFG and INSTCFG: walked, and
 *              never cached, because an entry knows one privilege's data permissions only; CD.E0PD0 likewise
 *   ATS        a Translation Request: the answer says what is permitted, and a write that is not is no fault
 *   translated the address comes from an ATC: it passes, or (split stage) takes stage 2 alone
 *
 * Whether a stream may send ATS traffic at all is decided before a record comes here ([IHI0070] 3.9).
 */
import { fits } from './descriptors';
import { fill, find, hitFillSeq, hitIpaPage, hitPa, hitWord, nextFillSeq, S1, S2 } from './iotlb';
import {
  CLASS_CD,
  CLASS_IN,
  CONTEXT_ABORT,
  CONTEXT_BYPASS,
  CONTEXT_FLAG_ATS_S1CHK,
  CONTEXT_FLAG_E0PD,
  CONTEXT_FLAG_INSTCFG_SHIFT,
  CONTEXT_FLAG_PRIVCFG_SHIFT,
  CONTEXT_FLAGS,
  CONTEXT_KIND,
  CONTEXT_NESTED,
  CONTEXT_S1,
  CONTEXT_S1_EL2,
  CONTEXT_S1_OUTPUT_BITS,
  CONTEXT_S2,
  CONTEXT_TAG,
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
  XLAT_FLAG_ATS,
  XLAT_FLAG_INSTRUCTION,
  XLAT_FLAG_PRIVILEGED,
  XLAT_FLAG_TRANSLATED,
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
import { G, onePrivilege, PRIVILEGED, R, TABLE, UNUSUAL, W, X } from './permissions';
import {
  endStage1,
  endStage2,
  placeOfNested1,
  placeOfStage1,
  placeOfStage2,
  shortBits,
  shortLg2,
  shortPa,
  touch,
  useContext,
} from './short-walks';
import {
  beginWalk,
  blame,
  outBits,
  outFault,
  outFetch,
  outIpa,
  outLevel,
  outLg2,
  outPa,
  stage1,
  stage2,
} from './stages';

/** STE.PRIVCFG and INSTCFG: the low bit of an override says privileged, or instruction. */
const CFG_OVERRIDE: u32 = 2;
const CFG_MASK: u32 = 3;
/** Contexts some of whose plain-looking transactions are not: bit 0 of the override matters only with bit 1. */
const CONTEXT_FLAGS_UNUSUAL: u32 =
  CONTEXT_FLAG_E0PD |
  (CFG_OVERRIDE << CONTEXT_FLAG_PRIVCFG_SHIFT) |
  (CFG_OVERRIDE << CONTEXT_FLAG_INSTCFG_SHIFT);

/** Walks that go in lockstep: what they fetch, and their records, are to lie in the first cache together. */
const GROUP: u32 = 64;

/** What a `walk` found; on a fault, out* of its last stage say what. */
let walkPa: u64 = 0;
let walkBits: u32 = 0;
let walkLg2: u32 = 0;
let walkIpa: u64 = 0;

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

/** Stage bits of the IOTLB entries of a kind; those of EL2 have none. */
export function stagesOf(kind: u32): u64 {
  if (kind == CONTEXT_S1_EL2) return 0;
  return select<u64>(S1, 0, kind != CONTEXT_S2) | select<u64>(S2, 0, kind != CONTEXT_S1);
}

/** Whether caches serve what looks like unprivileged data: neither overridden, nor refused by E0PD. */
export function cacheable(contextFlags: u32): bool {
  const priv = (contextFlags >> CONTEXT_FLAG_PRIVCFG_SHIFT) & CFG_MASK;
  const inst = (contextFlags >> CONTEXT_FLAG_INSTCFG_SHIFT) & CFG_MASK;
  return (priv != CFG_MASK) & (inst != CFG_MASK) & ((contextFlags & CONTEXT_FLAG_E0PD) == 0);
}

/** Both stages, as the kind asks. @returns a status; sets walk*, or what `fail` reports */
function walk(context: usize, kind: u32, iova: u64, need: u32): u32 {
  return need < UNUSUAL && quickWalk(context, kind, iova, need)
    ? XLAT_OK
    : fullWalk(context, kind, iova, need);
}

/** The short walks. @returns whether they came to an end that allows the access */
function quickWalk(context: usize, kind: u32, iova: u64, need: u32): bool {
  if (kind == CONTEXT_S1) return endWalk(context, kind, iova, need, placeOfStage1(iova));
  if (kind == CONTEXT_S2) return endWalk(context, kind, iova, need, placeOfStage2(iova));
  if (kind != CONTEXT_NESTED || !endStage1(context, iova, need, placeOfNested1(context, iova))) return false;
  walkBits = shortBits;
  walkLg2 = shortLg2;
  return endWalk(context, kind, shortPa, need, placeOfStage2(shortPa));
}

/**
 * The last descriptor of the last stage.
 * @param input  of that stage: an IPA, or the IOVA
 * Nested: walkBits and walkLg2 are those of stage 1.
 */
function endWalk(context: usize, kind: u32, input: u64, need: u32, place: u64): bool {
  if (kind == CONTEXT_S1) {
    if (!endStage1(context, input, need, place)) return false;
    walkPa = shortPa;
    walkIpa = 0;
    walkBits = shortBits;
    walkLg2 = shortLg2;
    return true;
  }
  if (!endStage2(context, input, need, place)) return false;
  walkPa = shortPa;
  walkIpa = input;
  if (kind == CONTEXT_NESTED) {
    walkBits &= shortBits | G;
    walkLg2 = min(walkLg2, shortLg2);
  } else {
    walkBits = shortBits;
    walkLg2 = shortLg2;
  }
  return true;
}

function fullWalk(context: usize, kind: u32, iova: u64, need: u32): u32 {
  let ipa = iova;
  let bits: u32 = ~0;
  let lg2: u32 = 63;
  beginWalk();
  if (kind != CONTEXT_S2) {
    const status = stage1(context, iova, need, kind == CONTEXT_NESTED);
    if (status != XLAT_OK) return status;
    bits = outBits;
    lg2 = outLg2;
    if (kind != CONTEXT_NESTED) {
      walkPa = outPa;
      walkIpa = 0;
      walkBits = bits;
      walkLg2 = lg2;
      return XLAT_OK;
    }
    ipa = outPa;
  }
  const status = stage2(context, ipa, need);
  if (status != XLAT_OK) {
    blame(XLAT_FAULT_S2 | (CLASS_IN << XLAT_FAULT_CLASS_SHIFT), outLevel, ipa);
    return status;
  }
  walkPa = outPa;
  walkIpa = ipa;
  walkBits = (bits & outBits) | (kind == CONTEXT_S2 ? 0 : bits & G);
  walkLg2 = min(lg2, outLg2);
  return XLAT_OK;
}

/** IOTLB, else walk and fill. */
function cached(
  unit: usize,
  context: usize,
  iotlb: usize,
  xlat: usize,
  kind: u32,
  tag: u32,
  iova: u64,
  need: u32,
): u32 {
  const stages = stagesOf(kind);
  // An entry that does not permit the access is passed over: the walk then says which stage refuses.
  if (find(unit, iotlb, tag, stages, iova >> 12) != 0 && (u32(hitWord) & need & (R | W)) != 0) {
    const lg2 = u32(hitWord >> 6) & 63;
    const below = ((<u64>1) << u64(lg2)) - 1;
    const ipa = (u64(hitIpaPage) << 12) | (iova & below);
    const hasIpa = (kind == CONTEXT_S2) | (kind == CONTEXT_NESTED);
    walkBits = u32(hitWord);
    succeed(xlat, hitPa | (iova & below), select<u64>(ipa, 0, hasIpa), lg2, hitFillSeq, XLAT_FROM_IOTLB);
    return XLAT_OK;
  }
  const fillSeq = nextFillSeq(unit);
  const status = walk(context, kind, iova, need);
  if (status != XLAT_OK) return fail(xlat, status, fillSeq);
  const bits = u64(walkBits & (R | W | G)) | stages;
  fill(unit, iotlb, tag, iova >> 12, walkPa, walkLg2, bits, u32(walkIpa >> 12), fillSeq, false);
  succeed(xlat, walkPa, walkIpa, walkLg2, fillSeq, XLAT_FROM_WALK);
  return XLAT_OK;
}

/** The walk alone; with `split`, stage 1 of a nested stream alone. */
function uncached(
  unit: usize,
  context: usize,
  xlat: usize,
  kind: u32,
  iova: u64,
  need: u32,
  split: bool,
): u32 {
  const fillSeq = nextFillSeq(unit);
  let status: u32;
  if (split) {
    beginWalk();
    status = stage1(context, iova, need, true);
    walkPa = outPa;
    walkIpa = outPa;
    walkBits = outBits;
    walkLg2 = outLg2;
  } else {
    status = walk(context, kind, iova, need);
  }
  if (status != XLAT_OK) return fail(xlat, status, fillSeq);
  succeed(xlat, walkPa, walkIpa, walkLg2, fillSeq, XLAT_FROM_WALK);
  return XLAT_OK;
}

/** What a transaction counts as, by its own word or by the STE's: PRIVILEGED, UNUSUAL and X. */
function natureOf(contextFlags: u32, xlatFlags: u32): u32 {
  const privCfg = (contextFlags >> CONTEXT_FLAG_PRIVCFG_SHIFT) & CFG_MASK;
  const instCfg = (contextFlags >> CONTEXT_FLAG_INSTCFG_SHIFT) & CFG_MASK;
  let privileged = (xlatFlags & XLAT_FLAG_PRIVILEGED) != 0;
  let instruction = (xlatFlags & XLAT_FLAG_INSTRUCTION) != 0;
  if ((privCfg & CFG_OVERRIDE) != 0) privileged = privCfg == CFG_MASK;
  if ((instCfg & CFG_OVERRIDE) != 0) instruction = instCfg == CFG_MASK;
  // A write is data. A request for a translation may ask for both.
  if ((xlatFlags & (XLAT_FLAG_WRITE | XLAT_FLAG_ATS)) == XLAT_FLAG_WRITE) instruction = false;
  let nature: u32 = 0;
  if (privileged) nature |= PRIVILEGED | UNUSUAL;
  if (instruction) nature |= X | UNUSUAL;
  return nature;
}

/** A Translation Request: the most that one walk grants of what was asked for. */
function request(
  unit: usize,
  context: usize,
  iotlb: usize,
  xlat: usize,
  kind: u32,
  iova: u64,
  nature: u32,
  xlatFlags: u32,
): u32 {
  const split = (load<u32>(context, CONTEXT_FLAGS) & CONTEXT_FLAG_ATS_S1CHK) != 0 && kind == CONTEXT_NESTED;
  const tag = load<u32>(context, CONTEXT_TAG);
  const how = (nature & ~X) | select<u32>(UNUSUAL, 0, onePrivilege(context));
  let need: u32 = (xlatFlags & XLAT_FLAG_WRITE) != 0 ? W : R;
  let status: u32;
  for (;;) {
    status =
      split || nature != 0
        ? uncached(unit, context, xlat, kind, iova, need | how, split)
        : cached(unit, context, iotlb, xlat, kind, tag, iova, need | how);
    if (status != F_PERMISSION || need == R) break;
    need = R;
  }
  if (status == XLAT_OK) store<u32>(xlat, walkBits & (R | W | G | (nature & X)), XLAT_FAULT);
  return status;
}

/** Everything but plain data of a context that says nothing about it. */
function unusual(unit: usize, context: usize, iotlb: usize, xlat: usize): u32 {
  const iova = load<u64>(xlat, XLAT_IOVA);
  const kind = load<u32>(context, CONTEXT_KIND);
  const contextFlags = load<u32>(context, CONTEXT_FLAGS);
  const xlatFlags = load<u32>(xlat, XLAT_FLAGS);
  if (kind == CONTEXT_ABORT || kind > CONTEXT_S1_EL2) {
    abort(xlat);
    return XLAT_ABORT;
  }
  if (kind == CONTEXT_BYPASS) {
    const bits = load<u32>(context, CONTEXT_S1_OUTPUT_BITS);
    if (bits == 0 || fits(iova, bits)) {
      succeed(xlat, iova, 0, BYPASS_LG2, 0, XLAT_FROM_BYPASS);
      if ((xlatFlags & XLAT_FLAG_ATS) != 0)
        store<u32>(xlat, R | W | (natureOf(contextFlags, xlatFlags) & X), XLAT_FAULT);
      return XLAT_OK;
    }
    blame(CLASS_IN << XLAT_FAULT_CLASS_SHIFT, 0, 0);
    return fail(xlat, F_ADDR_SIZE, 0);
  }
  const nature = natureOf(contextFlags, xlatFlags);
  if ((xlatFlags & XLAT_FLAG_TRANSLATED) != 0) {
    if ((contextFlags & CONTEXT_FLAG_ATS_S1CHK) == 0 || kind != CONTEXT_NESTED) {
      succeed(xlat, iova, 0, BYPASS_LG2, 0, XLAT_FROM_BYPASS);
      return XLAT_OK;
    }
    return access(
      unit,
      context,
      iotlb,
      xlat,
      CONTEXT_S2,
      load<u32>(context, CONTEXT_TAG) & 0xffff,
      iova,
      nature,
      xlatFlags,
    );
  }
  if (
    (contextFlags & CONTEXT_FLAG_E0PD) != 0 &&
    (nature & PRIVILEGED) == 0 &&
    kind != CONTEXT_S2 &&
    !onePrivilege(context)
  ) {
    blame(CLASS_IN << XLAT_FAULT_CLASS_SHIFT, 0, 0);
    return fail(xlat, F_TRANSLATION, nextFillSeq(unit));
  }
  if ((xlatFlags & XLAT_FLAG_ATS) != 0)
    return request(unit, context, iotlb, xlat, kind, iova, nature, xlatFlags);
  return access(unit, context, iotlb, xlat, kind, load<u32>(context, CONTEXT_TAG), iova, nature, xlatFlags);
}

/** A transaction that is no translation request. */
function access(
  unit: usize,
  context: usize,
  iotlb: usize,
  xlat: usize,
  kind: u32,
  tag: u32,
  iova: u64,
  nature: u32,
  xlatFlags: u32,
): u32 {
  const data: u32 = (xlatFlags & XLAT_FLAG_WRITE) != 0 ? W : R;
  if (nature == 0) {
    const how = select<u32>(UNUSUAL, 0, onePrivilege(context));
    return cached(unit, context, iotlb, xlat, kind, tag, iova, data | how);
  }
  return uncached(unit, context, xlat, kind, iova, (nature & X) != 0 ? nature : data | nature, false);
}

function one(unit: usize, context: usize, iotlb: usize, xlat: usize): u32 {
  const flags = load<u32>(xlat, XLAT_FLAGS);
  const kind = load<u32>(context, CONTEXT_KIND);
  const rare = (flags & ~XLAT_FLAG_WRITE) | (load<u32>(context, CONTEXT_FLAGS) & CONTEXT_FLAGS_UNUSUAL);
  if (rare != 0 || kind - CONTEXT_S1 > CONTEXT_NESTED - CONTEXT_S1)
    return unusual(unit, context, iotlb, xlat);
  const need = R << (flags & XLAT_FLAG_WRITE);
  return cached(
    unit,
    context,
    iotlb,
    xlat,
    kind,
    load<u32>(context, CONTEXT_TAG),
    load<u64>(xlat, XLAT_IOVA),
    need,
  );
}

export function translate(unit: usize, context: usize, iotlb: usize, xlat: usize): u32 {
  useContext(context);
  return one(unit, context, iotlb, xlat);
}

/** Keeps touch from being thrown away. */
let touched: u64 = 0;

function touchAll(first: usize, end: usize): void {
  let seen: u64 = 0;
  for (let xlat = first; xlat < end; xlat += XLAT_BYTES) seen |= touch(load<u64>(xlat, XLAT_PA));
  touched = seen;
}

/**
 * Brings short walks up to their last descriptor, without effect: those descriptors, which are what memory is
 * slow with, are fetched for all of them at once. Filling the IOTLB takes locked instructions, across which no
 * processor overlaps anything. Until it ends a walk keeps in its record, in place of an answer:
 *   PA       place of the last descriptor, 0 when the walk is not for here
 *   nested   IPA; STATUS and SIZE_LG2 with bits and size of stage 1
 */
function lockstep(context: usize, kind: u32, first: usize, end: usize): void {
  for (let xlat = first; xlat < end; xlat += XLAT_BYTES) {
    const iova = load<u64>(xlat, XLAT_IOVA);
    let place: u64 = 0;
    if ((load<u32>(xlat, XLAT_FLAGS) & ~XLAT_FLAG_WRITE) == 0) {
      if (kind == CONTEXT_S1) place = placeOfStage1(iova);
      else if (kind == CONTEXT_NESTED) place = placeOfNested1(context, iova);
      else place = placeOfStage2(iova);
    }
    store<u64>(xlat, place, XLAT_PA);
  }
  touchAll(first, end);
  if (kind != CONTEXT_NESTED) return;
  for (let xlat = first; xlat < end; xlat += XLAT_BYTES) {
    const found = load<u64>(xlat, XLAT_PA);
    if (found == 0) continue;
    const need = R << load<u32>(xlat, XLAT_FLAGS);
    let place: u64 = 0;
    if (endStage1(context, load<u64>(xlat, XLAT_IOVA), need, found)) {
      store<u64>(xlat, shortPa, XLAT_IPA);
      store<u64>(xlat, u64(shortBits) | (u64(shortLg2) << 32), XLAT_STATUS);
      place = placeOfStage2(shortPa);
    }
    store<u64>(xlat, place, XLAT_PA);
  }
  touchAll(first, end);
}

export function translateBatch(unit: usize, context: usize, iotlb: usize, firstXlat: usize, n: u32): u32 {
  useContext(context);
  const kind = load<u32>(context, CONTEXT_KIND);
  const usual =
    kind - CONTEXT_S1 <= CONTEXT_NESTED - CONTEXT_S1 &&
    (load<u32>(context, CONTEXT_FLAGS) & CONTEXT_FLAGS_UNUSUAL) == 0;
  const end = firstXlat + n * XLAT_BYTES;
  let faults: u32 = 0;
  if (!usual) {
    for (let xlat = firstXlat; xlat < end; xlat += XLAT_BYTES)
      faults += u32(one(unit, context, iotlb, xlat) != XLAT_OK);
    return faults;
  }
  const tag = load<u32>(context, CONTEXT_TAG);
  const stages = stagesOf(kind);
  for (let first = firstXlat; first < end; first += GROUP * XLAT_BYTES) {
    const last = min(end, first + GROUP * XLAT_BYTES);
    lockstep(context, kind, first, last);
    for (let xlat = first; xlat < last; xlat += XLAT_BYTES) {
      const iova = load<u64>(xlat, XLAT_IOVA);
      const place = load<u64>(xlat, XLAT_PA);
      // What is neither a plain miss nor a walk that ends well takes the long way, from the start.
      if (place != 0 && find(unit, iotlb, tag, stages, iova >> 12) == 0) {
        let input = iova;
        if (kind == CONTEXT_NESTED) {
          input = load<u64>(xlat, XLAT_IPA);
          walkBits = load<u32>(xlat, XLAT_STATUS);
          walkLg2 = load<u32>(xlat, XLAT_SIZE_LG2);
        }
        if (endWalk(context, kind, input, R << load<u32>(xlat, XLAT_FLAGS), place)) {
          const fillSeq = nextFillSeq(unit);
          const bits = u64(walkBits & (R | W | G)) | stages;
          fill(unit, iotlb, tag, iova >> 12, walkPa, walkLg2, bits, u32(walkIpa >> 12), fillSeq, true);
          succeed(xlat, walkPa, walkIpa, walkLg2, fillSeq, XLAT_FROM_WALK);
          continue;
        }
      }
      faults += u32(one(unit, context, iotlb, xlat) != XLAT_OK);
    }
  }
  return faults;
}

export function translateIpa(context: usize, xlat: usize): u32 {
  const ipa = load<u64>(xlat, XLAT_IOVA);
  const kind = load<u32>(context, CONTEXT_KIND);
  if (kind != CONTEXT_S2 && kind != CONTEXT_NESTED) {
    succeed(xlat, ipa, 0, BYPASS_LG2, 0, XLAT_FROM_BYPASS);
    return XLAT_OK;
  }
  const need = (load<u32>(xlat, XLAT_FLAGS) & XLAT_FLAG_WRITE) != 0 ? W : R;
  useContext(context);
  beginWalk();
  const status = stage2(context, ipa, need | TABLE);
  if (status != XLAT_OK) {
    blame(XLAT_FAULT_S2 | (CLASS_CD << XLAT_FAULT_CLASS_SHIFT), outLevel, ipa);
    return fail(xlat, status, 0);
  }
  succeed(xlat, outPa, ipa, outLg2, 0, XLAT_FROM_WALK);
  return XLAT_OK;
}
