/**
 * Is this STE, or CD, valid, and what does it ask for? [IHI0070] 5.2.2 and 5.4.2. Pure functions of the words
 * fetched: they fill a StreamConfig, or name the event that the transaction gets.
 *
 * What the IDRs report as absent is refused by name as well (`refused`), so that a log says why a stream faults:
 * ATS, substreams, stalls, HTTU, TTB1, top-byte-ignore, granules other than 4 KiB, AArch32, big-endian tables.
 * The spec lets an SMMU without ATS or substreams ignore EATS and S1CDMax; here they are C_BAD_STE, because
 * ignoring them would hide that the feature is missing.
 */
import {
  CONTEXT_ABORT,
  CONTEXT_BYPASS,
  CONTEXT_FLAG_MEV,
  CONTEXT_FLAG_S1_ABORT,
  CONTEXT_FLAG_S1_AF_FAULT,
  CONTEXT_FLAG_S1_RECORD,
  CONTEXT_FLAG_S2_AF_FAULT,
  CONTEXT_FLAG_S2_RECORD,
  CONTEXT_NESTED,
  CONTEXT_S1,
  CONTEXT_S2,
} from '../iotlb/unit-layout.js';
import { CD, TG0_4K } from './cd.js';
import type { Smmuv3Config } from './config.js';
import { C_BAD_CD, C_BAD_STE } from './event.js';
import { ADDRESS_BITS, CONFIG_BYPASS, EATS_ABORT, S2TG_4K, STE } from './ste.js';

/** A stream's configuration, decoded. Reused from one decode to the next. */
export class StreamConfig {
  /** CONTEXT_* */
  kind = CONTEXT_ABORT;
  flags = 0;
  vmid = 0;
  asid = 0;
  /** CD.EPD0: every stage-1 translation faults. */
  s1Disabled = false;
  contextPtr = 0;
  s1Root = 0;
  s1InputBits = 0;
  s1OutputBits = 0;
  s1StartLevel = 0;
  s2Root = 0;
  s2InputBits = 0;
  s2OutputBits = 0;
  s2StartLevel = 0;
  /** After a refusal: what was asked for; else ''. */
  refused = '';
}

const PAGE_LG2 = 12;
const LEVEL_BITS = 9;
/** TxSZ beyond this needs small translation tables (IDR3.STT). */
const MAX_TXSZ = 39;
/** TxSZ below this needs 52-bit addresses (IDR5.VAX, DS). */
const MIN_TXSZ = 16;

/** A physical size field, capped at what the SMMU implements; reserved encodings count as the largest. */
const outputBits = (encoded: number, oasBits: number): number =>
  Math.min(ADDRESS_BITS[encoded] ?? oasBits, oasBits);

/** @returns 0, or C_BAD_STE with `out.refused` set when it was for an absent feature */
export function decodeSte(ste: Uint32Array, config: Smmuv3Config, out: StreamConfig): number {
  out.refused = '';
  out.flags = 0;
  out.vmid = 0;
  out.asid = 0;
  out.s1Disabled = false;
  out.s1Root = out.s1InputBits = out.s1OutputBits = out.s1StartLevel = 0;
  out.s2Root = out.s2InputBits = out.s2OutputBits = out.s2StartLevel = 0;
  if (STE.V.get(ste) === 0) return C_BAD_STE;
  const mode = STE.Config.get(ste);
  if (mode < CONFIG_BYPASS) {
    // 0b0xx: everything else is ignored.
    out.kind = CONTEXT_ABORT;
    return 0;
  }
  if (STE.MEV.get(ste) === 1) out.flags |= CONTEXT_FLAG_MEV;
  if (mode === CONFIG_BYPASS) {
    out.kind = CONTEXT_BYPASS;
    out.s1OutputBits = config.oasBits;
    return 0;
  }
  const s1 = (mode & 1) !== 0;
  const s2 = (mode & 2) !== 0;
  out.kind = s1 ? (s2 ? CONTEXT_NESTED : CONTEXT_S1) : CONTEXT_S2;
  if (s1 && config.stages === 's2') return refuse(out, C_BAD_STE, 'stage 1 (STE.Config)');
  if (s2 && config.stages === 's1') return refuse(out, C_BAD_STE, 'stage 2 (STE.Config)');
  if (STE.EATS.get(ste) !== EATS_ABORT) return refuse(out, C_BAD_STE, 'ATS (STE.EATS)');
  if (config.stages !== 's1') {
    out.vmid = STE.S2VMID.get(ste);
    if (config.vmidBits === 8 && out.vmid > 0xff) return C_BAD_STE;
  }
  if (s1) {
    if (STE.S1STALLD.get(ste) === 1) return refuse(out, C_BAD_STE, 'stalls (STE.S1STALLD)');
    if (STE.S1CDMax.get(ste) !== 0) return refuse(out, C_BAD_STE, 'substreams (STE.S1CDMax)');
    out.contextPtr = STE.S1ContextPtr.get(ste);
    // A nested one is an IPA, which stage 2 judges.
    if (!s2 && out.contextPtr >= 2 ** config.oasBits) return C_BAD_STE;
  }
  return s2 ? decodeStage2(ste, config, out) : 0;
}

function decodeStage2(ste: Uint32Array, config: Smmuv3Config, out: StreamConfig): number {
  if (STE.S2AA64.get(ste) === 0) return refuse(out, C_BAD_STE, 'AArch32 tables (STE.S2AA64)');
  if (STE.S2ENDI.get(ste) === 1) return refuse(out, C_BAD_STE, 'big-endian tables (STE.S2ENDI)');
  if (STE.S2S.get(ste) === 1) return refuse(out, C_BAD_STE, 'stalls (STE.S2S)');
  if (STE.S2HA.get(ste) === 1 || STE.S2HD.get(ste) === 1)
    return refuse(out, C_BAD_STE, 'HTTU (STE.S2HA, S2HD)');
  if (STE.S2TG.get(ste) !== S2TG_4K) return refuse(out, C_BAD_STE, 'granule (STE.S2TG)');
  const t0sz = STE.S2T0SZ.get(ste);
  if (t0sz > MAX_TXSZ || t0sz < Math.max(MIN_TXSZ, 64 - config.oasBits)) return C_BAD_STE;
  out.s2InputBits = 64 - t0sz;
  const sl0 = STE.S2SL0.get(ste);
  if (sl0 === 3) return C_BAD_STE;
  out.s2StartLevel = 2 - sl0;
  // [DDI0487] AArch64.S2InconsistentSL: the first table resolves 1 to 13 bits (16 concatenated tables), and
  // starting at level 0 needs an implementation with more than 42 address bits.
  const resolved = out.s2InputBits - (PAGE_LG2 + LEVEL_BITS * (3 - out.s2StartLevel));
  if (resolved < 1 || resolved > LEVEL_BITS + 4) return C_BAD_STE;
  if (out.s2StartLevel === 0 && config.oasBits <= 42) return C_BAD_STE;
  out.s2OutputBits = outputBits(STE.S2PS.get(ste), config.oasBits);
  out.s2Root = STE.S2TTB.get(ste);
  if (out.s2Root >= 2 ** out.s2OutputBits) return C_BAD_STE;
  if (STE.S2AFFD.get(ste) === 0) out.flags |= CONTEXT_FLAG_S2_AF_FAULT;
  if (STE.S2R.get(ste) === 1) out.flags |= CONTEXT_FLAG_S2_RECORD;
  return 0;
}

/** Adds the CD to what the STE said. @returns 0, or C_BAD_CD */
export function decodeCd(cd: Uint32Array, config: Smmuv3Config, out: StreamConfig): number {
  out.refused = '';
  if (CD.V.get(cd) === 0) return C_BAD_CD;
  if (CD.S.get(cd) === 1) return refuse(out, C_BAD_CD, 'stalls (CD.S)');
  if (CD.AA64.get(cd) === 0) return refuse(out, C_BAD_CD, 'AArch32 tables (CD.AA64)');
  if (CD.HA.get(cd) === 1 || CD.HD.get(cd) === 1) return refuse(out, C_BAD_CD, 'HTTU (CD.HA, HD)');
  out.asid = CD.ASID.get(cd);
  if (config.asidBits === 8 && out.asid > 0xff) return C_BAD_CD;
  if (CD.EPD1.get(cd) === 0) return refuse(out, C_BAD_CD, 'TTB1 (CD.EPD1)');
  if (CD.AFFD.get(cd) === 0) out.flags |= CONTEXT_FLAG_S1_AF_FAULT;
  if (CD.R.get(cd) === 1) out.flags |= CONTEXT_FLAG_S1_RECORD;
  if (CD.A.get(cd) === 1) out.flags |= CONTEXT_FLAG_S1_ABORT;
  if (CD.EPD0.get(cd) === 1) {
    // The fields of TTB0 are then ignored.
    out.s1Disabled = true;
    return 0;
  }
  if (CD.ENDI.get(cd) === 1) return refuse(out, C_BAD_CD, 'big-endian tables (CD.ENDI)');
  if (CD.TBI0.get(cd) === 1) return refuse(out, C_BAD_CD, 'top-byte-ignore (CD.TBI0)');
  if (CD.TG0.get(cd) !== TG0_4K) return refuse(out, C_BAD_CD, 'granule (CD.TG0)');
  const t0sz = CD.T0SZ.get(cd);
  if (t0sz > MAX_TXSZ || t0sz < MIN_TXSZ) return C_BAD_CD;
  out.s1InputBits = 64 - t0sz;
  out.s1StartLevel = 3 - Math.floor((out.s1InputBits - 1 - PAGE_LG2) / LEVEL_BITS);
  out.s1OutputBits = outputBits(CD.IPS.get(cd), config.oasBits);
  out.s1Root = CD.TTB0.get(cd);
  return out.s1Root >= 2 ** out.s1OutputBits ? C_BAD_CD : 0;
}

function refuse(out: StreamConfig, event: number, feature: string): number {
  out.refused = feature;
  return event;
}
