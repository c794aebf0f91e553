/**
 * What one SMMU implements, and how its identification registers say so. [IHI0070] 6.3.1 to 6.3.8.
 *
 * Off, and reported as off: HTTU, ATS, PRI, stalls, substreams, two-level CD tables, EL2, 16 and 64 KiB granules,
 * 52-bit addresses, ECMDQ. On: both stages, AArch64 tables, two-level stream tables, range invalidation, MSIs, SEV,
 * coherent table access, S2FWB (memory attributes have no effect here, so forcing them has none either).
 */
import {
  AIDR,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  IIDR,
  STALL_MODEL_NO_STALL,
  TTENDIAN_LITTLE,
  TTF_AARCH64,
} from './registers.js';
import { ADDRESS_BITS } from './ste.js';

/** Deliberate faults, to prove that the checkers see them. All off unless set. */
export interface Smmuv3Bugs {
  /** TLBI commands are consumed without effect. */
  readonly skipTlbi?: boolean;
  /** CMD_SYNC completes without waiting for the ports to leave their epoch. */
  readonly earlySync?: boolean;
}

export interface Smmuv3Config {
  /** Index of the unit in its machine: the regions' suffix. */
  readonly index: number;
  /** StreamID bits, 1..32. */
  readonly sidBits: number;
  /** A power of two. */
  readonly iotlbEntries: number;
  /** 32, 36, 40, 42, 44 or 48. */
  readonly oasBits: number;
  readonly vmidBits: 8 | 16;
  readonly asidBits: 8 | 16;
  /** Largest log2 of entries that a queue's base register takes. */
  readonly cmdqLog2: number;
  readonly evtqLog2: number;
  /** Which stages exist. */
  readonly stages: 's1' | 's2' | 'both';
  readonly bugs: Smmuv3Bugs;
}

export const SMMUV3_DEFAULTS: Omit<Smmuv3Config, 'index'> = {
  sidBits: 16,
  iotlbEntries: 4096,
  oasBits: 48,
  vmidBits: 16,
  asidBits: 16,
  cmdqLog2: 14,
  evtqLog2: 14,
  stages: 'both',
  bugs: {},
};

/** @throws RangeError naming the key that makes no sense */
export function smmuv3Config(options: Partial<Smmuv3Config> & { readonly index: number }): Smmuv3Config {
  const config = { ...SMMUV3_DEFAULTS, ...options };
  const whole = (key: keyof Smmuv3Config, low: number, high: number): void => {
    const value = config[key];
    if (!(Number.isInteger(value) && (value as number) >= low && (value as number) <= high))
      throw new RangeError(`smmuv3: ${key} is ${String(value)}, not in ${low}..${high}`);
  };
  whole('index', 0, 1023);
  whole('sidBits', 1, 32);
  whole('iotlbEntries', 4, 1 << 20);
  whole('cmdqLog2', 1, 14);
  whole('evtqLog2', 1, 14);
  if ((config.iotlbEntries & (config.iotlbEntries - 1)) !== 0)
    throw new RangeError(`smmuv3: iotlbEntries is ${config.iotlbEntries}, not a power of two`);
  if (!ADDRESS_BITS.includes(config.oasBits) || config.oasBits > 48)
    throw new RangeError(`smmuv3: oasBits is ${config.oasBits}, not 32, 36, 40, 42, 44 or 48`);
  for (const key of ['vmidBits', 'asidBits'] as const)
    if (config[key] !== 8 && config[key] !== 16)
      throw new RangeError(`smmuv3: ${key} is ${String(config[key])}, not 8 or 16`);
  if (!['s1', 's2', 'both'].includes(config.stages))
    throw new RangeError(`smmuv3: stages is ${String(config.stages)}, not s1, s2 or both`);
  return config;
}

/** The identification registers' values. */
export interface Identification {
  readonly idr0: number;
  readonly idr1: number;
  readonly idr3: number;
  readonly idr5: number;
  readonly iidr: number;
  readonly aidr: number;
}

/** JEP106-style implementer of no real vendor, so that no driver applies another's errata. */
const IMPLEMENTER = 0xffe;

export function identification(config: Smmuv3Config): Identification {
  let idr0 = 0;
  idr0 = IDR0.S2P.put(idr0, config.stages === 's1' ? 0 : 1);
  idr0 = IDR0.S1P.put(idr0, config.stages === 's2' ? 0 : 1);
  idr0 = IDR0.TTF.put(idr0, TTF_AARCH64);
  idr0 = IDR0.COHACC.put(idr0, 1);
  idr0 = IDR0.ASID16.put(idr0, config.asidBits === 16 ? 1 : 0);
  idr0 = IDR0.VMID16.put(idr0, config.vmidBits === 16 ? 1 : 0);
  idr0 = IDR0.MSI.put(idr0, 1);
  idr0 = IDR0.SEV.put(idr0, 1);
  idr0 = IDR0.TTENDIAN.put(idr0, TTENDIAN_LITTLE);
  idr0 = IDR0.STALL_MODEL.put(idr0, STALL_MODEL_NO_STALL);
  idr0 = IDR0.ST_LEVEL.put(idr0, 1);

  let idr1 = 0;
  idr1 = IDR1.SIDSIZE.put(idr1, config.sidBits);
  idr1 = IDR1.EVENTQS.put(idr1, config.evtqLog2);
  idr1 = IDR1.CMDQS.put(idr1, config.cmdqLog2);

  let idr3 = 0;
  idr3 = IDR3.FWB.put(idr3, 1);
  idr3 = IDR3.RIL.put(idr3, 1);
  // Entries of different sizes never conflict here: whichever is found is the old translation or the new one.
  idr3 = IDR3.BBML.put(idr3, 2);

  let idr5 = 0;
  idr5 = IDR5.OAS.put(idr5, ADDRESS_BITS.indexOf(config.oasBits));
  idr5 = IDR5.GRAN4K.put(idr5, 1);

  let iidr = 0;
  iidr = IIDR.Implementer.put(iidr, IMPLEMENTER);
  iidr = IIDR.ProductID.put(iidr, 1);

  return { idr0, idr1, idr3, idr5, iidr, aidr: AIDR.ArchMinorRev.put(0, 2) };
}
