import test from 'ava';
import { MockPageTable } from '../../../../runtime/drivers/mock/page-table.js';
import { Random, SEED } from '../../../kit/random.js';

const [ENOMEM, EINVAL, ERANGE, EADDRINUSE] = [12, 22, 34, 98];
const [READ, WRITE] = [1, 2];
const ALL_SIZES = Array.from({ length: 27 }, (_, lg2) => lg2);
/** The table's end: 38 bits of IOVA in units of 2 KiB. */
const END = 2 ** 27;

function tableOf(sizesLg2: readonly number[] = ALL_SIZES) {
  let left = Number.POSITIVE_INFINITY;
  const allocated = { count: 0, failAfter: (n: number) => (left = n) };
  const table = new MockPageTable(sizesLg2, () => {
    allocated.count++;
    return left-- <= 0;
  });
  return { table, allocated };
}

function dirtyOf(table: MockPageTable, iova: number, units: number, clear: boolean): [number, number][] {
  const found: [number, number][] = [];
  table.readDirty(iova, units, clear, (at, n) => found.push([at, n]));
  return found;
}

test('a unit is 2 KiB: two halves of a CPU page map to different places', (t) => {
  const { table } = tableOf();
  t.is(table.map(0x2001, 0x90001, 1, READ), 0);
  t.is(table.map(0x2002, 0x50000, 1, READ | WRITE), 0);
  t.is(table.lookup(0x2001), 0x90001);
  t.is(table.lookup(0x2002), 0x50000);
  t.is(table.lookup(0x2000), -1);
  t.is(table.protOf(0x2001), READ);
  t.is(table.protOf(0x2002), READ | WRITE);
  t.is(table.protOf(0x2000), 0);
});

test('an aligned gigabyte takes leaves of the top level alone, and every unit of it translates', (t) => {
  const { table, allocated } = tableOf();
  const units = 2 ** 19;
  t.is(table.map(2 ** 20, 2 ** 30, units, READ), 0);
  t.is(allocated.count, 0, 'a leaf of the top level');
  for (const unit of [0, 1, 511, 512, 2 ** 18 - 1, 2 ** 18, units - 1])
    t.is(table.lookup(2 ** 20 + unit), 2 ** 30 + unit);
  t.is(table.lookup(2 ** 20 + units), -1);
  t.is(table.unmap(2 ** 20, units), units);
  t.is(table.lookup(2 ** 20), -1);
});

test('a leaf is as large as the alignment of both addresses and the length allow', (t) => {
  const { table } = tableOf();
  t.is(table.map(0x100, 0x4_0100, 0x100, READ), 0);
  // One leaf: any part of it being dirty makes it dirty.
  t.true(table.setDirty(0x1ff));
  t.deepEqual(dirtyOf(table, 0x100, 0x100, false), [[0x100, 0xff]]);
  // Addresses that differ in their last bit have only leaves of one unit in common.
  t.is(table.map(0x300, 0x4_0301, 0x10, READ), 0);
  t.true(table.setDirty(0x304));
  t.deepEqual(dirtyOf(table, 0x300, 0x10, false), [[0x304, 1]]);
});

test('where only 4 KiB and 1 MiB are page sizes, nothing else is used', (t) => {
  const { table } = tableOf([1, 9]);
  t.is(table.map(0, 0x8000, 1, READ), -EINVAL);
  t.is(table.map(2, 0x8000, 2, READ), 0);
  t.is(table.map(0x200, 0x8200, 0x400, READ), 0);
  t.true(table.setDirty(0x201));
  t.deepEqual(dirtyOf(table, 0, 0x1000, false), [[0x200, 0x200]]);
  t.is(table.map(0x1004, 0x8004, 4, READ), 0);
  t.true(table.setDirty(0x1007));
  t.deepEqual(dirtyOf(table, 0x1000, 0x200, false), [[0x1006, 1]]);
});

test('what is mapped already is refused, and leaves no trace', (t) => {
  const { table } = tableOf();
  t.is(table.map(0x410, 0x9000, 1, READ), 0);
  t.is(table.map(0x400, 0x2_0001, 0x20, READ), -EADDRINUSE);
  t.is(table.map(0, 0x4_0000, 0x1000, READ), -EADDRINUSE, 'a large leaf over a table in use');
  for (let unit = 0; unit < 0x1000; unit++) t.is(table.lookup(unit), unit === 0x410 ? 0x9000 : -1);
  t.is(table.map(0, 0x4_0000, 0x400, READ), 0);
  t.is(table.map(0x20, 0x9000, 1, READ), -EADDRINUSE, 'a table under a large leaf');
});

test('beyond the table or its addresses is ERANGE', (t) => {
  const { table } = tableOf();
  t.is(table.map(END - 1, 0, 2, READ), -ERANGE);
  t.is(table.map(0, 2 ** 40 - 1, 2, READ), -ERANGE);
  t.is(table.map(END - 1, 2 ** 40 - 1, 1, READ), 0);
  t.is(table.lookup(END - 1), 2 ** 40 - 1);
  t.is(table.lookup(END), -1);
  t.is(table.unmap(END - 1, 1), 1);
});

test('every table that cannot be had is ENOMEM, with nothing mapped', (t) => {
  for (let fail = 0; ; fail++) {
    const { table, allocated } = tableOf();
    allocated.failAfter(fail);
    // Odd offsets: small leaves, in tables of all levels.
    const status = table.map(0x3_fff1, 0x1_0000, 0x500, READ);
    if (status === 0) {
      t.true(fail >= 4);
      break;
    }
    t.is(status, -ENOMEM);
    for (let unit = 0; unit < 0x500; unit++) t.is(table.lookup(0x3_fff1 + unit), -1);
  }
});

test('unmap stops at a hole, takes a last leaf whole and does not split the first', (t) => {
  const { table } = tableOf();
  t.is(table.map(0x100, 0x8100, 0x80, READ), 0);
  t.is(table.map(0x200, 0x8200, 0x80, READ), 0);
  t.is(table.unmap(0x140, 0x40), 0);
  t.is(table.lookup(0x140), 0x8140);
  t.is(table.unmap(0x100, 0x200), 0x80, 'the hole ends it');
  t.is(table.lookup(0x200), 0x8200);
  t.is(table.unmap(0x200, 1), 0x80);
  t.is(table.lookup(0x27f), -1);
  t.is(table.unmap(0x100, 1), 0);
});

test('tables that an unmap left empty make way for a large leaf', (t) => {
  const { table } = tableOf();
  for (let unit = 0; unit < 0x400; unit += 2) t.is(table.map(unit, 0x8000, 1, READ), 0);
  for (let unit = 0; unit < 0x400; unit += 2) t.is(table.unmap(unit, 1), 1);
  t.is(table.map(0, 0x4_0000, 2 ** 18, READ), 0);
  t.is(table.lookup(2 ** 18 - 1), 0x4_0000 + 2 ** 18 - 1);
});

test('dirty: a leaf of several slots is reported without its last one, as Linux 7.0 has it', (t) => {
  const { table } = tableOf();
  // Four slots of level 0; four of level 1, each of 512 units.
  t.is(table.map(0x1000, 0x8000, 4, READ), 0);
  t.is(table.map(0x2000, 0x10000, 0x800, READ), 0);
  t.true(table.setDirty(0x1003));
  t.true(table.setDirty(0x2000));
  t.deepEqual(dirtyOf(table, 0, 0x4000, false), [
    [0x1000, 3],
    [0x2000, 0x600],
  ]);
  t.deepEqual(dirtyOf(table, 0x1003, 1, true), [], 'its last slot alone');
  t.deepEqual(dirtyOf(table, 0x1000, 4, true), [], 'which has made it clean');
});

test('dirty bits are read by leaf, and cleared when that is asked for', (t) => {
  const { table } = tableOf();
  t.is(table.map(0x1000, 0x4_1001, 0x100, READ), 0);
  t.is(table.map(0x4_0000, 0x8_0000, 0x4_0000, READ), 0);
  for (const unit of [0x1000, 0x1001, 0x10ff, 0x4_1234]) t.true(table.setDirty(unit));
  t.false(table.setDirty(0x999));
  const expected: [number, number][] = [
    [0x1000, 1],
    [0x1001, 1],
    [0x10ff, 1],
    [0x4_0000, 0x4_0000],
  ];
  t.deepEqual(dirtyOf(table, 0, END, false), expected);
  t.deepEqual(dirtyOf(table, 0, END, true), expected);
  t.deepEqual(dirtyOf(table, 0, END, false), []);
  t.true(table.setDirty(0x4_0000));
  t.deepEqual(dirtyOf(table, 0x5_0000, 8, true), [[0x5_0000, 8]], 'a part of a dirty leaf');
});

test(`random maps and unmaps agree with a plain list (SEED=${SEED})`, (t) => {
  const random = new Random(SEED);
  const { table } = tableOf();
  const runs: { iova: number; pa: number; units: number }[] = [];
  const at = (unit: number) => runs.find(({ iova, units }) => unit >= iova && unit < iova + units);
  for (let step = 0; step < 4000; step++) {
    if (random.chance(0.55)) {
      const sizeLg2 = random.below(14);
      const units = 1 + random.below(2 ** sizeLg2);
      const align = 2 ** random.below(12);
      const iova = Math.floor(random.below(2 ** 20) / align) * align;
      const pa = Math.floor(random.below(2 ** 31) / align) * align;
      const free = !runs.some((run) => iova < run.iova + run.units && run.iova < iova + units);
      const status = table.map(iova, pa, units, READ);
      if (status !== (free ? 0 : -EADDRINUSE)) return t.fail(`step ${step}: map ${status}`);
      if (free) runs.push({ iova, pa, units });
    } else if (runs.length > 0) {
      const [run] = runs.splice(random.below(runs.length), 1);
      const unmapped = table.unmap(run!.iova, run!.units);
      if (unmapped !== run!.units) return t.fail(`step ${step}: unmapped ${unmapped} of ${run!.units}`);
    }
    for (let probe = 0; probe < 8; probe++) {
      const unit = random.below(2 ** 20);
      const run = at(unit);
      const expected = run === undefined ? -1 : run.pa + unit - run.iova;
      if (table.lookup(unit) !== expected) return t.fail(`step ${step}: lookup of ${unit}`);
    }
  }
  for (const { iova, units } of runs) t.is(table.unmap(iova, units), units);
  return t.is(dirtyOf(table, 0, END, false).length, 0);
});
