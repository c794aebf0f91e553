/**
 * What one SMMU implements, and how its identification registers say so. [IHI0070] 6.3.1 to 6.3.8.
 *
 * A key of the configuration turns a feature on. Always on: AArch64 tables, two-level stream tables, range
 * invalidation, MSIs, SEV, coherent table access, S2FWB (memory attributes have no effect here, so forcing them has
 * none either), overrides of privilege and instruction, HAD, E0PD, RAZ/WI termination.
 *
 * Short of SMMUv3.2: XNX is absent, and Hyp, which it demands of an SMMU with both stages, is a key.
 */
import { STALL_TAGS } from '../iotlb/port-layout.js';
import {
  AIDR,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  IIDR,
  STALL_MODEL_FORCED,
  STALL_MODEL_NO_STALL,
  STALL_MODEL_OPTIONAL,
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
  /** CMD_ATC_INV is consumed without effect. */
  readonly skipAtcInv?: boolean;
  /** TLBI and CFGI commands are consumed without effect while translations wait, unless they come a second time. */
  readonly dropsUnderLoad?: boolean;
}

/** log2 of a translation granule in bytes: 4, 16 and 64 KiB. */
export type GranuleLg2 = 12 | 14 | 16;
/** IDR0.HTTU: no hardware update of tables, of the Access flag, of the Access flag and dirty state. */
export type Httu = 'none' | 'access' | 'dirty';
/** IDR0.STALL_MODEL: faults never stall, stall when the configuration says so, or always stall. */
export type Stalls = 'none' | 'optional' | 'forced';

export interface Smmuv3Config {
  /** Index of the unit in its machine: the regions' suffix. */
  readonly index: number;
  /** StreamID bits, 1..32. */
  readonly sidBits: number;
  /** A power of two. */
  readonly iotlbEntries: number;
  /** 32, 36, 40, 42, 44, 48 or 52. */
  readonly oasBits: number;
  /** Granules that stage 1 and stage 2 may use. */
  readonly granules: readonly GranuleLg2[];
  readonly httu: Httu;
  /** SubstreamID bits, 0..20; with any, two-level CD tables too. */
  readonly ssidBits: number;
  readonly stalls: Stalls;
  /** ATS; with both stages, split-stage ATS too. */
  readonly ats: boolean;
  /** Page requests; only with ATS. */
  readonly pri: boolean;
  /** Stage 1 of the EL2 and EL2-E2H regimes; only with both stages. */
  readonly hyp: boolean;
  /** After how long a CMD_SYNC gives up on a device that does not complete an ATC invalidation. */
  readonly atcTimeoutNs: number;
  readonly vmidBits: 8 | 16;
  readonly asidBits: 8 | 16;
  /** Largest log2 of entries that a queue's base register takes. */
  readonly cmdqLog2: number;
  readonly evtqLog2: number;
  readonly priqLog2: number;
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
  priqLog2: 14,
  granules: [12, 14, 16],
  httu: 'dirty',
  ssidBits: 20,
  stalls: 'optional',
  ats: true,
  pri: true,
  hyp: false,
  atcTimeoutNs: 100_000_000,
  stages: 'both',
  bugs: {},
};

/** An SMMU cannot be built like this; `key` says which part of its configuration. */
export class Smmuv3ConfigError extends RangeError {
  override readonly name = 'Smmuv3ConfigError';
  readonly key: keyof Smmuv3Config;
  constructor(key: keyof Smmuv3Config, what: string) {
    super(`smmuv3: ${key} ${what}`);
    this.key = key;
  }
}

const list = (values: readonly unknown[]): string => values.join(', ');

/** @throws Smmuv3ConfigError naming the key that makes no sense, or that contradicts another */
export function smmuv3Config(options: Partial<Smmuv3Config> & { readonly index: number }): Smmuv3Config {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const config: Smmuv3Config = {
    ...SMMUV3_DEFAULTS,
    // Follows ATS unless it is asked for.
    pri: options.ats !== false,
    ...given,
    index: options.index,
  };
  const whole = (key: keyof Smmuv3Config, low: number, high: number): void => {
    const value = config[key];
    if (!(Number.isInteger(value) && (value as number) >= low && (value as number) <= high))
      throw new Smmuv3ConfigError(key, `is ${String(value)}, not in ${low}..${high}`);
  };
  const oneOf = (key: keyof Smmuv3Config, values: readonly unknown[]): void => {
    if (!values.includes(config[key]))
      throw new Smmuv3ConfigError(key, `is ${String(config[key])}, not one of ${list(values)}`);
  };
  whole('index', 0, 1023);
  whole('sidBits', 1, 32);
  whole('iotlbEntries', 4, 1 << 20);
  whole('cmdqLog2', 1, 14);
  whole('evtqLog2', 1, 14);
  whole('priqLog2', 1, 14);
  whole('ssidBits', 0, 20);
  whole('atcTimeoutNs', 0, Number.MAX_SAFE_INTEGER);
  if ((config.iotlbEntries & (config.iotlbEntries - 1)) !== 0)
    throw new Smmuv3ConfigError('iotlbEntries', `is ${config.iotlbEntries}, not a power of two`);
  oneOf('oasBits', ADDRESS_BITS);
  oneOf('vmidBits', [8, 16]);
  oneOf('asidBits', [8, 16]);
  oneOf('stages', ['s1', 's2', 'both']);
  oneOf('httu', ['none', 'access', 'dirty']);
  oneOf('stalls', ['none', 'optional', 'forced']);
  for (const key of ['ats', 'pri', 'hyp'] as const) oneOf(key, [false, true]);
  const { granules } = config;
  if (
    !Array.isArray(granules) ||
    granules.length === 0 ||
    granules.some((lg2) => ![12, 14, 16].includes(lg2))
  )
    throw new Smmuv3ConfigError('granules', `is [${list(granules)}], not some of 12, 14, 16`);
  // Without 64 KiB pages no descriptor holds an address of 52 bits (IDR5.DS is 0).
  if (config.oasBits === 52 && !granules.includes(16))
    throw new Smmuv3ConfigError('oasBits', 'is 52, which needs the granule of 64 KiB');
  if (config.pri && !config.ats) throw new Smmuv3ConfigError('pri', 'needs ats');
  if (config.hyp && config.stages !== 'both') throw new Smmuv3ConfigError('hyp', 'needs both stages');
  return config;
}

/** Bits of the largest stage-1 input range, IDR5.VAX. More than 48 need the granule of 64 KiB. */
export const vaBits = (config: Smmuv3Config): number => (config.oasBits === 52 ? 52 : 48);

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
const STALL_MODELS = {
  none: STALL_MODEL_NO_STALL,
  optional: STALL_MODEL_OPTIONAL,
  forced: STALL_MODEL_FORCED,
};

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
  idr0 = IDR0.STALL_MODEL.put(idr0, STALL_MODELS[config.stalls]);
  idr0 = IDR0.HTTU.put(idr0, ['none', 'access', 'dirty'].indexOf(config.httu));
  idr0 = IDR0.Hyp.put(idr0, config.hyp ? 1 : 0);
  idr0 = IDR0.ATS.put(idr0, config.ats ? 1 : 0);
  idr0 = IDR0.PRI.put(idr0, config.pri ? 1 : 0);
  idr0 = IDR0.CD2L.put(idr0, config.ssidBits > 0 ? 1 : 0);
  idr0 = IDR0.ST_LEVEL.put(idr0, 1);

  let idr1 = 0;
  idr1 = IDR1.SIDSIZE.put(idr1, config.sidBits);
  idr1 = IDR1.SSIDSIZE.put(idr1, config.ssidBits);
  idr1 = IDR1.PRIQS.put(idr1, config.pri ? config.priqLog2 : 0);
  idr1 = IDR1.EVENTQS.put(idr1, config.evtqLog2);
  idr1 = IDR1.CMDQS.put(idr1, config.cmdqLog2);

  idr1 = IDR1.ATTR_PERMS_OVR.put(idr1, 1);

  let idr3 = 0;
  idr3 = IDR3.HAD.put(idr3, config.stages !== 's2' ? 1 : 0);
  idr3 = IDR3.E0PD.put(idr3, config.stages !== 's2' ? 1 : 0);
  // A PRG response that the SMMU makes itself has the PASID of its request, whatever STE.PPAR says.
  idr3 = IDR3.PPS.put(idr3, config.pri ? 1 : 0);
  idr3 = IDR3.FWB.put(idr3, 1);
  idr3 = IDR3.RIL.put(idr3, 1);
  // Entries of different sizes never conflict here: whichever is found is the old translation or the new one.
  idr3 = IDR3.BBML.put(idr3, 2);

  let idr5 = 0;
  idr5 = IDR5.OAS.put(idr5, ADDRESS_BITS.indexOf(config.oasBits));
  idr5 = IDR5.GRAN4K.put(idr5, config.granules.includes(12) ? 1 : 0);
  idr5 = IDR5.GRAN16K.put(idr5, config.granules.includes(14) ? 1 : 0);
  idr5 = IDR5.GRAN64K.put(idr5, config.granules.includes(16) ? 1 : 0);
  idr5 = IDR5.VAX.put(idr5, vaBits(config) === 52 ? 1 : 0);
  idr5 = IDR5.STALL_MAX.put(idr5, config.stalls === 'none' ? 0 : STALL_TAGS);

  let iidr = 0;
  iidr = IIDR.Implementer.put(iidr, IMPLEMENTER);
  iidr = IIDR.ProductID.put(iidr, 1);

  return { idr0, idr1, idr3, idr5, iidr, aidr: AIDR.ArchMinorRev.put(0, 2) };
}
