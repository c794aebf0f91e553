import test from 'ava';
import {
  canStart,
  contiguousLg2,
  firstLevel,
  leafSizesLg2,
  rootBytes,
  stage2StartLevel,
} from '../../../hw/pagetable/geometry.js';
import { type Geometry, geometryName, TableFixture } from './table-fixture.js';

const EINVAL = 22;
const ERANGE = 34;

/** [stage, granule, input, output, start level]: what IDR5, T0SZ and SL0 can describe. */
const GEOMETRIES: readonly Geometry[] = (
  [
    [1, 12, 48, 48, 0],
    [1, 12, 39, 48, 1],
    [1, 12, 30, 32, 2],
    [1, 12, 21, 32, 3],
    [2, 12, 48, 48, 0],
    [2, 12, 42, 42, 1],
    [2, 12, 43, 44, 1],
    [2, 12, 40, 40, 1],
    [2, 12, 34, 36, 2],
    [1, 14, 48, 48, 0],
    [1, 14, 47, 48, 1],
    [1, 14, 36, 36, 2],
    [1, 14, 25, 32, 3],
    [2, 14, 48, 48, 1],
    [2, 14, 40, 40, 2],
    [2, 14, 44, 44, 1],
    [1, 16, 52, 52, 1],
    [1, 16, 48, 48, 1],
    [1, 16, 42, 48, 2],
    [1, 16, 29, 32, 3],
    [2, 16, 52, 52, 1],
    [2, 16, 46, 52, 2],
    [2, 16, 33, 36, 3],
  ] as const
).map(([stage, granuleLg2, inputBits, outputBits, startLevel]) => ({
  stage,
  granuleLg2,
  inputBits,
  outputBits,
  startLevel,
}));

for (const geometry of GEOMETRIES)
  test(`map: the ends of the range, ${geometryName(geometry)}`, (t) => {
    const f = new TableFixture(geometry, { count: 24 });
    const g = f.granulePages;
    const { inputBits, outputBits } = geometry;
    const lastIn = 2 ** (inputBits - 12) - g;
    const lastOut = 2 ** (outputBits - 12) - g;
    t.is(f.table.map(lastIn, lastOut, g, 3), 0);
    t.is(f.table.map(0, 0, g, 3), 0);
    for (const [page, pfn] of [
      [lastIn, lastOut],
      [0, 0],
    ] as const) {
      t.is(f.pfn(page), pfn);
      t.is(f.table.lookup(page), pfn);
      t.is(f.table.foundLg2, geometry.granuleLg2);
    }
    t.is(f.table.map(lastIn + g, 0, g, 3), -ERANGE);
    t.is(f.table.map(g, lastOut + g, g, 3), -ERANGE);
    t.is(f.table.unmap(0, lastIn + g), 2 * g);
    t.is(f.walk(0), null);
    t.is(f.walk(lastIn), null);
    f.table.destroy();
    t.is(f.frames.used, 0);
  });

test('map: every leaf size of every granule is used where address and length allow', (t) => {
  for (const [granuleLg2, bits, sizes] of [
    [12, 48, [12, 21, 30]],
    [14, 47, [14, 25]],
    [16, 48, [16, 29]],
    [16, 52, [16, 29, 42]],
  ] as const) {
    const startLevel = granuleLg2 === 12 ? 0 : 1;
    const geometry = { stage: 1, granuleLg2, inputBits: bits, outputBits: bits, startLevel } as const;
    for (const sizeLg2 of sizes) {
      const f = new TableFixture(geometry, { count: 24 });
      const pages = 2 ** (sizeLg2 - 12);
      // One granule on each side makes the neighbours small.
      const first = 8 * pages - f.granulePages;
      const beyond = 2 ** (sizeLg2 - 12) * 3;
      t.is(f.table.map(first, first + beyond, pages + 2 * f.granulePages, 3), 0);
      const leaf = f.walk(8 * pages)!;
      t.is(leaf.sizeLg2, sizeLg2, `${granuleLg2} ${sizeLg2}`);
      t.is(Number(leaf.pa >> 12n), 8 * pages + beyond);
      t.is(f.pfn(9 * pages), 9 * pages + beyond);
      t.is(f.table.lookup(8 * pages + f.granulePages - 1), 8 * pages + beyond + f.granulePages - 1);
      t.is(f.table.foundLg2, sizeLg2);
      t.is(f.table.unmap(0, 16 * pages), pages + 2 * f.granulePages);
    }
  }
});

test('map: bits 51:48 of a physical address go to bits 15:12 of the descriptor', (t) => {
  const geometry = { stage: 2, granuleLg2: 16, inputBits: 48, outputBits: 52, startLevel: 1 } as const;
  const f = new TableFixture(geometry);
  const pfn = 0xa_bcde_f012_0000 / 4096;
  t.is(f.table.map(32, pfn, 16, 3), 0);
  const leaf = f.walk(32)!;
  t.is((leaf.descriptor >> 12n) & 15n, 0xan);
  t.is(Number(leaf.pa >> 12n), pfn);
  t.is(f.table.lookup(35), pfn + 3);
});

test('map: a run over the 2^48 boundary of physical addresses, in pages and in blocks', (t) => {
  const geometry = { stage: 1, granuleLg2: 16, inputBits: 52, outputBits: 52, startLevel: 1 } as const;
  const boundary = 2 ** 36;
  const block = 2 ** 17;
  for (const [page, pages] of [
    [8192 * 16, 64 * 16],
    [4 * block, 4 * block],
  ] as const) {
    const f = new TableFixture(geometry);
    const pfn = boundary - pages / 2;
    t.is(f.table.map(page, pfn, pages, 3), 0);
    for (const at of [0, pages / 2 - 16, pages / 2, pages - 16]) {
      t.is(f.pfn(page + at), pfn + at);
      t.is(f.table.lookup(page + at), pfn + at);
    }
  }
});

test('map, unmap: what is not whole granules is EINVAL', (t) => {
  for (const granuleLg2 of [14, 16] as const) {
    const f = new TableFixture({ stage: 2, granuleLg2, inputBits: 44, outputBits: 44, startLevel: 1 });
    const g = f.granulePages;
    t.is(f.table.map(1, 0, g, 3), -EINVAL);
    t.is(f.table.map(0, 1, g, 3), -EINVAL);
    t.is(f.table.map(0, 0, g - 1, 3), -EINVAL);
    t.is(f.table.map(0, 0, g, 3), 0);
    t.is(f.table.unmap(0, g - 1), -EINVAL);
    t.is(f.table.unmap(0, g), g);
  }
});

test('PageTable: a geometry that no register can describe is refused', (t) => {
  const refused = (granuleLg2: 12 | 14 | 16, inputBits: number, outputBits: number, startLevel: number) =>
    t.throws(() => new TableFixture({ stage: 1, granuleLg2, inputBits, outputBits, startLevel }));
  refused(12, 52, 48, 0);
  refused(12, 48, 52, 0);
  refused(12, 48, 48, 1);
  refused(14, 52, 48, 0);
  refused(16, 48, 48, 0);
  refused(16, 48, 48, 2);
  refused(12, 12, 48, 3);
});

test('stage 2 concatenates where the architecture demands it, and nowhere else', (t) => {
  // [granule, address bits, level, tables side by side]
  for (const [granuleLg2, bits, level, tables] of [
    [12, 32, 1, 1],
    [12, 36, 1, 1],
    [12, 40, 1, 2],
    [12, 42, 1, 8],
    [12, 44, 0, 1],
    [12, 48, 0, 1],
    [14, 32, 2, 1],
    [14, 36, 2, 1],
    [14, 40, 2, 16],
    [14, 42, 1, 1],
    [14, 44, 1, 1],
    [14, 48, 1, 2],
    [16, 32, 2, 1],
    [16, 42, 2, 1],
    [16, 44, 1, 1],
    [16, 48, 1, 1],
    [16, 52, 1, 1],
  ] as const) {
    const at = `${granuleLg2}, ${bits} bits`;
    t.is(stage2StartLevel(bits, bits, granuleLg2), level, at);
    t.true(canStart(2, bits, level, granuleLg2), at);
    const bytes = rootBytes(bits, level, granuleLg2);
    t.is(Math.max(1, bytes / 2 ** granuleLg2), tables, at);
  }
});

test('geometry: levels, leaf sizes and hints are the tables of the specification', (t) => {
  t.deepEqual(
    [12, 14, 16].map((g) => [firstLevel(48, g as 12), firstLevel(39, g as 12), firstLevel(32, g as 12)]),
    [
      [0, 1, 1],
      [0, 1, 2],
      [1, 2, 2],
    ],
  );
  t.deepEqual(leafSizesLg2(12, 48), [12, 21, 30]);
  t.deepEqual(leafSizesLg2(14, 48), [14, 25]);
  t.deepEqual(leafSizesLg2(16, 48), [16, 29]);
  t.deepEqual(leafSizesLg2(16, 52), [16, 29, 42]);
  const hints = ([12, 14, 16] as const).map((g) => [1, 2, 3].map((level) => contiguousLg2(level, g)));
  t.deepEqual(hints, [
    [0, 4, 4],
    [0, 5, 7],
    [0, 5, 5],
  ]);
});
