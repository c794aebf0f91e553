/** Entries of every kind that the driver writes, and a few that only hardware knows. */
import { stage1Cd } from '../../runtime/drivers/smmuv3/cd.js';
import { cdTableSte, nestedSte, stage2Ste } from '../../runtime/drivers/smmuv3/ste.js';
import {
  ABORT,
  BYPASS,
  CLEAR,
  cdTable,
  S1DSS_BYPASS,
  S1DSS_SSID0,
  S1DSS_TERMINATE,
  s1Cd,
  stage2,
  svaCd,
  svaReleaseCd,
  words,
} from './kunit-cases.js';
import type { Image } from './ste-behaviour.js';

const FEATURES = { attrTypesOvr: true, stalls: true, e2h: false };
const ATS = { ats: true };
const STALL = { stall: true };

/** What a guest asks for: a CD table of 2^4 linear CDs at an IPA of its own. */
const vste = (table: bigint, s1dss: number): readonly [bigint, bigint] => [
  1n | (5n << 1n) | table | (4n << 59n),
  BigInt(s1dss) | (1n << 2n) | (1n << 4n) | (3n << 6n),
];

const S2_OF_GUEST = { vmid: 1, root: 0x5678_0000, inputBits: 44, startLevel: 0, ps: 5, fwb: true } as const;

const nested = (table: bigint, s1dss = S1DSS_SSID0, ats = false, vmid = 1): Image =>
  nestedSte({ ...S2_OF_GUEST, vmid }, FEATURES, vste(table, s1dss), { ats, stall: false });

const SPLIT_STAGE_ATS = 2n << 28n;

/** VMIDs as they are: 0 is the host's own stage 1, each stage 2 has one of its own. */
export const STE_KINDS = {
  'V=0': CLEAR,
  abort: ABORT,
  bypass: BYPASS,
  s1: cdTable(S1DSS_SSID0),
  's1+ats': cdTable(S1DSS_SSID0, ATS),
  's1+stall': cdTable(S1DSS_SSID0, STALL),
  's1dss=abort': cdTable(S1DSS_TERMINATE),
  's1dss=abort+ats': cdTable(S1DSS_TERMINATE, ATS),
  's1dss=bypass': cdTable(S1DSS_BYPASS),
  's1 one CD': cdTableSte({ base: 0x4b_4b00, s1Fmt: 0, s1CdMax: 0 }, FEATURES, { ats: false, stall: false }),
  s2: stage2({}, 1),
  's2+ats': stage2(ATS, 1),
  's2+stall': stage2(STALL, 1),
  's2, other VMID': stage2({}, 2),
  's2, other root': stage2({}, 2, 0x6789_0000),
  's2 of guest': stage2Ste(S2_OF_GUEST, FEATURES),
  nested: nested(0x7000n),
  'nested+ats': nested(0x7000n, S1DSS_SSID0, true),
  'nested, other CDs': nested(0x8000n),
  'nested, other VMID': nested(0x7000n, S1DSS_SSID0, false, 2),
  'nested s1dss=abort': nested(0x7000n, S1DSS_TERMINATE),
  'nested s1dss=bypass': nested(0x7000n, S1DSS_BYPASS),
  'nested+split ats': words(nested(0x7000n), { 1: SPLIT_STAGE_ATS }),
} satisfies Readonly<Record<string, Image>>;

export const CD_KINDS = {
  clear: CLEAR,
  s1: s1Cd(1),
  's1, other ASID': s1Cd(2),
  's1, other root': s1Cd(1, 0x7777_0000),
  's1, both other': s1Cd(2, 0x7777_0000),
  's1, stalls': stage1Cd({ asid: 1, root: 0x9abc_d000, inputBits: 48, ips: 5 }, true),
  's1, dirty': stage1Cd({ asid: 1, root: 0x9abc_d000, inputBits: 48, ips: 5, dirty: true }),
  process: svaCd(3),
  'process gone': svaReleaseCd(3),
} satisfies Readonly<Record<string, Image>>;
