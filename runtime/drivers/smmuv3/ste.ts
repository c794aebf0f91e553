/**
 * STE images: what the driver wants a stream to do, as the eight words of an STE. [IHI0070] 5.2.
 *
 * Not produced: split-stage ATS (EATS = 2).
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_make_*_ste
 */
import type { GranuleLg2 } from '../../../hw/pagetable/geometry.js';
import { getQuad } from '../../../hw/smmuv3/bitfield.js';
import {
  CONFIG_ABORT,
  CONFIG_BYPASS,
  CONFIG_NESTED,
  CONFIG_S1_TRANS,
  CONFIG_S2_TRANS,
  EATS_TRANS,
  S1DSS_SSID0,
  S2TG_4K,
  S2TG_16K,
  S2TG_64K,
  SHCFG_INCOMING,
  STE,
  STRW_EL2,
  STRW_NS_EL1,
} from '../../../hw/smmuv3/ste.js';
import type { CdTableShape } from './cd-table.js';
import { ENTRY_QUADS, type Entry } from './entry-writer.js';

/** Inner-shareable, write-back read- and write-allocate: how Linux sets every table up. */
const SH_INNER = 3;
const CACHE_WBRA = 1;

const S2TG: Readonly<Record<GranuleLg2, number>> = { 12: S2TG_4K, 14: S2TG_16K, 16: S2TG_64K };

/** What an STE says about a stage-2 table. */
export interface Stage2Config {
  readonly vmid: number;
  /** PA of the root, bytes. */
  readonly root: number;
  readonly inputBits: number;
  readonly startLevel: number;
  /** 4 KiB when absent. */
  readonly granuleLg2?: GranuleLg2;
  /** Encoding of the output size, as in IDR5.OAS. */
  readonly ps: number;
  readonly fwb: boolean;
}

/** Properties of the SMMU that an STE depends on. */
export interface SteFeatures {
  /** SHCFG is heeded (IDR1.ATTR_TYPES_OVR). */
  readonly attrTypesOvr: boolean;
  readonly stalls: boolean;
  /** Stage 1 is of the EL2-E2H regime. */
  readonly e2h: boolean;
}

/** What an STE says of the device. */
export interface StreamTraits {
  /** Translation requests are answered. */
  readonly ats: boolean;
  /** Faults stall. */
  readonly stall: boolean;
}

const NO_TRAITS: StreamTraits = { ats: false, stall: false };

const image = (fill: (words: Uint32Array) => void): bigint[] => {
  const words = new Uint32Array(ENTRY_QUADS * 2);
  STE.V.put(words, 1);
  fill(words);
  return Array.from({ length: ENTRY_QUADS }, (_, i) => getQuad(words, i * 2));
};

export const abortSte = (): Entry => image((ste) => STE.Config.put(ste, CONFIG_ABORT));

export const bypassSte = (features: Pick<SteFeatures, 'attrTypesOvr'>): Entry =>
  image((ste) => {
    STE.Config.put(ste, CONFIG_BYPASS);
    if (features.attrTypesOvr) STE.SHCFG.put(ste, SHCFG_INCOMING);
  });

/**
 * Stage 1 through a CD table. VMID 0 is the host's own.
 * @param s1dss  what becomes of traffic without a SubstreamID: S1DSS_SSID0, it uses CD 0
 */
export const cdTableSte = (
  cdTable: CdTableShape,
  features: Pick<SteFeatures, 'stalls' | 'e2h'>,
  { ats, stall }: StreamTraits = NO_TRAITS,
  s1dss = S1DSS_SSID0,
): Entry =>
  image((ste) => {
    STE.Config.put(ste, CONFIG_S1_TRANS);
    STE.S1Fmt.put(ste, cdTable.s1Fmt);
    STE.S1ContextPtr.put(ste, cdTable.base);
    STE.S1CDMax.put(ste, cdTable.s1CdMax);
    STE.S1DSS.put(ste, s1dss);
    STE.S1CIR.put(ste, CACHE_WBRA);
    STE.S1COR.put(ste, CACHE_WBRA);
    STE.S1CSH.put(ste, SH_INNER);
    if (features.stalls && !stall) STE.S1STALLD.put(ste, 1);
    if (ats) STE.EATS.put(ste, EATS_TRANS);
    STE.STRW.put(ste, features.e2h ? STRW_EL2 : STRW_NS_EL1);
  });

/** S2SL0 counts down: with 4 KiB 2, 1, 0, 3 are levels 0 to 3, with 16 and 64 KiB 3, 2, 1, 0. [IHI0070] 5.2 */
const startLevelCode = ({ startLevel, granuleLg2 = 12 }: Stage2Config): number =>
  (granuleLg2 === 12 ? 2 - startLevel : 3 - startLevel) & 3;

export const stage2Ste = (
  s2: Stage2Config,
  features: Pick<SteFeatures, 'attrTypesOvr'>,
  { ats, stall }: StreamTraits = NO_TRAITS,
): Entry =>
  image((ste) => {
    STE.Config.put(ste, CONFIG_S2_TRANS);
    if (ats) STE.EATS.put(ste, EATS_TRANS);
    if (s2.fwb) STE.S2FWB.put(ste, 1);
    if (features.attrTypesOvr) STE.SHCFG.put(ste, SHCFG_INCOMING);
    STE.S2VMID.put(ste, s2.vmid);
    STE.S2T0SZ.put(ste, 64 - s2.inputBits);
    STE.S2SL0.put(ste, startLevelCode(s2));
    STE.S2IR0.put(ste, CACHE_WBRA);
    STE.S2OR0.put(ste, CACHE_WBRA);
    STE.S2SH0.put(ste, SH_INNER);
    STE.S2TG.put(ste, S2TG[s2.granuleLg2 ?? 12]);
    STE.S2PS.put(ste, s2.ps);
    STE.S2AA64.put(ste, 1);
    STE.S2PTW.put(ste, 1);
    if (stall) STE.S2S.put(ste, 1);
    STE.S2R.put(ste, 1);
    STE.S2TTB.put(ste, s2.root);
  });

/**
 * Stage 1 from the guest's validated STE over the host's stage 2. MEV lets the SMMU merge the events that a
 * hostile guest provokes.
 * @param vste  words 0 and 1, allowed bits only, Config = S1 translate
 */
export function nestedSte(
  s2: Stage2Config,
  features: Pick<SteFeatures, 'attrTypesOvr'>,
  vste: readonly [bigint, bigint],
  traits: StreamTraits = NO_TRAITS,
): Entry {
  const ste = [...stage2Ste(s2, features, traits)];
  const config = 7n << BigInt(STE.Config.lo);
  ste[0] = (vste[0] & ~config) | (BigInt(CONFIG_NESTED) << BigInt(STE.Config.lo));
  ste[1]! |= vste[1] | (1n << BigInt(STE.MEV.lo & 63));
  return ste;
}
