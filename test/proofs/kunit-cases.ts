/**
 * The transitions of drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3-test.c (Linux 7.0), case by case: from which entry to
 * which, how many syncs it expects, and whether hitless. The fields that differ are those that differ there; their
 * values are legal ones, where Linux's are arbitrary (S2T0SZ 4, an S1CDMax of 31 bits), so that what an SMMU makes of
 * each image says something. Linux's VMID there is 0 throughout.
 *
 * The last of its cases, invs_test, is no transition: test/runtime/drivers/smmuv3/pieces.test.ts.
 */
import { stage1Cd } from '../../runtime/drivers/smmuv3/cd.js';
import { abortSte, bypassSte, cdTableSte, stage2Ste } from '../../runtime/drivers/smmuv3/ste.js';
import type { Image } from './ste-behaviour.js';
import type { EntryKind } from './transition.js';

/** FEAT_STALLS, FEAT_ATTR_TYPES_OVR. */
const FEATURES = { attrTypesOvr: true, stalls: true, e2h: false };
export const S1DSS_TERMINATE = 0;
export const S1DSS_BYPASS = 1;
export const S1DSS_SSID0 = 2;
const SHCFG_INCOMING = 1n << 44n;
const MEV = 1n << 19n;
const CONFIG_NESTED = 7n << 1n;

export interface Traits {
  readonly ats?: boolean;
  readonly stall?: boolean;
}

const ATS: Traits = { ats: true };
const traits = ({ ats = false, stall = false }: Traits) => ({ ats, stall });
export const words = (image: Image, change: Readonly<Record<number, bigint>>): Image =>
  image.map((word, i) => word | (change[i] ?? 0n));

/** A 64 KiB two-level CD table of 2^20 substreams. Linux sets SHCFG where S1DSS lets traffic through. */
export function cdTable(s1dss: number, has: Traits = {}, base = 0x1234_5000): Image {
  const ste = cdTableSte({ base, s1Fmt: 2, s1CdMax: 20 }, FEATURES, traits(has), s1dss);
  return s1dss === S1DSS_BYPASS ? words(ste, { 1: SHCFG_INCOMING }) : ste;
}

export function stage2(has: Traits = {}, vmid = 0, root = 0x5678_0000): Image {
  return stage2Ste({ vmid, root, inputBits: 44, startLevel: 0, ps: 5, fwb: false }, FEATURES, traits(has));
}

/** arm_smmu_test_make_cdtable_ste with ARM_SMMU_MASTER_TEST_NESTED. */
function nested(s1dss: number, has: Traits): Image {
  const s1 = words(cdTable(s1dss, has), { 0: CONFIG_NESTED, 1: MEV });
  return [...s1.slice(0, 2), ...stage2(has).slice(2)];
}

export const ABORT = abortSte();
export const BYPASS = bypassSte(FEATURES);
export const CLEAR: Image = new Array<bigint>(8).fill(0n);

export const s1Cd = (asid: number, root = 0x9abc_d000): Image =>
  stage1Cd({ asid, root, inputBits: 48, ips: 5 });

/** A process's own table; once the process is gone, EPD0 and nothing of TTB0, nor R. */
export const svaCd = (asid: number): Image => s1Cd(asid, 0xfed0_0000);
const EPD0 = 1n << 14n;
const TTB0_FIELDS = 0x3fffn;
const R = 1n << 45n;
export function svaReleaseCd(asid: number): Image {
  const cd = svaCd(asid);
  return [(cd[0]! & ~(TTB0_FIELDS | R)) | EPD0, 0n, ...cd.slice(2)];
}

export interface Transition {
  readonly kind: EntryKind;
  readonly from: Image;
  readonly to: Image;
  /** NUM_EXPECTED_SYNCS */
  readonly syncs: number;
  readonly hitless: boolean;
}

export interface KunitCase {
  /** Without `arm_smmu_v3_`. */
  readonly name: string;
  readonly transitions: readonly Transition[];
}

const ste = (name: string, from: Image, to: Image, syncs: number, hitless = true): KunitCase => ({
  name: `write_ste_test_${name}`,
  transitions: [{ kind: 'ste', from, to, syncs, hitless }],
});

const both = (
  kind: EntryKind,
  name: string,
  a: Image,
  b: Image,
  syncs: number,
  hitless: boolean,
): KunitCase => ({
  name: `write_${kind}_test_${name}`,
  transitions: [
    { kind, from: a, to: b, syncs, hitless },
    { kind, from: b, to: a, syncs, hitless },
  ],
});

const S1 = cdTable(S1DSS_SSID0, ATS);
const S1_BYPASS = cdTable(S1DSS_BYPASS, ATS);
const S2 = stage2(ATS);
const STALL: Traits = { stall: true };

/** In the order of arm_smmu_v3_test_cases. */
export const KUNIT_CASES: readonly KunitCase[] = [
  ste('bypass_to_abort', BYPASS, ABORT, 2),
  ste('abort_to_bypass', ABORT, BYPASS, 2),
  ste('cdtable_to_abort', S1, ABORT, 2),
  ste('abort_to_cdtable', ABORT, S1, 2),
  ste('cdtable_to_bypass', S1, BYPASS, 3),
  ste('bypass_to_cdtable', BYPASS, S1, 3),
  both('ste', 'cdtable_s1dss_change', S1, S1_BYPASS, 1, true),
  ste('s1dssbypass_to_stebypass', S1_BYPASS, BYPASS, 2),
  ste('stebypass_to_s1dssbypass', BYPASS, S1_BYPASS, 2),
  ste('s2_to_abort', S2, ABORT, 2),
  ste('abort_to_s2', ABORT, S2, 2),
  ste('s2_to_bypass', S2, BYPASS, 2),
  ste('bypass_to_s2', BYPASS, S2, 2),
  ste('s1_to_s2', S1, S2, 3),
  ste('s2_to_s1', S2, S1, 3),
  ste('non_hitless', S1, cdTable(S1DSS_BYPASS, ATS, 0x4b4b_4000), 3, false),
  both('cd', 's1_clear', CLEAR, s1Cd(1997), 2, false),
  both('cd', 's1_change_asid', s1Cd(778), s1Cd(1997), 1, true),
  ste('s1_to_s2_stall', cdTable(S1DSS_SSID0, STALL), stage2(STALL), 3),
  ste('s2_to_s1_stall', stage2(STALL), cdTable(S1DSS_SSID0, STALL), 3),
  ste('nested_s1dssbypass_to_s1bypass', nested(S1DSS_BYPASS, ATS), stage2(), 3),
  ste('nested_s1bypass_to_s1dssbypass', stage2(), nested(S1DSS_BYPASS, ATS), 2),
  both('cd', 'sva_clear', CLEAR, svaCd(1997), 2, false),
  both('cd', 'sva_release', svaCd(1997), svaReleaseCd(1997), 2, true),
];
