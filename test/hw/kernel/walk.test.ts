/** Each fault of each stage and class, one at a time, from hand-built tables. [IHI0070] 7.3, [DDI0487] D8. */
import test from 'ava';
import { type ContextFields, KernelBench, RAM_PA } from '../../kit/kernel-bench.js';

const [S1, S2, NESTED] = [2, 3, 4];
const [F_WALK_EABT, F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION] = [0x0b, 0x10, 0x11, 0x12, 0x13];
const STAGE2 = 1;
const [CD, TTD, IN] = [0 << 1, 1 << 1, 2 << 1];
const TABLE = 3n;
const BLOCK = 1n;
const AF = 1n << 10n;
const NG = 1n << 11n;
const S1_RW = 1n << 6n;
const S1_RO = 3n << 6n;
const S2_RW = 3n << 6n;
const IOVA = 0x12_3456_7123n;

interface Tables {
  bench: KernelBench;
  /** Physical address of the descriptor of IOVA at a level. */
  s1: bigint[];
  s2: bigint[];
  s2OfTable: bigint;
}

/**
 * Stage 1 at RAM+0: four tables; page -> frame 0x80100. Stage 2 at RAM+0x8000: the first GiB of IPA from
 * 0x80000000 is a block to itself, but for nested the output goes through 4 KiB tables too.
 */
function tables(): Tables {
  const bench = new KernelBench();
  const s1: bigint[] = [];
  const s2: bigint[] = [];
  const build = (root: bigint, input: bigint, slots: bigint[], leaf: bigint): void => {
    for (let level = 0; level < 4; level++) {
      const table = root + BigInt(level) * 0x1000n;
      const slot = table + ((input >> BigInt(39 - 9 * level)) & 511n) * 8n;
      slots.push(slot);
      bench.setRam(slot, level === 3 ? leaf : (table + 0x1000n) | TABLE);
    }
  };
  const ipa = 0x12_0010_0000n;
  build(RAM_PA, IOVA, s1, ipa | TABLE | AF | NG | S1_RW);
  build(RAM_PA + 0x8000n, ipa, s2, 0x9_9999_9000n | TABLE | AF | S2_RW);
  // IPA 0x8000_0000 and on, where stage 1's tables are: a 1 GiB block in the level-1 table.
  const s2OfTable = RAM_PA + 0x9000n + 2n * 8n;
  bench.setRam(s2OfTable, 0x8000_0000n | BLOCK | AF | S2_RW);
  return { bench, s1, s2, s2OfTable };
}

function run(built: Tables, kind: number, write = false, fields: Partial<ContextFields> = {}): string {
  const { bench } = built;
  const context = bench.context(1, { kind, tag: 1, s1Root: RAM_PA, s2Root: RAM_PA + 0x8000n, ...fields });
  const r = bench.translate(context, kind === S2 ? 0x12_0010_0123n : IOVA, write);
  return `status ${r.status} fault ${r.fault} level ${r.level} ipa ${r.ipa.toString(16)} pa ${r.pa.toString(16)}`;
}
const want = (status: number, fault: number, level: number, ipa = 0n, pa = 0n): string =>
  `status ${status} fault ${fault} level ${level} ipa ${ipa.toString(16)} pa ${pa.toString(16)}`;
const IPA = 0x12_0010_0123n;
const PA = 0x9_9999_9123n;

test('walk: stage 1, stage 2 and nested translate', (t) => {
  t.is(run(tables(), S1), want(0, 0, 0, 0n, IPA));
  t.is(run(tables(), S2, true), want(0, 0, 0, IPA, PA));
  t.is(run(tables(), NESTED, true), want(0, 0, 0, IPA, PA));
});

test('walk: no valid descriptor is F_TRANSLATION at its level, of either stage', (t) => {
  for (let level = 0; level < 4; level++) {
    const one = tables();
    one.bench.setRam(one.s1[level]!, 2n);
    t.is(run(one, S1), want(F_TRANSLATION, IN, level));
    t.is(run(one, NESTED), want(F_TRANSLATION, IN, level));
    const two = tables();
    two.bench.setRam(two.s2[level]!, 2n);
    t.is(run(two, S2), want(F_TRANSLATION, IN | STAGE2, level, IPA));
  }
  const last = tables();
  last.bench.setRam(last.s2[3]!, 0n);
  t.is(run(last, NESTED), want(F_TRANSLATION, IN | STAGE2, 3, IPA));
});

test('walk: a block at level 0 and a block encoding at level 3 are F_TRANSLATION', (t) => {
  for (const level of [0, 3]) {
    const one = tables();
    one.bench.setRam(one.s1[level]!, BLOCK | AF | S1_RW);
    t.is(run(one, S1), want(F_TRANSLATION, IN, level));
    const two = tables();
    two.bench.setRam(two.s2[level]!, BLOCK | AF | S2_RW);
    t.is(run(two, S2), want(F_TRANSLATION, IN | STAGE2, level, IPA));
  }
});

test('walk: an input beyond the range is F_TRANSLATION', (t) => {
  t.is(run(tables(), S1, false, { s1InputBits: 36 }), want(F_TRANSLATION, IN, 0));
  t.is(run(tables(), S2, false, { s2InputBits: 36 }), want(F_TRANSLATION, IN | STAGE2, 0, IPA));
  t.is(
    run(tables(), NESTED, false, { s2InputBits: 36, s2StartLevel: 1, s2Root: RAM_PA + 0x9000n }),
    want(F_TRANSLATION, IN | STAGE2, 1, IPA),
  );
});

test('walk: an output or a table beyond the output size is F_ADDR_SIZE', (t) => {
  t.is(run(tables(), S1, false, { s1OutputBits: 36 }), want(F_ADDR_SIZE, IN, 3));
  t.is(run(tables(), S2, false, { s2OutputBits: 35 }), want(F_ADDR_SIZE, IN | STAGE2, 3, IPA));
  t.is(run(tables(), NESTED, false, { s2OutputBits: 35 }), want(F_ADDR_SIZE, IN | STAGE2, 3, IPA));
  const one = tables();
  one.bench.setRam(one.s1[1]!, (1n << 40n) | TABLE);
  t.is(run(one, S1, false, { s1OutputBits: 40 }), want(F_ADDR_SIZE, IN, 1));
});

test('walk: a clear Access flag is F_ACCESS when its stage raises it, and nothing when not', (t) => {
  const one = tables();
  one.bench.setRam(one.s1[3]!, (IPA & ~0xfffn) | TABLE | NG | S1_RW);
  t.is(run(one, S1), want(F_ACCESS, IN, 3));
  t.is(run(one, S1, false, { flags: 2 }), want(0, 0, 0, 0n, IPA));
  const two = tables();
  two.bench.setRam(two.s2[3]!, (PA & ~0xfffn) | TABLE | S2_RW);
  t.is(run(two, S2), want(F_ACCESS, IN | STAGE2, 3, IPA));
  t.is(run(two, NESTED), want(F_ACCESS, IN | STAGE2, 3, IPA));
  t.is(run(two, S2, false, { flags: 1 }), want(0, 0, 0, IPA, PA));
});

test('walk: permissions of stage 1: read-only, privileged-only, and taken away by a table', (t) => {
  const one = tables();
  one.bench.setRam(one.s1[3]!, (IPA & ~0xfffn) | TABLE | AF | NG | S1_RO);
  t.is(run(one, S1, true), want(F_PERMISSION, IN, 3));
  t.is(run(one, NESTED, true), want(F_PERMISSION, IN, 3));
  t.is(run(one, NESTED), want(0, 0, 0, IPA, PA));
  one.bench.setRam(one.s1[3]!, (IPA & ~0xfffn) | TABLE | AF | NG);
  one.bench.kernel.iotlbInvalidateAll(one.bench.unit, one.bench.iotlb);
  t.is(run(one, S1), want(F_PERMISSION, IN, 3));
  for (const [bit, write, status] of [
    [61n, false, F_PERMISSION],
    [62n, true, F_PERMISSION],
    [62n, false, 0],
  ] as const) {
    const table = tables();
    table.bench.setRam(table.s1[1]!, table.bench.ram(table.s1[1]!)! | (1n << bit));
    t.true(run(table, S1, write).startsWith(`status ${status} `), `APTable bit ${bit}`);
  }
});

test('walk: permissions of stage 2, for the access alone', (t) => {
  for (const [s2ap, write] of [
    [1n, true],
    [2n, false],
    [0n, false],
  ] as const) {
    const two = tables();
    two.bench.setRam(two.s2[3]!, (PA & ~0xfffn) | TABLE | AF | (s2ap << 6n));
    t.is(run(two, S2, write), want(F_PERMISSION, IN | STAGE2, 3, IPA));
    t.is(run(two, NESTED, write), want(F_PERMISSION, IN | STAGE2, 3, IPA));
    if (s2ap !== 0n) t.is(run(two, NESTED, !write), want(0, 0, 0, IPA, PA));
  }
});

test('walk: a stage-1 table that stage 2 does not give is class TTD, with the IPA of the descriptor', (t) => {
  for (const [descriptor, status, flags] of [
    [0n, F_TRANSLATION, 3],
    [0x8000_0000n | BLOCK | S2_RW, F_ACCESS, 3],
    [0x8000_0000n | BLOCK | AF | (2n << 6n), F_PERMISSION, 3],
    [(1n << 45n) | BLOCK | AF | S2_RW, F_ADDR_SIZE, 3],
  ] as const) {
    const built = tables();
    built.bench.setRam(built.s2OfTable, descriptor);
    t.is(run(built, NESTED, true, { flags, s2OutputBits: 44 }), want(status, TTD | STAGE2, 1, built.s1[0]!));
  }
  // A read-only table is fine: the walk does not write.
  const readable = tables();
  readable.bench.setRam(readable.s2OfTable, 0x8000_0000n | BLOCK | AF | (1n << 6n));
  t.is(run(readable, NESTED, true), want(0, 0, 0, IPA, PA));
});

test('walk: a table outside RAM is F_WALK_EABT with the address that was fetched', (t) => {
  const outside = RAM_PA + (2n << 20n);
  const one = tables();
  one.bench.setRam(one.s1[1]!, outside | TABLE);
  t.is(run(one, S1), want(F_WALK_EABT, TTD, 2, 0n, outside + ((IOVA >> 21n) & 511n) * 8n));
  const two = tables();
  two.bench.setRam(two.s2[2]!, TABLE);
  const fetched = ((IPA >> 12n) & 511n) * 8n;
  t.is(run(two, S2), want(F_WALK_EABT, IN | STAGE2, 3, IPA, fetched));
  t.is(run(two, NESTED), want(F_WALK_EABT, IN | STAGE2, 3, IPA, fetched));
  // Stage 2 moves the stage-1 table past RAM: the fetch of stage 1 is what aborts.
  const moved = tables();
  moved.bench.setRam(moved.s2OfTable, 0x4000_0000n | BLOCK | AF | S2_RW);
  t.is(run(moved, NESTED), want(F_WALK_EABT, TTD, 0, 0n, moved.s1[0]! - 0x4000_0000n));
});

test('walk: a CD fetch goes through stage 2 with class CD, and nothing is cached', (t) => {
  const built = tables();
  const { bench } = built;
  const context = bench.context(1, { kind: NESTED, tag: 1, s2Root: RAM_PA + 0x8000n });
  bench.ask(bench.scratch, IPA);
  t.is(bench.kernel.translateIpa(context, bench.scratch), 0);
  t.like(bench.result(bench.scratch), { pa: PA, ipa: IPA, sizeLg2: 12 });
  bench.setRam(built.s2[3]!, 0n);
  t.is(bench.kernel.translateIpa(context, bench.scratch), F_TRANSLATION);
  t.like(bench.result(bench.scratch), { fault: CD | STAGE2, ipa: IPA, pa: 0n, level: 3 });
  t.is(bench.kernel.iotlbCountVmid(bench.iotlb, 1), 0);
  bench.context(1, { kind: S1 });
  t.is(bench.kernel.translateIpa(context, bench.scratch), 0);
  t.is(bench.result(bench.scratch).pa, IPA);
});

test('walk: faults are not cached, translations are, with the number of their walk', (t) => {
  const built = tables();
  const { bench } = built;
  bench.setRam(built.s2[3]!, 0n);
  run(built, NESTED);
  bench.setRam(built.s2[3]!, 0x9_9999_9000n | TABLE | AF | S2_RW);
  t.is(run(built, NESTED), want(0, 0, 0, IPA, PA));
  const first = bench.result(bench.scratch);
  bench.setRam(built.s2[3]!, 0n);
  t.is(run(built, NESTED), want(0, 0, 0, IPA, PA));
  t.like(bench.result(bench.scratch), { source: 2, fillSeq: first.fillSeq });
  bench.kernel.iotlbInvalidateVmid(bench.iotlb, 1, false);
  t.is(run(built, NESTED), want(F_TRANSLATION, IN | STAGE2, 3, IPA));
  t.true(bench.result(bench.scratch).fillSeq > first.fillSeq);
});

test('walk: the walk cache ends with its batch', (t) => {
  const built = tables();
  const { bench } = built;
  t.is(run(built, NESTED), want(0, 0, 0, IPA, PA));
  bench.kernel.iotlbInvalidateAll(bench.unit, bench.iotlb);
  bench.setRam(built.s2OfTable, 0n);
  t.is(run(built, NESTED), want(F_TRANSLATION, TTD | STAGE2, 1, built.s1[0]!));
});
