/**
 * Context Descriptors: the stage-1 half of the configuration of a stream, or of a substream. [IHI0070] 5.4.
 *
 * Not produced: TTB1 (EPD1 = 1), SVA.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_make_s1_cd, arm_smmu_get_cd_used
 */
import { type BugSwitches, NO_BUGS } from '../../../hw/bugs/bug-switches.js';
import type { GranuleLg2 } from '../../../hw/pagetable/geometry.js';
import { getQuad } from '../../../hw/smmuv3/bitfield.js';
import { CD, TG0_4K, TG0_16K, TG0_64K } from '../../../hw/smmuv3/cd.js';
import type { Words } from '../../../hw/sync/words.js';
import { ENTRY_QUADS, type Entry, type EntryWriter, maskOf } from './entry-writer.js';

const SH_INNER = 3;
const CACHE_WBWA = 1;
/** Attribute 0 non-cacheable, 1 write-back, 2 device: the indexes that stage-1 leaves use. [DDI0487] MAIR_EL1 */
const MAIR = 0x0004_ff44n;

const TG0: Readonly<Record<GranuleLg2, number>> = { 12: TG0_4K, 14: TG0_16K, 16: TG0_64K };

/** What a CD says about a stage-1 table. */
export interface Stage1Config {
  readonly asid: number;
  /** PA of the root, bytes. */
  readonly root: number;
  readonly inputBits: number;
  /** 4 KiB when absent. */
  readonly granuleLg2?: GranuleLg2;
  /** Encoding of the output size, as in IDR5.OAS. */
  readonly ips: number;
  /** Dirty tracking: the SMMU updates Access flag and dirty state (HA and HD). */
  readonly dirty?: boolean;
}

/** @param stall  faults of the device stall instead of aborting the transaction */
export function stage1Cd(s1: Stage1Config, stall = false): Entry {
  const cd = new Uint32Array(ENTRY_QUADS * 2);
  CD.T0SZ.put(cd, 64 - s1.inputBits);
  CD.TG0.put(cd, TG0[s1.granuleLg2 ?? 12]);
  CD.IR0.put(cd, CACHE_WBWA);
  CD.OR0.put(cd, CACHE_WBWA);
  CD.SH0.put(cd, SH_INNER);
  CD.EPD1.put(cd, 1);
  CD.V.put(cd, 1);
  CD.IPS.put(cd, s1.ips);
  CD.AA64.put(cd, 1);
  if (s1.dirty) {
    CD.HA.put(cd, 1);
    CD.HD.put(cd, 1);
  }
  CD.S.put(cd, stall ? 1 : 0);
  CD.R.put(cd, 1);
  CD.A.put(cd, 1);
  CD.ASET.put(cd, 1);
  CD.ASID.put(cd, s1.asid);
  CD.TTB0.put(cd, s1.root);
  CD.MAIR.put(cd, MAIR);
  return Array.from({ length: ENTRY_QUADS }, (_, i) => getQuad(cd, i * 2));
}

export const clearCd = (): Entry => new Array<bigint>(ENTRY_QUADS).fill(0n);

const V = maskOf(CD.V);
const ALL: Entry = new Array<bigint>(ENTRY_QUADS).fill(0xffff_ffff_ffff_ffffn);
const TTB0 = maskOf(CD.T0SZ, CD.TG0, CD.IR0, CD.OR0, CD.SH0, CD.TTB0);

/** Bits of this CD that the SMMU looks at. */
export function cdUsed(cd: Entry): Entry {
  if ((cd[0]! & V[0]!) === 0n) return V;
  const epd0 = (cd[0]! >> BigInt(CD.EPD0.lo)) & 1n;
  return epd0 === 0n ? ALL : ALL.map((mask, i) => mask & ~TTB0[i]!);
}

/** @param linear linear offset of the CD; @param sync CFGI_CD and SYNC for its substream */
export function cdWriter(
  words: Words,
  linear: number,
  sync: () => number,
  bugs: BugSwitches = NO_BUGS,
): EntryWriter {
  return {
    load: (word) => words.load64(linear + word * 8),
    store: (word, value) => words.store64(linear + word * 8, value),
    used: cdUsed,
    barrier: () => words.dmaWmb(),
    sync,
    unfenced: bugs['ste-hitless-without-barrier'],
    torn: bugs['cd-torn'],
  };
}
