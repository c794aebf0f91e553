import test from 'ava';
import { type Geometry, geometryName, TableFixture } from './table-fixture.js';

const EEXIST = 17;
const EINVAL = 22;
const RW = 3;

const CASES: readonly (Geometry & { level: number; members: number })[] = [
  { stage: 2, granuleLg2: 12, inputBits: 48, outputBits: 48, startLevel: 0, level: 3, members: 16 },
  { stage: 1, granuleLg2: 12, inputBits: 48, outputBits: 48, startLevel: 0, level: 2, members: 16 },
  { stage: 1, granuleLg2: 14, inputBits: 47, outputBits: 48, startLevel: 1, level: 3, members: 128 },
  { stage: 2, granuleLg2: 14, inputBits: 44, outputBits: 44, startLevel: 1, level: 2, members: 32 },
  { stage: 2, granuleLg2: 16, inputBits: 48, outputBits: 48, startLevel: 1, level: 3, members: 32 },
  { stage: 1, granuleLg2: 16, inputBits: 48, outputBits: 52, startLevel: 1, level: 2, members: 32 },
];

for (const { level, members, ...geometry } of CASES)
  test(`map: whole aligned groups of ${members} at level ${level} carry the hint, ${geometryName(geometry)}`, (t) => {
    const f = new TableFixture(geometry, { contiguous: true });
    const size = f.span(level);
    const group = size * members;
    // Three leaves before the first group and five after the second.
    const first = 2 * group - 3 * size;
    const pfn = first + group;
    t.is(f.table.map(first, pfn, 2 * group + 8 * size, RW), 0);
    for (let i = -3; i < 2 * members + 5; i++) {
      const leaf = f.walk(2 * group + i * size)!;
      t.is(leaf.level, level);
      t.is(leaf.contiguous, i >= 0 && i < 2 * members, `leaf ${i}`);
      t.is(Number(leaf.pa >> 12n), pfn + 3 * size + i * size);
    }
    f.table.lookup(2 * group);
    t.is(f.table.foundLg2, 12 + Math.log2(size));
    t.true((f.table.foundProt & (1 << 11)) !== 0);
    // Part of a group cannot go, whole groups can.
    t.is(f.table.unmap(2 * group, size), -EINVAL);
    t.is(f.table.unmap(first, 4 * size), -EINVAL);
    t.is(f.table.unmap(2 * group, group), group);
    t.is(f.walk(2 * group), null);
    t.true(f.walk(3 * group)!.contiguous);
    t.is(f.table.unmap(first, 2 * group + 8 * size), group + 8 * size);
  });

test('map: no hint where addresses and frames are not aligned alike, or nobody asked', (t) => {
  const geometry = { stage: 2, granuleLg2: 12, inputBits: 48, outputBits: 48, startLevel: 0 } as const;
  const skewed = new TableFixture(geometry, { contiguous: true });
  t.is(skewed.table.map(16, 17, 64, RW), 0);
  const plain = new TableFixture(geometry);
  t.is(plain.table.map(16, 16, 64, RW), 0);
  for (let page = 16; page < 80; page++) {
    t.false(skewed.walk(page)!.contiguous);
    t.false(plain.walk(page)!.contiguous);
  }
});

test('map: a page in the way of a group is EEXIST, and no part of the group stays', (t) => {
  const geometry = { stage: 2, granuleLg2: 12, inputBits: 48, outputBits: 48, startLevel: 0 } as const;
  for (const taken of [16, 23, 31, 40, 67]) {
    const f = new TableFixture(geometry, { contiguous: true });
    t.is(f.table.map(taken, 5, 1, RW), 0);
    t.is(f.table.map(12, 12, 64, RW), -EEXIST);
    for (let page = 0; page < 128; page++) t.is(f.pfn(page), page === taken ? 5 : -1);
  }
});

test('map: a table in the way of a group of blocks: its pages are filled in, and no hint is broken', (t) => {
  const geometry = { stage: 2, granuleLg2: 12, inputBits: 48, outputBits: 48, startLevel: 0 } as const;
  for (const at of [0, 1, 5, 15]) {
    const f = new TableFixture(geometry, { contiguous: true });
    t.is(f.table.map((16 + at) * 512 + 7, 1, 1, RW), 0);
    t.is(f.table.unmap((16 + at) * 512 + 7, 1), 1);
    t.is(f.table.map(16 * 512, 16 * 512, 32 * 512, RW), 0);
    for (let i = 0; i < 32; i++) {
      const leaf = f.walk((16 + i) * 512)!;
      t.is(leaf.level, i === at ? 3 : 2);
      t.is(leaf.contiguous, i >= 16 || i === at);
      t.is(f.pfn((16 + i) * 512 + 9), (16 + i) * 512 + 9);
    }
    t.is(f.table.unmap(16 * 512, 32 * 512), 32 * 512);
  }
});
