/** Granules, start levels, 52-bit addresses and contiguous groups, from hand-built tables. [DDI0487] D8.2, D8.3. */
import test from 'ava';
import { KernelBench, RAM_PA } from '../../kit/kernel-bench.js';

const [S1, S2, NESTED] = [2, 3, 4];
const [F_TRANSLATION, F_ADDR_SIZE] = [0x10, 0x11];
const OAS52 = 1 << 21;
const PAGE = 0x4c3n | (0xfn << 2n) | (1n << 11n);
const BLOCK = PAGE & ~2n;
const S1_RW = 1n << 6n;
const S2_RW = 3n << 6n;
const CONTIGUOUS = 1n << 52n;
const TABLE = 3n;
const HUGE_RAM = 8 << 20;

/** [granule, highest level that may be a block, level at which 48 bits start] */
const GRANULES: readonly [number, number, number][] = [
  [12, 1, 0],
  [14, 2, 0],
  [16, 2, 1],
];

const low = (granule: number, level: number): bigint => BigInt(granule + (granule - 3) * (3 - level));
const wide = (granule: number): bigint => (1n << BigInt(granule - 3)) - 1n;

/** Tables of one address from a root down: one granule-sized table a level. @returns the leaf's PA */
function build(
  bench: KernelBench,
  root: bigint,
  granule: number,
  startLevel: number,
  leafLevel: number,
  input: bigint,
  leaf: bigint,
): bigint {
  let table = root;
  for (let level = startLevel; ; level++) {
    const index = (input >> low(granule, level)) & (level === startLevel ? ~0n : wide(granule));
    const slot = table + index * 8n;
    if (level === leafLevel) {
      bench.setRam(slot, leaf);
      return slot;
    }
    table = RAM_PA + (4n << 20n) + BigInt(level) * 0x1_0000n;
    bench.setRam(slot, table | TABLE);
  }
}

for (const [granule, topBlock, start] of GRANULES) {
  const kib = 2 ** (granule - 10);

  test(`geometry: ${kib} KiB granule: pages and blocks of both stages, and no block above`, (t) => {
    for (const kind of [S1, S2])
      for (let level = start; level <= 3; level++) {
        const bench = new KernelBench({ ramBytes: HUGE_RAM });
        const shift = low(granule, level);
        const input = (1n << 47n) | (0x2a_aaaa_aaaan & ~((1n << shift) - 1n)) | 0x123n;
        const base = (0x7_0000_0000n >> shift) << shift;
        const ap = kind === S1 ? S1_RW : S2_RW;
        build(bench, RAM_PA, granule, start, level, input, base | (level === 3 ? PAGE : BLOCK) | ap);
        const context = bench.context(1, {
          kind,
          s1Root: RAM_PA,
          s2Root: RAM_PA,
          s1GranuleLg2: granule,
          s2GranuleLg2: granule,
          s1StartLevel: start,
          s2StartLevel: start,
        });
        const got = bench.translate(context, input);
        if (level < topBlock) t.like(got, { status: F_TRANSLATION, level, fault: kind === S1 ? 4 : 5 });
        else t.like(got, { status: 0, pa: base | 0x123n, sizeLg2: Number(shift) }, `level ${level}`);
      }
  });

  test(`geometry: ${kib} KiB granule: stage 2 starts at each level, with 1 to 16 tables`, (t) => {
    for (let level = start; level <= 3; level++)
      for (const extra of [0, 1, 2, 3, 4]) {
        const bits = Number(low(granule, level)) + granule - 3 + extra;
        if (bits > 48) continue;
        const bench = new KernelBench({ ramBytes: HUGE_RAM });
        // The last address: the last entry of the last table.
        const input = (1n << BigInt(bits)) - 1n;
        const fields = {
          kind: S2,
          s2Root: RAM_PA,
          s2GranuleLg2: granule,
          s2StartLevel: level,
          s2InputBits: bits,
        };
        build(bench, RAM_PA, granule, level, 3, input, 0x12_3456_0000n | PAGE | S2_RW);
        const context = bench.context(1, fields);
        const where = `level ${level}, ${2 ** extra} tables`;
        const inPage = (1n << BigInt(granule)) - 1n;
        t.like(bench.translate(context, input), { status: 0, pa: 0x12_3456_0000n + inPage }, where);
        t.like(bench.translate(context, input + 1n), { status: F_TRANSLATION, level }, where);
        // A root is aligned to its tables' size, so the bits below are no part of it.
        bench.kernel.iotlbInvalidateAll(bench.unit, bench.iotlb);
        bench.context(1, { ...fields, s2Root: RAM_PA + (8n << BigInt(granule - 3 + extra)) - 16n });
        t.like(bench.translate(context, input), { status: 0, pa: 0x12_3456_0000n + inPage }, where);
      }
  });
}

test('geometry: nested with a granule each: the smaller leaf is cached', (t) => {
  for (const [g1, g2] of [
    [12, 16],
    [16, 12],
    [14, 16],
    [16, 14],
  ] as const) {
    const bench = new KernelBench({ ramBytes: HUGE_RAM });
    const startOf = (g: number): number => (g === 16 ? 1 : 0);
    const iova = 0x1234_5678_9abcn;
    const ipa = 0x9_8765_0000n;
    const pa = 0x5_4321_0000n;
    // Stage 2 maps RAM, where stage 1's tables are, to itself by level-2 blocks.
    const root2 = RAM_PA + (5n << 20n);
    build(bench, RAM_PA, g1, startOf(g1), 3, iova, ipa | PAGE | S1_RW);
    let free = RAM_PA + (6n << 20n);
    const map = (from: bigint, to: bigint, level: number): void => {
      let table = root2;
      for (let l = startOf(g2); l < level; l++) {
        const slot = table + ((from >> low(g2, l)) & (l === startOf(g2) ? ~0n : wide(g2))) * 8n;
        if (bench.ram(slot) === 0n) {
          bench.setRam(slot, free | TABLE);
          free += 0x1_0000n;
        }
        table = bench.ram(slot)! & 0xffff_ffff_0000n;
      }
      const slot = table + ((from >> low(g2, level)) & wide(g2)) * 8n;
      bench.setRam(slot, to | (level === 3 ? PAGE : BLOCK) | S2_RW);
    };
    const span = 1n << low(g2, 2);
    for (let at = (RAM_PA / span) * span; at < RAM_PA + BigInt(HUGE_RAM); at += span) map(at, at, 2);
    map(ipa, pa, 3);
    const context = bench.context(1, {
      kind: NESTED,
      s1Root: RAM_PA,
      s2Root: root2,
      s1GranuleLg2: g1,
      s2GranuleLg2: g2,
      s1StartLevel: startOf(g1),
      s2StartLevel: startOf(g2),
    });
    const inPage = iova & ((1n << BigInt(g1)) - 1n);
    if (g1 > g2) {
      // The other pages of stage 1's larger one are not mapped by stage 2, but for the first.
      const rest = iova & ~((1n << BigInt(g1)) - 1n);
      t.like(bench.translate(context, rest | 0x10n), { status: 0, pa: pa | 0x10n, sizeLg2: g2 });
      t.like(bench.translate(context, rest | (1n << BigInt(g2))), {
        status: F_TRANSLATION,
        fault: 5,
        level: 3,
      });
    } else {
      t.like(bench.translate(context, iova), { status: 0, pa: pa | inPage, ipa: ipa | inPage, sizeLg2: g1 });
    }
  }
});

test('geometry: 52 bits with the 64 KiB granule: bits 15:12 of a descriptor are 51:48 of the address', (t) => {
  const bench = new KernelBench({ ramBytes: HUGE_RAM });
  const input = 0xf_fedc_ba98_7654n;
  const fields = {
    kind: S2,
    flags: 3 | OAS52,
    s2Root: RAM_PA,
    s2GranuleLg2: 16,
    s2StartLevel: 1,
    s2InputBits: 52,
    s2OutputBits: 52,
  };
  // 0x1234_5678 are bits 47:16, and 0xa bits 51:48.
  build(bench, RAM_PA, 16, 1, 3, input, 0x1234_5678_0000n | 0xa000n | PAGE | S2_RW);
  const context = bench.context(1, fields);
  t.like(bench.translate(context, input), { status: 0, pa: 0xa_1234_5678_7654n, sizeLg2: 16 });
  bench.kernel.iotlbInvalidateAll(bench.unit, bench.iotlb);
  bench.context(1, { ...fields, s2OutputBits: 48 });
  t.like(bench.translate(context, input), { status: F_ADDR_SIZE, level: 3 });
  // Without 52-bit addresses those bits are no part of the address.
  bench.context(1, { ...fields, flags: 3, s2OutputBits: 48 });
  t.like(bench.translate(context, input), { status: 0, pa: 0x1234_5678_7654n });
});

test('geometry: a 4 TiB block stands at level 1 of the 64 KiB granule, with 52-bit addresses alone', (t) => {
  const bench = new KernelBench({ ramBytes: HUGE_RAM });
  const fields = { kind: S1, s1Root: RAM_PA, s1GranuleLg2: 16, s1StartLevel: 1, s1OutputBits: 52, tag: 1 };
  // 0xc: bits 51:48 of the address, in 15:12.
  build(bench, RAM_PA, 16, 1, 1, 1n << 42n, 0x0400_0000_c000n | BLOCK | S1_RW);
  const context = bench.context(1, { ...fields, s1InputBits: 52, flags: 3 | OAS52 });
  const input = (1n << 42n) | 0x123_4567_89abn;
  t.like(bench.translate(context, input), {
    status: 0,
    pa: 0xc_0400_0000_0000n | 0x123_4567_89abn,
    sizeLg2: 42,
  });
  t.like(bench.translate(context, (1n << 43n) - 1n), { status: 0, pa: 0xc_07ff_ffff_ffffn, source: 2 });
  t.is(bench.kernel.iotlbInvalidateVa(bench.unit, bench.iotlb, 1, 0, 2 ** 31 - 1, 1), 1, 'by its last page');
  bench.context(1, { ...fields, flags: 3 });
  t.like(bench.translate(context, input), { status: F_TRANSLATION, level: 1 });
});

/** [granule, level, log2 of the group] */
const GROUPS = [
  [12, 3, 16],
  [12, 2, 25],
  [12, 1, 34],
  [14, 3, 21],
  [14, 2, 30],
  [16, 3, 21],
  [16, 2, 34],
] as const;

for (const [granule, level, groupLg2] of GROUPS) {
  const name = `granule 2^${granule}, level ${level}`;
  const shift = low(granule, level);
  const start = granule === 16 ? 1 : 0;
  const group = 1n << BigInt(groupLg2);
  const leafBits = (level === 3 ? PAGE : BLOCK) | S1_RW | CONTIGUOUS;
  const setUp = (member: bigint, base: bigint, more = 0n) => {
    const bench = new KernelBench({ ramBytes: HUGE_RAM });
    const input = 3n * group + (member << shift) + 0x123n;
    build(bench, RAM_PA, granule, start, level, input, base | leafBits | more);
    const fields = { kind: S1, s1Root: RAM_PA, s1GranuleLg2: granule, s1StartLevel: start, tag: 1 };
    return { bench, input, fields, context: bench.context(1, fields) };
  };

  test(`contiguous: a group is one entry, and an invalidation of any page of it removes it (${name})`, (t) => {
    const members = group >> shift;
    for (const page of [0n, group / 4096n - 1n, group / 8192n]) {
      const { bench, input, context } = setUp(members - 1n, 5n * group + ((members - 1n) << shift));
      t.like(bench.translate(context, input), { pa: input + 2n * group, sizeLg2: groupLg2, source: 3 });
      t.like(bench.translate(context, 3n * group + 8n), {
        pa: 5n * group + 8n,
        sizeLg2: groupLg2,
        source: 2,
      });
      t.like(bench.translate(context, 4n * group), { status: F_TRANSLATION }, 'the next group');
      const first = Number((3n * group) / 4096n + page);
      t.is(bench.kernel.iotlbInvalidateVa(bench.unit, bench.iotlb, 1, 0, first, 1), 1);
      t.like(bench.translate(context, 3n * group + 8n), { status: F_TRANSLATION });
    }
  });

  test(`contiguous: an address out of step, or a group beyond the range, is one leaf (${name})`, (t) => {
    // Member 1 with the address of member 0.
    const { bench, input, context } = setUp(1n, 5n * group);
    t.like(bench.translate(context, input), { pa: 5n * group + 0x123n, sizeLg2: Number(shift) });
    t.like(bench.translate(context, 3n * group), { status: F_TRANSLATION });
    // A narrower output would not reach the tables, which are in RAM at 2 GiB.
    if (groupLg2 <= 32) return;
    const near = setUp(0n, 0n);
    near.bench.context(1, { ...near.fields, s1OutputBits: groupLg2 - 1 });
    t.like(near.bench.translate(near.context, near.input), { pa: 0x123n, sizeLg2: Number(shift) });
  });

  test(`contiguous: a leaf whose dirty state is hardware's stands for itself (${name})`, (t) => {
    const DBM = 1n << 51n;
    const one = setUp(0n, 5n * group, DBM);
    t.like(one.bench.translate(one.context, one.input), { sizeLg2: groupLg2 });
    const two = setUp(0n, 5n * group, DBM);
    two.bench.context(1, { ...two.fields, flags: 3 | (1 << 6) | (1 << 7) });
    t.like(two.bench.translate(two.context, two.input), { sizeLg2: Number(shift) });
  });
}
