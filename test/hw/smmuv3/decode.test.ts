/** Which STEs and CDs are ILLEGAL on which SMMU, and what the legal ones ask for. [IHI0070] 5.2.2, 5.4.2, 5.5 */
import test from 'ava';
import { SMMUV3_DEFAULTS, type Smmuv3Config } from '../../../hw/smmuv3/config.js';
import {
  type Controls,
  decodeCd,
  decodeSte,
  StreamConfig,
  selectCd,
} from '../../../hw/smmuv3/stream-config.js';
import * as S from '../../kit/smmu-structures.js';

const C_BAD_STE = 0x04;
const F_STREAM_DISABLED = 0x06;
const C_BAD_SUBSTREAMID = 0x08;
const C_BAD_CD = 0x0a;

// CONTEXT_* and CONTEXT_FLAG_*, restated.
const BYPASS = 1;
const S1 = 2;
const S2 = 3;
const NESTED = 4;
const EL2 = 5;
const S1_AF = 1 << 0;
const S2_AF = 1 << 1;
const S1_RECORD = 1 << 2;
const S2_RECORD = 1 << 3;
const S1_ABORT = 1 << 4;
const MEV = 1 << 5;
const S1_HA = 1 << 6;
const S1_HD = 1 << 7;
const S2_HA = 1 << 8;
const S2_HD = 1 << 9;
const S1_STALL = 1 << 10;
const S2_STALL = 1 << 11;
const ATS = 1 << 12;
const S1CHK = 1 << 13;
const E2H = 1 << 19;
const S2_PTW = 1 << 20;

/** As much as there is, modelled by now or not: decoding does not ask. */
const FULL: Smmuv3Config = {
  ...SMMUV3_DEFAULTS,
  index: 0,
  granules: [12, 14, 16],
  oasBits: 52,
  httu: 'dirty',
  ssidBits: 20,
  stalls: 'optional',
  ats: true,
  pri: true,
  hyp: true,
};
const ON: Controls = { e2h: true, atsChk: true };
const OFF: Controls = { e2h: false, atsChk: false };

const words = (from: readonly bigint[]): Uint32Array =>
  Uint32Array.from(
    from
      .concat(Array<bigint>(8).fill(0n))
      .slice(0, 8)
      .flatMap((word) => [Number(word & 0xffff_ffffn), Number(word >> 32n)]),
  );
/** ORs `value` at bit `low` of the structure. */
const set = (from: readonly bigint[], low: number, value: number | bigint): bigint[] => {
  const to = [...from];
  to[low >> 6]! |= BigInt(value) << BigInt(low & 63);
  return to;
};
const put = (from: readonly bigint[], high: number, low: number, value: number | bigint): bigint[] => {
  const to = [...from];
  to[low >> 6]! &= ~(((1n << BigInt(high - low + 1)) - 1n) << BigInt(low & 63));
  return set(to, low, value);
};

const ste = (
  from: readonly bigint[],
  config: Partial<Smmuv3Config> = {},
  controls = OFF,
): StreamConfig & { status: number } => {
  const out = new StreamConfig();
  const status = decodeSte(words(from), { ...FULL, ...config }, controls, out);
  return Object.assign(out, { status });
};
/** Through an STE that is legal. */
const cd = (
  from: readonly bigint[],
  config: Partial<Smmuv3Config> = {},
  stream: readonly bigint[] = S1_STE,
  controls = OFF,
): StreamConfig & { status: number } => {
  const out = ste(stream, config, controls);
  const all = { ...FULL, ...config };
  out.status ||= selectCd(-1, all, out) || decodeCd(words(from), all, out);
  return out;
};

const ROOT = 0x8000_0000;
const S1_STE = S.steS1(ROOT);
const S2_STE = S.steS2({ root: ROOT, vmid: 9 });
const NESTED_STE = S.steNested(ROOT, { root: ROOT, vmid: 9 });
const CD = S.cd({ root: ROOT, asid: 7 });
const [S1STALLD, EATS, STRW, S2S, S2HA, S2HD] = [91, 92, 94, 185, 184, 183] as const;
const [CD_HD, CD_HA, CD_S] = [42, 43, 44] as const;

test('ste: kinds and flags of the plain ones', (t) => {
  t.like(ste(S.STE_BYPASS), { status: 0, kind: BYPASS, s1OutputBits: 52 });
  t.like(ste(S1_STE), { status: 0, kind: S1, contextPtr: ROOT, s1CdMax: 0, flags: 0 });
  t.like(ste(S2_STE), { status: 0, kind: S2, vmid: 9, flags: S2_AF | S2_RECORD | S2_PTW });
  t.like(ste(NESTED_STE), { status: 0, kind: NESTED, vmid: 9 });
  t.is(ste(set(S1_STE, 83, 1)).flags, MEV);
  t.is(cd(CD).flags, S1_AF | S1_RECORD | S1_ABORT);
});

test('stalls: S2S, S1STALLD and CD.S against STALL_MODEL', (t) => {
  const cases = [
    // stalls, S2S, S1STALLD, CD.S -> stage 2, stage 1, CD
    ['optional', 0, 0, 0, 0, 0, 0],
    ['optional', 1, 0, 1, 0, 0, 0],
    ['optional', 1, 1, 0, 0, 0, 0],
    ['optional', 1, 1, 1, 0, 0, C_BAD_CD],
    ['none', 0, 0, 0, 0, 0, 0],
    ['none', 1, 0, 1, C_BAD_STE, 0, C_BAD_CD],
    ['none', 0, 1, 0, 0, C_BAD_STE, C_BAD_STE],
    ['forced', 1, 0, 1, 0, 0, 0],
    ['forced', 0, 0, 0, C_BAD_STE, 0, C_BAD_CD],
    ['forced', 1, 1, 1, 0, C_BAD_STE, C_BAD_STE],
  ] as const;
  for (const [stalls, s2s, s1stalld, s, two, one, both] of cases) {
    const label = JSON.stringify({ stalls, s2s, s1stalld, s });
    t.is(ste(set(S2_STE, S2S, s2s), { stalls }).status, two, label);
    const stream = set(S1_STE, S1STALLD, s1stalld);
    t.is(ste(stream, { stalls }).status, one, label);
    t.is(cd(set(CD, CD_S, s), { stalls }, stream).status, both, label);
  }
  t.is(ste(set(S2_STE, S2S, 1)).flags & S2_STALL, S2_STALL);
  t.is(cd(set(CD, CD_S, 1)).flags & S1_STALL, S1_STALL);
  t.is(ste(set(S.STE_BYPASS, S1STALLD, 1), { stalls: 'none' }).status, 0, 'ignored without stage 1');
});

test('httu: HA and HD against IDR0.HTTU, at both stages', (t) => {
  const cases = [
    ['none', 0, 1, false, 0],
    ['none', 1, 0, false, 0],
    ['access', 1, 0, true, S1_HA],
    ['access', 1, 1, false, 0],
    ['access', 0, 1, false, 0],
    ['dirty', 1, 0, true, S1_HA],
    ['dirty', 1, 1, true, S1_HA | S1_HD],
    ['dirty', 0, 1, true, S1_AF],
  ] as const;
  for (const [httu, ha, hd, legal, flags] of cases) {
    const label = JSON.stringify({ httu, ha, hd });
    const one = cd(set(set(CD, CD_HA, ha), CD_HD, hd), { httu });
    t.is(one.status, legal ? 0 : C_BAD_CD, label);
    if (legal) t.is(one.flags & (S1_HA | S1_HD | S1_AF), flags, label);
    const two = ste(set(set(S2_STE, S2HA, ha), S2HD, hd), { httu });
    t.is(two.status, legal ? 0 : C_BAD_STE, label);
    const s2Flags = (flags & S1_HA ? S2_HA : 0) | (flags & S1_HD ? S2_HD : 0) | (flags & S1_AF ? S2_AF : 0);
    if (legal) t.is(two.flags & (S2_HA | S2_HD | S2_AF), s2Flags, label);
  }
});

test('ats: EATS against stages, S2S and ATSCHK; ignored by an SMMU without ATS', (t) => {
  const eats = (from: readonly bigint[], value: number): bigint[] => set(from, EATS, value);
  t.like(ste(eats(S1_STE, 1)), { status: 0, flags: ATS });
  t.is(ste(eats(S2_STE, 1)).flags & (ATS | S1CHK), ATS);
  t.is(ste(set(eats(S2_STE, 1), S2S, 1)).status, C_BAD_STE, 'full ATS with stage-2 stalls');
  t.is(ste(set(eats(S1_STE, 1), S2S, 1)).status, 0, 'S2S is ignored without stage 2');
  t.is(ste(eats(NESTED_STE, 2), {}, ON).flags & (ATS | S1CHK), ATS | S1CHK);
  t.is(ste(eats(NESTED_STE, 2), {}, OFF).flags & (ATS | S1CHK), 0, 'ATSCHK = 0');
  t.is(ste(set(eats(NESTED_STE, 2), S2S, 1), {}, ON).status, C_BAD_STE);
  for (const from of [S1_STE, S2_STE]) t.is(ste(eats(from, 2), {}, ON).status, C_BAD_STE, 'split needs both');
  t.is(ste(eats(S2_STE, 3)).flags & ATS, 0, 'reserved: as 0b00');
  t.is(ste(eats(S.STE_BYPASS, 2)).status, 0, 'ignored by bypass');
  t.is(ste(eats(S.STE_BYPASS, 1)).flags, 0);
  for (const value of [1, 2, 3]) t.like(ste(eats(S1_STE, value), { ats: false }), { status: 0, flags: 0 });
});

test('strw: EL2 and EL2-E2H, without VMID, with an ASID only under E2H', (t) => {
  const el2 = set(S.steS1(ROOT, 0xffff), STRW, 2);
  t.like(cd(CD, {}, el2, OFF), { status: 0, kind: EL2, vmid: 0, asid: 0 });
  t.is(cd(CD, {}, el2, OFF).flags & E2H, 0);
  t.like(cd(CD, {}, el2, ON), { status: 0, kind: EL2, vmid: 0, asid: 7 });
  t.is(cd(CD, {}, el2, ON).flags & E2H, E2H);
  t.is(ste(el2, { vmidBits: 8 }).status, 0, 'S2VMID is ignored');
  for (const strw of [1, 3]) t.is(ste(set(S1_STE, STRW, strw)).status, C_BAD_STE);
  t.like(cd(CD, { hyp: false }, set(S1_STE, STRW, 3)), { status: 0, kind: S1, asid: 7 }, 'RES0 without Hyp');
  t.is(ste(set(NESTED_STE, STRW, 3)).kind, NESTED, 'ignored with stage 2');
});

test('cd: at EL2 EPD0, EPD1 and the ASID are ignored; under E2H they are not', (t) => {
  const el2 = set(S1_STE, STRW, 2);
  const odd = set(put(CD, 30, 30, 0), 14, 1);
  t.like(cd(odd, {}, el2, OFF), { status: 0, s1StartLevel: 1 });
  t.is(cd(odd, {}, el2, ON).status, C_BAD_CD, 'TTB1');
  t.is(cd(set(CD, 14, 1), {}, el2, ON).s1StartLevel, 4);
  const wide = S.cd({ root: ROOT, asid: 0x100 });
  t.is(cd(wide, { asidBits: 8 }, el2, OFF).status, 0);
  t.is(cd(wide, { asidBits: 8 }, el2, ON).status, C_BAD_CD);
});

test('s1cdmax: bounded by SSIDSIZE; ignored by an SMMU without substreams', (t) => {
  const many = (n: number): bigint[] => set(S1_STE, 59, n);
  t.is(ste(many(20), { ssidBits: 20 }).s1CdMax, 20);
  t.is(ste(many(21), { ssidBits: 20 }).status, C_BAD_STE);
  t.is(ste(many(5), { ssidBits: 4 }).status, C_BAD_STE);
  t.like(ste(many(31), { ssidBits: 0 }), { status: 0, s1CdMax: 0 });
  t.is(ste(set(S2_STE, 59, 31)).status, 0, 'ignored without stage 1');
  for (const [s1Fmt, as] of [
    [0, 0],
    [1, 1],
    [2, 2],
    [3, 0],
  ])
    t.is(ste(set(many(3), 4, s1Fmt!)).s1Fmt, as);
});

test('s1dss: which CD, or none, with and without a SubstreamID', (t) => {
  const select = (from: readonly bigint[], ssid: number): [number, number, number] => {
    const out = ste(from);
    const status = selectCd(ssid, FULL, out);
    return [status, out.kind, out.cdIndex];
  };
  const dss = (from: readonly bigint[], value: number, max = 3): bigint[] =>
    set(set(from, 64, value), 59, max);
  t.deepEqual(select(S1_STE, -1), [0, S1, 0]);
  t.deepEqual(select(S1_STE, 0), [C_BAD_SUBSTREAMID, S1, -1]);
  t.deepEqual(select(dss(S1_STE, 1, 0), -1), [0, S1, 0], 'S1DSS is ignored while S1CDMax is 0');
  for (const off of [0, 3]) t.is(select(dss(S1_STE, off), -1)[0], F_STREAM_DISABLED);
  t.deepEqual(select(dss(S1_STE, 1), -1), [0, BYPASS, -1]);
  t.deepEqual(select(dss(NESTED_STE, 1), -1), [0, S2, -1]);
  t.deepEqual(select(dss(S1_STE, 2), -1), [0, S1, 0]);
  for (const value of [0, 1]) t.deepEqual(select(dss(NESTED_STE, value), 0), [0, NESTED, 0]);
  t.is(select(dss(S1_STE, 2), 0)[0], F_STREAM_DISABLED, 'CD 0 is for traffic without');
  for (const value of [0, 1, 2]) {
    t.deepEqual(select(dss(S1_STE, value), 7), [0, S1, 7]);
    t.is(select(dss(S1_STE, value), 8)[0], C_BAD_SUBSTREAMID);
  }
  for (const from of [S2_STE, S.STE_BYPASS]) t.is(select(from, 1)[0], C_BAD_SUBSTREAMID);
  t.is(select(S.STE_ABORT, 1)[0], 0);
});

/** T0SZ and start level by granule: [TG, T0SZ, level] of the widest and narrowest, and where a level begins. */
test('cd: granules, their start levels, and T0SZ bounds', (t) => {
  const of = (tg: number, t0sz: number, config: Partial<Smmuv3Config> = {}) =>
    cd(put(put(CD, 7, 6, tg), 5, 0, t0sz), config);
  const cases = [
    [0, 16, 0, 12],
    [0, 24, 0, 12],
    [0, 25, 1, 12],
    [0, 33, 1, 12],
    [0, 34, 2, 12],
    [0, 39, 2, 12],
    [2, 16, 0, 14],
    [2, 17, 1, 14],
    [2, 27, 1, 14],
    [2, 28, 2, 14],
    [2, 38, 2, 14],
    [2, 39, 3, 14],
    [1, 12, 1, 16],
    [1, 21, 1, 16],
    [1, 22, 2, 16],
    [1, 34, 2, 16],
    [1, 35, 3, 16],
    [1, 39, 3, 16],
  ] as const;
  for (const [tg, t0sz, level, lg2] of cases)
    t.like(
      of(tg, t0sz),
      { status: 0, s1StartLevel: level, s1GranuleLg2: lg2, s1InputBits: 64 - t0sz },
      `TG ${tg} T0SZ ${t0sz}`,
    );
  for (const [tg, t0sz] of [
    [0, 15],
    [0, 40],
    [2, 15],
    [2, 40],
    [1, 11],
    [1, 40],
    [3, 25],
  ] as const)
    t.is(of(tg, t0sz).status, C_BAD_CD, `TG ${tg} T0SZ ${t0sz}`);
  t.is(of(1, 15, { oasBits: 48 }).status, C_BAD_CD, 'without VAX');
  t.is(of(1, 16, { oasBits: 48 }).status, 0);
  for (const [tg, lg2] of [
    [0, 12],
    [1, 16],
    [2, 14],
  ] as const)
    t.is(
      of(tg, 25, { granules: ([12, 14, 16] as const).filter((other) => other !== lg2), oasBits: 48 }).status,
      C_BAD_CD,
    );
});

test('stage 2: S2SL0 and S2T0SZ by granule', (t) => {
  const of = (tg: number, sl0: number, t0sz: number, config: Partial<Smmuv3Config> = {}) =>
    ste(put(put(put(S2_STE, 175, 174, tg), 167, 166, sl0), 165, 160, t0sz), config);
  /** [S2TG, S2SL0, level, narrowest T0SZ, widest T0SZ]: 1 bit to the level's bits + 4, within 16 (12) and 39. */
  const legal = [
    [0, 0, 2, 39, 30],
    [0, 1, 1, 33, 21],
    [0, 2, 0, 24, 16],
    [2, 0, 3, 39, 35],
    [2, 1, 2, 38, 24],
    [2, 2, 1, 27, 16],
    [1, 0, 3, 39, 31],
    [1, 1, 2, 34, 18],
    [1, 2, 1, 21, 12],
  ] as const;
  for (const [tg, sl0, level, narrow, wide] of legal) {
    const label = `S2TG ${tg} S2SL0 ${sl0}`;
    for (const t0sz of [narrow, wide]) t.like(of(tg, sl0, t0sz), { status: 0, s2StartLevel: level }, label);
    t.is(of(tg, sl0, narrow + 1).status, C_BAD_STE, `${label} too narrow`);
    t.is(of(tg, sl0, wide - 1).status, C_BAD_STE, `${label} too wide`);
  }
  for (const tg of [0, 1, 2]) t.is(of(tg, 3, 25).status, C_BAD_STE);
  t.is(of(3, 1, 25).status, C_BAD_STE, 'reserved granule');
  // A start level that only a larger SMMU has; the input range never exceeds the output size.
  t.is(of(0, 2, 22, { oasBits: 42 }).status, C_BAD_STE);
  t.is(of(2, 2, 24, { oasBits: 40 }).status, C_BAD_STE);
  t.is(of(1, 2, 22, { oasBits: 42 }).status, C_BAD_STE);
  t.is(of(0, 2, 21, { oasBits: 44 }).status, 0);
  t.is(of(0, 2, 20, { oasBits: 44 }).status, 0);
  t.is(of(0, 2, 19, { oasBits: 44 }).status, C_BAD_STE, '64 - IAS');
  t.is(of(1, 2, 15, { oasBits: 48 }).status, C_BAD_STE);
});

test('roots: within the output size, within 48 bits but for 64 KiB granules, and aligned by the SMMU', (t) => {
  const high = 1n << 48n;
  const s1 = (tg: number, root: bigint, ips = 6): StreamConfig & { status: number } =>
    cd(put(put(put(CD, 7, 6, tg), 34, 32, ips), 127, 64, root));
  t.is(s1(0, high).status, C_BAD_CD);
  t.is(s1(2, high).status, C_BAD_CD);
  t.is(s1(1, high).status, 0);
  t.is(s1(1, high, 5).status, C_BAD_CD);
  t.is(s1(1, 1n << 32n, 0).status, C_BAD_CD);
  const s2 = (tg: number, root: bigint, ps = 6): StreamConfig & { status: number } =>
    ste(put(put(put(S2_STE, 175, 174, tg), 178, 176, ps), 255, 192, root));
  t.is(s2(0, high).status, C_BAD_STE);
  t.is(s2(1, high).status, 0);
  t.is(s2(1, high, 5).status, C_BAD_STE);
  // 39 bits from level 1 of 4 KiB: 512 entries.
  t.is(s1(0, 0x8000_0ff0n).s1Root, 0x8000_0000);
  // 25 bits, level 2 of 4 KiB: 16 entries.
  t.is(cd(put(set(CD, 64, 0x7f0n), 5, 0, 39)).s1Root, 0x8000_0780);
  // 33 bits from level 3 of 64 KiB: concatenated, 2^17 entries.
  const wide = put(put(put(put(S2_STE, 175, 174, 1), 167, 166, 0), 165, 160, 31), 255, 192, 0x801f_fff0n);
  t.is(ste(wide).s2Root, 0x8010_0000);
  // One bit, level 1 of 64 KiB: two entries, but 64 bytes where addresses have 52 bits.
  const narrow = put(put(CD, 7, 6, 1), 5, 0, 21);
  t.is(cd(put(set(narrow, 64, 0x7f0n), 34, 32, 6)).s1Root, 0x8000_07c0);
  t.is(cd(put(set(narrow, 64, 0x7f0n), 34, 32, 5)).s1Root, 0x8000_07f0);
});

test('output sizes: capped at what the SMMU has, reserved encodings as the largest', (t) => {
  for (const [ips, bits, oasBits] of [
    [0, 32, 52],
    [2, 40, 52],
    [6, 52, 52],
    [7, 52, 52],
    [6, 48, 48],
    [7, 44, 44],
  ] as const) {
    t.is(cd(put(CD, 34, 32, ips), { oasBits }).s1OutputBits, bits);
    t.is(ste(put(S2_STE, 178, 176, ips), { oasBits }).s2OutputBits, bits);
  }
});

test('s1contextptr: a PA within the output size; an IPA is for stage 2 to judge', (t) => {
  t.is(ste(set(S1_STE, 48, 1), { oasBits: 48 }).status, C_BAD_STE);
  t.is(ste(set(S1_STE, 48, 1)).status, 0);
  t.is(ste(set(NESTED_STE, 48, 1), { oasBits: 48 }).status, 0);
});

test('s2vmid: bounded by VMID16 wherever translations are tagged with it', (t) => {
  t.is(ste(S.steS1(ROOT, 0x100), { vmidBits: 8 }).status, C_BAD_STE);
  t.is(ste(S.steS2({ root: ROOT, vmid: 0x100 }), { vmidBits: 8 }).status, C_BAD_STE);
  t.is(ste(S.steS1(ROOT, 0x100), { vmidBits: 8, stages: 's1', hyp: false }).status, 0);
  t.is(ste(set(S.STE_BYPASS, 128, 0x100), { vmidBits: 8 }).status, 0);
});

/** As Linux 7.0 makes them: arm_smmu_make_s1_cd, arm_smmu_make_sva_cd, arm_smmu_make_cdtable_ste. */
test('linux: its CDs and STEs are legal on the SMMUs it makes them for', (t) => {
  const attributes = (1n << 8n) | (1n << 10n) | (3n << 12n);
  const base = (1n << 30n) | (1n << 31n) | (5n << 32n) | (7n << 45n) | (1n << 41n) | (3n << 48n);
  const paging = [base | attributes | 16n, 0x8000_0000n, 0n, 0xff44_0c04_0400n];
  const dirty = [paging[0]! | (3n << 42n), ...paging.slice(1)];
  const sva64k = [base | attributes | 16n | (1n << 6n), 0x8000_0000n, 0n, 0n];
  const gone = [(base & ~(1n << 45n)) | (1n << 14n), 0n, 0n, 0n];
  const table = [
    1n | (5n << 1n) | (2n << 4n) | 0x8000_0000n | (20n << 59n),
    2n | (1n << 2n) | (1n << 4n) | (3n << 6n) | (1n << 27n),
    0n,
    0n,
  ];
  for (const one of [paging, dirty, sva64k, gone]) t.is(cd(one, {}, table).status, 0);
  const hypervisor = set(table, STRW, 2);
  t.is(cd(paging, {}, hypervisor, ON).status, 0);
  const stalling = put(table, S1STALLD, S1STALLD, 0);
  t.is(cd(set(paging, CD_S, 1), {}, stalling).status, 0);
  t.is(cd(set(paging, CD_S, 1), { stalls: 'forced' }, stalling).status, 0);
});
