/**
 * Which bits of an STE matter to the SMMU, and the writer that follows from it. [IHI0070] 5.2.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_get_ste_used, arm_smmu_get_ste_update_safe
 */
import { type BugSwitches, NO_BUGS } from '../../../hw/bugs/bug-switches.js';
import { CONFIG_BYPASS, EATS_S1CHK, EATS_TRANS, S1DSS_BYPASS, STE } from '../../../hw/smmuv3/ste.js';
import type { Words } from '../../../hw/sync/words.js';
import { type Entry, type EntryWriter, maskOf, union } from './entry-writer.js';

const V = maskOf(STE.V);
const CONFIG = maskOf(STE.Config);
const SHCFG = maskOf(STE.SHCFG);
const STAGE1 = maskOf(
  STE.S1Fmt,
  STE.S1ContextPtr,
  STE.S1CDMax,
  STE.S1DSS,
  STE.S1CIR,
  STE.S1COR,
  STE.S1CSH,
  STE.S1STALLD,
  STE.STRW,
  STE.EATS,
  STE.MEV,
  STE.S2VMID,
);
const STAGE2 = maskOf(
  STE.S2FWB,
  STE.EATS,
  STE.SHCFG,
  STE.MEV,
  STE.S2VMID,
  STE.S2T0SZ,
  STE.S2SL0,
  STE.S2IR0,
  STE.S2OR0,
  STE.S2SH0,
  STE.S2TG,
  STE.S2PS,
  STE.S2AA64,
  STE.S2ENDI,
  STE.S2PTW,
  STE.S2S,
  STE.S2R,
  STE.S2TTB,
);

const field = (entry: Entry, { hi, lo }: { hi: number; lo: number }): number =>
  Number((entry[lo >> 6]! >> BigInt(lo & 63)) & ((1n << BigInt(hi - lo + 1)) - 1n));

/** Bits of this STE that the SMMU looks at. */
export function steUsed(ste: Entry): Entry {
  if (field(ste, STE.V) === 0) return V;
  const config = field(ste, STE.Config);
  const masks = [V, CONFIG];
  if (config & 1) {
    masks.push(STAGE1);
    // Traffic that skips stage 1 has its incoming attributes overridden, so SHCFG counts. [IHI0070] 13.5
    if (field(ste, STE.S1DSS) === S1DSS_BYPASS) masks.push(SHCFG);
  }
  if (config & 2) masks.push(STAGE2);
  if (config === CONFIG_BYPASS) masks.push(SHCFG);
  return union(...masks);
}

/**
 * Bits whose order does not matter. MEV only says how many records a fault makes. EATS may go between 0 and 1
 * freely, because ATS is off at the device while it changes; but not next to S1CHK (0b11 is another setting)
 * nor next to S2S (S2S with EATS = 1 makes a bad STE).
 */
export function steUpdateSafe(current: Entry, target: Entry): Entry {
  const safe = [...maskOf(STE.MEV)];
  const s1chk = (field(current, STE.EATS) | field(target, STE.EATS)) & EATS_S1CHK;
  const stalls = field(current, STE.S2S) | field(target, STE.S2S);
  if (s1chk === 0 && stalls === 0) safe[1]! |= BigInt(EATS_TRANS) << BigInt(STE.EATS.lo & 63);
  return safe;
}

/** @param linear linear offset of the STE; @param sync CFGI_STE and SYNC for its stream */
export function steWriter(
  words: Words,
  linear: number,
  sync: () => number,
  bugs: BugSwitches = NO_BUGS,
): EntryWriter {
  return {
    load: (word) => words.load64(linear + word * 8),
    store: (word, value) => words.store64(linear + word * 8, value),
    used: steUsed,
    updateSafe: steUpdateSafe,
    barrier: () => words.dmaWmb(),
    sync,
    unfenced: bugs['ste-hitless-without-barrier'],
    torn: bugs['ste-torn'],
  };
}
