/**
 * Is this STE, or CD, valid, and what does it ask for? [IHI0070] 5.2, 5.4 and 5.5. Pure functions of the words
 * fetched: they fill a StreamConfig, or name the event that the transaction gets.
 *
 *   decodeSte  -> stages, stage 2, where the CDs lie
 *   selectCd   -> which CD a SubstreamID, or its absence, means; S1DSS
 *   decodeCd   -> stage 1
 *
 * Fields of features that the IDRs report as absent are ILLEGAL or ignored as the spec says. What an SMMU does not
 * have is refused by name (`refused`), so that a log says why a stream faults; no SMMU here has TTB1,
 * top-byte-ignore, AArch32 or big-endian tables.
 */
import {
  CONTEXT_ABORT,
  CONTEXT_BYPASS,
  CONTEXT_FLAG_ATS,
  CONTEXT_FLAG_ATS_S1CHK,
  CONTEXT_FLAG_E0PD,
  CONTEXT_FLAG_E2H,
  CONTEXT_FLAG_HAD,
  CONTEXT_FLAG_INSTCFG_SHIFT,
  CONTEXT_FLAG_MEV,
  CONTEXT_FLAG_OAS52,
  CONTEXT_FLAG_PAN,
  CONTEXT_FLAG_PRIVCFG_SHIFT,
  CONTEXT_FLAG_S1_ABORT,
  CONTEXT_FLAG_S1_AF_FAULT,
  CONTEXT_FLAG_S1_HA,
  CONTEXT_FLAG_S1_HD,
  CONTEXT_FLAG_S1_RECORD,
  CONTEXT_FLAG_S1_STALL,
  CONTEXT_FLAG_S2_AF_FAULT,
  CONTEXT_FLAG_S2_HA,
  CONTEXT_FLAG_S2_HD,
  CONTEXT_FLAG_S2_PTW,
  CONTEXT_FLAG_S2_RECORD,
  CONTEXT_FLAG_S2_STALL,
  CONTEXT_FLAG_WXN,
  CONTEXT_NESTED,
  CONTEXT_S1,
  CONTEXT_S1_EL2,
  CONTEXT_S2,
} from '../iotlb/unit-layout.js';
import { CD } from './cd.js';
import { type GranuleLg2, type Smmuv3Config, vaBits } from './config.js';
import { C_BAD_CD, C_BAD_STE, C_BAD_SUBSTREAMID, F_STREAM_DISABLED } from './event.js';
import {
  ADDRESS_BITS,
  CONFIG_BYPASS,
  CONFIG_NESTED,
  CONFIG_S1_TRANS,
  EATS_S1CHK,
  EATS_TRANS,
  S1DSS_BYPASS,
  S1DSS_SSID0,
  S1FMT_4K_L2,
  S1FMT_64K_L2,
  S1FMT_LINEAR,
  STE,
  STRW_EL2,
} from './ste.js';

/** What registers add to an STE. */
export interface Controls {
  /** CR2.E2H. */
  readonly e2h: boolean;
  /** CR0.ATSCHK: without it split-stage ATS is as none. */
  readonly atsChk: boolean;
}

/** A stream's configuration, decoded. Reused from one decode to the next. */
export class StreamConfig {
  /** CONTEXT_* */
  kind = CONTEXT_ABORT;
  /** CONTEXT_FLAG_* */
  flags = 0;
  vmid = 0;
  asid = 0;
  /** Byte address of the CD, or of the table of CDs: an IPA when nested, else a PA. */
  contextPtr = 0;
  /** Effective S1Fmt: linear without substreams. */
  s1Fmt = S1FMT_LINEAR;
  /** log2 of the CDs; 0: no substreams. */
  s1CdMax = 0;
  s1Dss = 0;
  s1StallDisabled = false;
  /** CD that selectCd chose; -1: none, stage 1 is not used. */
  cdIndex = -1;
  s1Root = 0;
  s1InputBits = 0;
  s1OutputBits = 0;
  /** 4, past the last level, when every stage-1 walk faults (CD.EPD0). */
  s1StartLevel = 0;
  s1GranuleLg2 = 12;
  s2Root = 0;
  s2InputBits = 0;
  s2OutputBits = 0;
  s2StartLevel = 0;
  s2GranuleLg2 = 12;
  /** After a refusal: what was asked for; else ''. */
  refused = '';
}

/** TxSZ beyond this needs small translation tables (IDR3.STT). */
const MAX_TXSZ = 39;
/** CD.TG0 and STE.S2TG. */
const GRANULES: ReadonlyArray<GranuleLg2 | undefined> = [12, 16, 14, undefined];
/** First level by S2SL0, then the address bits that an SMMU must have for it. [DDI0487] AArch64.S2InvalidSL */
const START_LEVELS: Readonly<Record<GranuleLg2, ReadonlyArray<readonly [level: number, minOas: number]>>> = {
  12: [
    [2, 0],
    [1, 0],
    [0, 44],
  ],
  14: [
    [3, 0],
    [2, 0],
    [1, 42],
  ],
  16: [
    [3, 0],
    [2, 0],
    [1, 44],
  ],
};
const NO_LEVEL = 4;

/** A physical size field, capped at what the SMMU implements; reserved encodings count as the largest. */
const outputBits = (encoded: number, oasBits: number): number =>
  Math.min(ADDRESS_BITS[encoded] ?? oasBits, oasBits);

/** Whether a root lies beyond what the stage may output; small granules hold no address of more than 48 bits. */
const rootOutOfRange = (root: number, output: number, granuleLg2: GranuleLg2): boolean =>
  root >= 2 ** Math.min(output, granuleLg2 === 16 ? 52 : 48);

/** @param resolvedBits  input bits that the first table resolves. 64 bytes are the least with 52-bit addresses. */
const alignedRoot = (root: number, resolvedBits: number, output: number): number => {
  const bytes = Math.max(8 * 2 ** resolvedBits, output === 52 ? 64 : 16);
  return Math.floor(root / bytes) * bytes;
};

const granule = (config: Smmuv3Config, encoded: number): GranuleLg2 | undefined => {
  const lg2 = GRANULES[encoded];
  return lg2 !== undefined && config.granules.includes(lg2) ? lg2 : undefined;
};

/** HTTU that the SMMU does not have. HD without HA, where it may be set, is as neither. */
const httuBeyond = (config: Smmuv3Config, update: boolean, dirty: boolean): boolean =>
  config.httu === 'none' ? update || dirty : dirty && config.httu === 'access';

/** @returns 0, or C_BAD_STE with `out.refused` set when it was for what the SMMU does not have */
export function decodeSte(
  ste: Uint32Array,
  config: Smmuv3Config,
  controls: Controls,
  out: StreamConfig,
): number {
  out.refused = '';
  out.flags = 0;
  out.vmid = 0;
  out.asid = 0;
  out.contextPtr = out.s1CdMax = out.s1Dss = 0;
  out.s1Fmt = S1FMT_LINEAR;
  out.s1StallDisabled = false;
  out.cdIndex = -1;
  out.s1Root = out.s1InputBits = out.s1OutputBits = out.s1StartLevel = 0;
  out.s2Root = out.s2InputBits = out.s2OutputBits = out.s2StartLevel = 0;
  out.s1GranuleLg2 = out.s2GranuleLg2 = 12;
  if (STE.V.get(ste) === 0) return C_BAD_STE;
  const mode = STE.Config.get(ste);
  if (mode < CONFIG_BYPASS) {
    // 0b0xx: everything else is ignored.
    out.kind = CONTEXT_ABORT;
    return 0;
  }
  if (STE.MEV.get(ste) === 1) out.flags |= CONTEXT_FLAG_MEV;
  if (mode === CONFIG_BYPASS) {
    bypass(config, out);
    return 0;
  }
  const s1 = (mode & 1) !== 0;
  const s2 = (mode & 2) !== 0;
  out.kind = s1 ? (s2 ? CONTEXT_NESTED : CONTEXT_S1) : CONTEXT_S2;
  if (s1 && config.stages === 's2') return C_BAD_STE;
  if (s2 && config.stages === 's1') return C_BAD_STE;
  out.flags |= override(STE.PRIVCFG.get(ste)) << CONTEXT_FLAG_PRIVCFG_SHIFT;
  out.flags |= override(STE.INSTCFG.get(ste)) << CONTEXT_FLAG_INSTCFG_SHIFT;
  if (config.ats && !decodeAts(ste, mode, config, controls, out)) return C_BAD_STE;
  if (mode === CONFIG_S1_TRANS && config.hyp) {
    const strw = STE.STRW.get(ste);
    if ((strw & 1) === 1) return C_BAD_STE;
    if (strw === STRW_EL2) {
      out.kind = CONTEXT_S1_EL2;
      if (controls.e2h) out.flags |= CONTEXT_FLAG_E2H;
    }
  }
  if (config.stages !== 's1' && out.kind !== CONTEXT_S1_EL2) {
    out.vmid = STE.S2VMID.get(ste);
    if (config.vmidBits === 8 && out.vmid > 0xff) return C_BAD_STE;
  }
  if (s1 && !decodeStage1(ste, s2, config, out)) return C_BAD_STE;
  return s2 ? decodeStage2(ste, config, out) : 0;
}

function bypass(config: Smmuv3Config, out: StreamConfig): void {
  out.kind = CONTEXT_BYPASS;
  out.s1OutputBits = config.oasBits;
}

/** PRIVCFG and INSTCFG: 0b01 is reserved and behaves as 0b00. */
const override = (value: number): number => (value === 1 ? 0 : value);

/** STE.EATS. @returns false when ILLEGAL */
function decodeAts(
  ste: Uint32Array,
  mode: number,
  config: Smmuv3Config,
  controls: Controls,
  out: StreamConfig,
): boolean {
  const eats = STE.EATS.get(ste);
  const stalls = STE.S2S.get(ste) === 1;
  if (eats === EATS_TRANS) {
    if ((mode & 2) !== 0 && stalls) return false;
    out.flags |= CONTEXT_FLAG_ATS;
  } else if (eats === EATS_S1CHK) {
    if (mode !== CONFIG_NESTED || stalls || config.stages !== 'both') return false;
    if (controls.atsChk) out.flags |= CONTEXT_FLAG_ATS | CONTEXT_FLAG_ATS_S1CHK;
  }
  // 0b11 is for the Device Permission Table (IDR3.DPT): it behaves as 0b00.
  return true;
}

/** The STE's part of stage 1. @returns false when ILLEGAL */
function decodeStage1(ste: Uint32Array, nested: boolean, config: Smmuv3Config, out: StreamConfig): boolean {
  out.s1StallDisabled = STE.S1STALLD.get(ste) === 1;
  if (out.s1StallDisabled && config.stalls !== 'optional') {
    out.refused = 'stalls (STE.S1STALLD)';
    return false;
  }
  if (config.ssidBits > 0) {
    out.s1CdMax = STE.S1CDMax.get(ste);
    if (out.s1CdMax > config.ssidBits) return false;
    if (out.s1CdMax > 0) {
      const format = STE.S1Fmt.get(ste);
      if (format === S1FMT_4K_L2 || format === S1FMT_64K_L2) out.s1Fmt = format;
      out.s1Dss = STE.S1DSS.get(ste);
    }
  }
  out.contextPtr = STE.S1ContextPtr.get(ste);
  // A nested one is an IPA, which stage 2 judges.
  return nested || out.contextPtr < 2 ** config.oasBits;
}

function decodeStage2(ste: Uint32Array, config: Smmuv3Config, out: StreamConfig): number {
  if (STE.S2AA64.get(ste) === 0) return refuse(out, C_BAD_STE, 'AArch32 tables (STE.S2AA64)');
  if (STE.S2ENDI.get(ste) === 1) return refuse(out, C_BAD_STE, 'big-endian tables (STE.S2ENDI)');
  const stalls = STE.S2S.get(ste) === 1;
  if (stalls && config.stalls === 'none') return refuse(out, C_BAD_STE, 'stalls (STE.S2S)');
  if (!stalls && config.stalls === 'forced') return C_BAD_STE;
  const update = STE.S2HA.get(ste) === 1;
  const dirty = STE.S2HD.get(ste) === 1;
  if (httuBeyond(config, update, dirty)) return refuse(out, C_BAD_STE, 'HTTU (STE.S2HA, S2HD)');
  const lg2 = granule(config, STE.S2TG.get(ste));
  if (lg2 === undefined) return refuse(out, C_BAD_STE, 'granule (STE.S2TG)');
  if (lg2 === 16 && config.oasBits > 48) out.flags |= CONTEXT_FLAG_OAS52;
  const t0sz = STE.S2T0SZ.get(ste);
  if (t0sz > MAX_TXSZ || t0sz < Math.max(lg2 === 16 ? 12 : 16, 64 - config.oasBits)) return C_BAD_STE;
  out.s2InputBits = 64 - t0sz;
  out.s2GranuleLg2 = lg2;
  const start = START_LEVELS[lg2][STE.S2SL0.get(ste)];
  if (start === undefined || config.oasBits < start[1]) return C_BAD_STE;
  out.s2StartLevel = start[0];
  // [DDI0487] AArch64.S2InconsistentSL: the first level resolves one bit at least, and 16 concatenated tables at most.
  const resolved = out.s2InputBits - (lg2 + (lg2 - 3) * (3 - out.s2StartLevel));
  if (resolved < 1 || resolved > lg2 - 3 + 4) return C_BAD_STE;
  out.s2OutputBits = outputBits(STE.S2PS.get(ste), config.oasBits);
  const root = STE.S2TTB.get(ste);
  if (rootOutOfRange(root, out.s2OutputBits, lg2)) return C_BAD_STE;
  out.s2Root = alignedRoot(root, resolved, out.s2OutputBits);
  if (update) out.flags |= CONTEXT_FLAG_S2_HA | (dirty ? CONTEXT_FLAG_S2_HD : 0);
  else if (STE.S2AFFD.get(ste) === 0) out.flags |= CONTEXT_FLAG_S2_AF_FAULT;
  if (stalls) out.flags |= CONTEXT_FLAG_S2_STALL;
  if (STE.S2R.get(ste) === 1) out.flags |= CONTEXT_FLAG_S2_RECORD;
  if (STE.S2PTW.get(ste) === 1) out.flags |= CONTEXT_FLAG_S2_PTW;
  return 0;
}

/**
 * Which CD a transaction uses: sets cdIndex, and turns off stage 1 where S1DSS says so.
 * @param ssid  SubstreamID, or -1 for none
 * @returns 0, C_BAD_SUBSTREAMID or F_STREAM_DISABLED
 */
export function selectCd(ssid: number, config: Smmuv3Config, out: StreamConfig): number {
  out.cdIndex = -1;
  if (out.kind === CONTEXT_ABORT) return 0;
  const stage1 = out.kind !== CONTEXT_BYPASS && out.kind !== CONTEXT_S2;
  if (ssid >= 0) {
    if (!stage1 || out.s1CdMax === 0 || ssid >= 2 ** out.s1CdMax) return C_BAD_SUBSTREAMID;
    if (ssid === 0 && out.s1Dss === S1DSS_SSID0) return F_STREAM_DISABLED;
    out.cdIndex = ssid;
    return 0;
  }
  if (!stage1) return 0;
  if (out.s1CdMax > 0 && out.s1Dss !== S1DSS_SSID0) {
    if (out.s1Dss !== S1DSS_BYPASS) return F_STREAM_DISABLED;
    if (out.kind === CONTEXT_NESTED) out.kind = CONTEXT_S2;
    else bypass(config, out);
    return 0;
  }
  out.cdIndex = 0;
  return 0;
}

/** Adds the CD to what the STE said. @returns 0, or C_BAD_CD */
export function decodeCd(cd: Uint32Array, config: Smmuv3Config, out: StreamConfig): number {
  out.refused = '';
  if (CD.V.get(cd) === 0) return C_BAD_CD;
  const stalls = CD.S.get(cd) === 1;
  if (stalls && config.stalls === 'none') return refuse(out, C_BAD_CD, 'stalls (CD.S)');
  if (stalls ? out.s1StallDisabled : config.stalls === 'forced') return C_BAD_CD;
  if (CD.AA64.get(cd) === 0) return refuse(out, C_BAD_CD, 'AArch32 tables (CD.AA64)');
  const update = CD.HA.get(cd) === 1;
  const dirty = CD.HD.get(cd) === 1;
  if (httuBeyond(config, update, dirty)) return refuse(out, C_BAD_CD, 'HTTU (CD.HA, HD)');
  // EL2 without E2H has one table, no ASID, and no unprivileged accesses.
  const el2 = out.kind === CONTEXT_S1_EL2 && (out.flags & CONTEXT_FLAG_E2H) === 0;
  if (!el2) {
    out.asid = CD.ASID.get(cd);
    if (config.asidBits === 8 && out.asid > 0xff) return C_BAD_CD;
    if (CD.EPD1.get(cd) === 0) return refuse(out, C_BAD_CD, 'TTB1 (CD.EPD1)');
    if (CD.PAN.get(cd) === 1) out.flags |= CONTEXT_FLAG_PAN;
    if (CD.E0PD0.get(cd) === 1) out.flags |= CONTEXT_FLAG_E0PD;
  }
  // UWXN is for AArch32 tables only.
  if (CD.WXN.get(cd) === 1) out.flags |= CONTEXT_FLAG_WXN;
  if (CD.HAD0.get(cd) === 1) out.flags |= CONTEXT_FLAG_HAD;
  if (update) out.flags |= CONTEXT_FLAG_S1_HA | (dirty ? CONTEXT_FLAG_S1_HD : 0);
  else if (CD.AFFD.get(cd) === 0) out.flags |= CONTEXT_FLAG_S1_AF_FAULT;
  if (stalls) out.flags |= CONTEXT_FLAG_S1_STALL;
  if (CD.R.get(cd) === 1) out.flags |= CONTEXT_FLAG_S1_RECORD;
  if (CD.A.get(cd) === 1) out.flags |= CONTEXT_FLAG_S1_ABORT;
  if (CD.EPD0.get(cd) === 1 && !el2) {
    // 5.4.1.1: the fields of TTB0 are then ignored.
    out.s1StartLevel = NO_LEVEL;
    return 0;
  }
  if (CD.ENDI.get(cd) === 1) return refuse(out, C_BAD_CD, 'big-endian tables (CD.ENDI)');
  if (CD.TBI0.get(cd) === 1) return refuse(out, C_BAD_CD, 'top-byte-ignore (CD.TBI0)');
  const lg2 = granule(config, CD.TG0.get(cd));
  if (lg2 === undefined) return refuse(out, C_BAD_CD, 'granule (CD.TG0)');
  if (lg2 === 16 && config.oasBits > 48) out.flags |= CONTEXT_FLAG_OAS52;
  const t0sz = CD.T0SZ.get(cd);
  if (t0sz > MAX_TXSZ || t0sz < (lg2 === 16 && vaBits(config) === 52 ? 12 : 16)) return C_BAD_CD;
  out.s1GranuleLg2 = lg2;
  out.s1InputBits = 64 - t0sz;
  const below = Math.floor((out.s1InputBits - 1 - lg2) / (lg2 - 3));
  out.s1StartLevel = 3 - below;
  out.s1OutputBits = outputBits(CD.IPS.get(cd), config.oasBits);
  const root = CD.TTB0.get(cd);
  if (rootOutOfRange(root, out.s1OutputBits, lg2)) return C_BAD_CD;
  out.s1Root = alignedRoot(root, out.s1InputBits - lg2 - below * (lg2 - 3), out.s1OutputBits);
  return 0;
}

function refuse(out: StreamConfig, event: number, feature: string): number {
  out.refused = feature;
  return event;
}
