/**
 * The ID registers a guest sees: what its physical SMMUs all can do, less what a virtual SMMU does not offer.
 * [IHI0070] 6.3.1 to 6.3.6.
 *
 * Never offered: stage 2, Hyp, HTTU, ATOS, VATOS, MSIs (interrupts are wired), PRI, stalls, ECMDQ, 16 and 64 KiB
 * granules unless the hardware has them. ATS only when asked for.
 */
import {
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  STALL_MODEL_NO_STALL,
  TTENDIAN_LITTLE,
  TTF_AARCH64,
} from '../../hw/smmuv3/registers.js';
import type { SmmuHwInfo } from './iommufd-calls.js';

/** What varies between SMMUs; all booleans are 0 or 1 so that the least of two is what both have. */
export interface SmmuFeatures {
  readonly s1p: number;
  readonly aarch64: number;
  readonly coherent: number;
  readonly asid16: number;
  readonly ats: number;
  readonly cd2l: number;
  readonly sev: number;
  readonly twoLevelStreamTable: number;
  readonly sidBits: number;
  readonly ssidBits: number;
  readonly cmdqsLg2: number;
  readonly eventqsLg2: number;
  readonly rangeInvalidate: number;
  readonly oas: number;
  readonly gran4k: number;
  readonly gran16k: number;
  readonly gran64k: number;
}

/** Longest queues offered, log2 of entries: bounds the work one register write can ask for. */
const MAX_QUEUE_LG2 = 12;
const MAX_SID_BITS = 16;

export function featuresOf(info: SmmuHwInfo, ats: boolean): SmmuFeatures {
  const idr = (n: number): number => info.idr[n] ?? 0;
  return {
    s1p: IDR0.S1P.get(idr(0)),
    aarch64: IDR0.TTF.get(idr(0)) >> 1,
    coherent: IDR0.COHACC.get(idr(0)),
    asid16: IDR0.ASID16.get(idr(0)),
    ats: ats ? IDR0.ATS.get(idr(0)) : 0,
    cd2l: IDR0.CD2L.get(idr(0)),
    sev: IDR0.SEV.get(idr(0)),
    twoLevelStreamTable: 1,
    sidBits: Math.min(IDR1.SIDSIZE.get(idr(1)), MAX_SID_BITS),
    ssidBits: IDR1.SSIDSIZE.get(idr(1)),
    cmdqsLg2: Math.min(IDR1.CMDQS.get(idr(1)), MAX_QUEUE_LG2),
    eventqsLg2: Math.min(IDR1.EVENTQS.get(idr(1)), MAX_QUEUE_LG2),
    rangeInvalidate: IDR3.RIL.get(idr(3)),
    oas: IDR5.OAS.get(idr(5)),
    gran4k: IDR5.GRAN4K.get(idr(5)),
    gran16k: IDR5.GRAN16K.get(idr(5)),
    gran64k: IDR5.GRAN64K.get(idr(5)),
  };
}

/** What both offer. */
export function commonFeatures(a: SmmuFeatures, b: SmmuFeatures): SmmuFeatures {
  const keys = Object.keys(a) as (keyof SmmuFeatures)[];
  return Object.fromEntries(keys.map((key) => [key, Math.min(a[key], b[key])])) as unknown as SmmuFeatures;
}

/** Whether an SMMU can do all that was promised. */
export function offers(have: SmmuFeatures, promised: SmmuFeatures): boolean {
  return (Object.keys(promised) as (keyof SmmuFeatures)[]).every((key) => have[key] >= promised[key]);
}

export interface VirtualIdrs {
  readonly idr0: number;
  readonly idr1: number;
  readonly idr3: number;
  readonly idr5: number;
}

export function virtualIdrs(f: SmmuFeatures): VirtualIdrs {
  let idr0 = 0;
  idr0 = IDR0.S1P.put(idr0, f.s1p);
  idr0 = IDR0.TTF.put(idr0, f.aarch64 * TTF_AARCH64);
  idr0 = IDR0.COHACC.put(idr0, f.coherent);
  idr0 = IDR0.ASID16.put(idr0, f.asid16);
  idr0 = IDR0.ATS.put(idr0, f.ats);
  idr0 = IDR0.CD2L.put(idr0, f.cd2l);
  idr0 = IDR0.SEV.put(idr0, f.sev);
  idr0 = IDR0.TTENDIAN.put(idr0, TTENDIAN_LITTLE);
  idr0 = IDR0.STALL_MODEL.put(idr0, STALL_MODEL_NO_STALL);
  idr0 = IDR0.ST_LEVEL.put(idr0, f.twoLevelStreamTable);
  let idr1 = 0;
  idr1 = IDR1.SIDSIZE.put(idr1, f.sidBits);
  idr1 = IDR1.SSIDSIZE.put(idr1, f.ssidBits);
  idr1 = IDR1.CMDQS.put(idr1, f.cmdqsLg2);
  idr1 = IDR1.EVENTQS.put(idr1, f.eventqsLg2);
  let idr5 = 0;
  idr5 = IDR5.OAS.put(idr5, f.oas);
  idr5 = IDR5.GRAN4K.put(idr5, f.gran4k);
  idr5 = IDR5.GRAN16K.put(idr5, f.gran16k);
  idr5 = IDR5.GRAN64K.put(idr5, f.gran64k);
  return { idr0, idr1, idr3: IDR3.RIL.put(0, f.rangeInvalidate), idr5 };
}
