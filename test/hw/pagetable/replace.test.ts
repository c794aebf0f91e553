import test from 'ava';
import type { Replacement } from '../../../hw/pagetable/replacement.js';
import { type Geometry, geometryName, TableFixture } from './table-fixture.js';

const ENOMEM = 12;
const EBUSY = 16;
const EINVAL = 22;
const ERANGE = 34;
const RW = 3;
/** PROT_DBM, PROT_NO_AF. */
const DBM = 1 << 8;
const NO_AF = 1 << 9;

const FOUR: Geometry = { stage: 2, granuleLg2: 12, inputBits: 39, outputBits: 48, startLevel: 1 };
const GRANULES: readonly Geometry[] = [
  FOUR,
  { stage: 1, granuleLg2: 12, inputBits: 48, outputBits: 48, startLevel: 0 },
  { stage: 1, granuleLg2: 14, inputBits: 40, outputBits: 48, startLevel: 1 },
  { stage: 2, granuleLg2: 16, inputBits: 48, outputBits: 52, startLevel: 1 },
];

const must = (change: Replacement | number): Replacement => {
  if (typeof change === 'number') throw new Error(`replace: ${change}`);
  return change;
};

for (const geometry of GRANULES) {
  const name = geometryName(geometry);

  test(`split: break, then smaller leaves of the same translation, ${name}`, (t) => {
    const f = new TableFixture(geometry);
    const pages = f.span(2);
    const first = 5 * pages;
    const pfn = 9 * pages;
    t.is(f.table.map(first, pfn, pages, RW), 0);
    const before = f.walk(first)!;
    const change = must(f.table.replace('split', first + 1, 2));
    t.deepEqual([change.firstPage, change.pages, change.leaf], [first, pages, true]);
    // Between the steps nothing translates, and nothing else may be edited.
    t.is(f.walk(first), null);
    t.is(f.table.lookup(first), -1);
    t.is(f.table.map(0, 0, pages, RW), -EBUSY);
    t.is(f.table.unmap(first, pages), -EBUSY);
    t.is(f.table.replace('split', first, 2), -EBUSY);
    change.finish();
    for (const at of [0, f.granulePages, pages - f.granulePages]) {
      const leaf = f.walk(first + at)!;
      t.is(Number(leaf.pa >> 12n), pfn + at);
      t.is(leaf.sizeLg2, geometry.granuleLg2);
      // The attributes are the block's: all but address and type.
      const attributes = ~0x0000_ffff_ffff_f003n;
      t.is(leaf.descriptor & attributes, before.descriptor & attributes);
    }
    t.is(f.table.unmap(first + f.granulePages, pages - f.granulePages), pages - f.granulePages);
    t.is(f.pfn(first), pfn);
    f.table.destroy();
    t.is(f.frames.used, 0);
  });

  test(`collapse: the reverse, and the table is given back, ${name}`, (t) => {
    const f = new TableFixture(geometry);
    const pages = f.span(2);
    const g = f.granulePages;
    for (let i = pages - g; i >= 0; i -= g) t.is(f.table.map(3 * pages + i, 7 * pages + i, g, RW), 0);
    const change = must(f.table.replace('collapse', 3 * pages + g, 2));
    t.deepEqual([change.firstPage, change.pages, change.leaf], [3 * pages, pages, false]);
    t.is(f.walk(3 * pages), null);
    t.is(f.table.freedTables, 0);
    change.finish();
    t.is(f.table.freedTables, 1);
    f.table.releaseFreed();
    const leaf = f.walk(3 * pages + g)!;
    t.is(leaf.level, 2);
    t.is(Number(leaf.pa >> 12n), 7 * pages + g);
    t.is(f.table.unmap(3 * pages + g, g), -EINVAL);
    t.is(f.table.unmap(3 * pages, pages), pages);
    f.table.destroy();
    t.is(f.frames.used, 0);
  });

  test(`split and collapse at once under BBM level 2: never a moment without a translation, ${name}`, (t) => {
    const f = new TableFixture(geometry);
    const pages = f.span(2);
    t.is(f.table.map(pages, pages, pages, RW), 0);
    const split = must(f.table.replace('split', pages, 2, true));
    t.is(f.walk(pages)!.level, 3);
    t.throws(() => split.cancel());
    split.finish();
    const collapse = must(f.table.replace('collapse', pages, 2, true));
    t.is(f.walk(pages)!.level, 2);
    t.is(f.table.freedTables, 0);
    collapse.finish();
    t.is(f.table.freedTables, 1);
    t.is(f.pfn(2 * pages - 1), 2 * pages - 1);
  });

  test(`ungroup and group: the hint goes from every member and comes back, ${name}`, (t) => {
    for (const direct of [false, true]) {
      const f = new TableFixture(geometry, { contiguous: true });
      const g = f.granulePages;
      const members = { 12: 16, 14: 128, 16: 32 }[geometry.granuleLg2];
      const pages = members * g;
      t.is(f.table.map(pages, pages, 2 * pages, RW), 0);
      const change = must(f.table.replace('ungroup', 2 * pages - 1, 3, direct));
      t.deepEqual([change.firstPage, change.pages, change.leaf], [pages, pages, true]);
      for (let i = 0; i < members; i++) t.is(f.walk(pages + i * g)?.contiguous, direct ? false : undefined);
      change.finish();
      for (let i = 0; i < members; i++) {
        t.is(f.pfn(pages + i * g), pages + i * g);
        t.false(f.walk(pages + i * g)!.contiguous);
        t.true(f.walk(2 * pages + i * g)!.contiguous);
      }
      t.is(f.table.replace('ungroup', pages, 3, direct), -EINVAL);
      const back = must(f.table.replace('group', pages + g, 3, direct));
      back.finish();
      for (let i = 0; i < members; i++) t.true(f.walk(pages + i * g)!.contiguous);
      t.is(f.table.replace('group', pages, 3, direct), -EINVAL);
    }
  });
}

test('cancel: the old entries are back as they were', (t) => {
  const f = new TableFixture(FOUR, { contiguous: true });
  t.is(f.table.map(512, 1024, 512, RW | NO_AF), 0);
  t.is(f.table.map(16, 2064, 16, RW), 0);
  const block = f.walk(512)!.descriptor;
  const leaf = f.walk(20)!.descriptor;
  must(f.table.replace('split', 600, 2)).cancel();
  must(f.table.replace('ungroup', 16, 3)).cancel();
  t.is(f.walk(512)!.descriptor, block);
  t.is(f.walk(20)!.descriptor, leaf);
  const split = must(f.table.replace('split', 600, 2));
  split.finish();
  t.throws(() => split.finish());
  must(f.table.replace('collapse', 600, 2)).cancel();
  t.is(f.pfn(700), 1212);
  t.is(f.table.freedTables, 0);
});

test('replace: what is not there at that level is EINVAL and changes nothing', (t) => {
  const f = new TableFixture(FOUR);
  t.is(f.table.map(0, 0, 512, RW), 0);
  t.is(f.table.map(512, 513, 512, RW), 0);
  t.is(f.table.replace('split', 0, 1), -EINVAL, 'a table');
  t.is(f.table.replace('split', 0, 3), -EINVAL, 'below');
  t.is(f.table.replace('split', 0, 0), -EINVAL, 'above the root');
  t.is(f.table.replace('split', 512, 2), -EINVAL, 'a table');
  t.is(f.table.replace('split', 1024, 2), -EINVAL, 'a hole');
  t.is(f.table.replace('collapse', 0, 2), -EINVAL, 'a block');
  t.is(f.table.replace('collapse', 512, 2), -EINVAL, 'not aligned');
  t.is(f.table.replace('collapse', 0, 1), -EINVAL, 'not full');
  t.is(f.table.replace('group', 512, 3), -EINVAL, 'not aligned');
  t.is(f.table.replace('split', 2 ** 27, 2), -ERANGE);
  t.is(f.table.unmap(512, 512), 512);
  for (const [page, pfn, pages, prot] of [
    [512, 512, 100, RW],
    [612, 612, 1, 1],
    [613, 613, 411, RW],
  ] as const)
    t.is(f.table.map(page, pfn, pages, prot), 0);
  t.is(f.table.replace('collapse', 512, 2), -EINVAL, 'not alike');
  t.is(f.table.unmap(612, 1), 1);
  t.is(f.table.replace('collapse', 512, 2), -EINVAL, 'a hole in it');
  t.is(f.table.map(612, 612, 1, RW), 0);
  must(f.table.replace('collapse', 512, 2)).finish();
  t.is(f.walk(612)!.level, 2);
});

test('split: a gibibyte goes to 2 MiB blocks, those to pages; both ways', (t) => {
  const f = new TableFixture(FOUR);
  const GIB = 2 ** 18;
  t.is(f.table.map(GIB, 3 * GIB, GIB, RW), 0);
  must(f.table.replace('split', GIB + 5, 1)).finish();
  must(f.table.replace('split', GIB + 5, 2)).finish();
  t.deepEqual([f.walk(GIB)!.level, f.walk(GIB + 512)!.level], [3, 2]);
  t.is(f.pfn(GIB + 511), 3 * GIB + 511);
  t.is(f.table.replace('collapse', GIB, 1), -EINVAL);
  must(f.table.replace('collapse', GIB, 2)).finish();
  must(f.table.replace('collapse', GIB, 1)).finish();
  t.is(f.walk(GIB + 511)!.level, 1);
  t.is(f.table.freedTables, 2);
});

test('split: no frame for the table is ENOMEM, and the block stands', (t) => {
  const f = new TableFixture({ ...FOUR, startLevel: 2, inputBits: 34 }, { count: 0 });
  t.is(f.table.map(512, 512, 512, RW), 0);
  t.is(f.table.replace('split', 512, 2), -ENOMEM);
  t.is(f.walk(512)!.level, 2);
});

test('split and collapse keep accessed and dirty state, that of the steps between included', (t) => {
  for (const stage of [1, 2] as const) {
    const f = new TableFixture({ ...FOUR, stage });
    t.is(f.table.map(512, 512, 512, RW | DBM | NO_AF), 0);
    const clean = f.walk(512)!;
    t.deepEqual([clean.dirty, clean.accessed, clean.tracked], [false, false, true]);
    must(f.table.replace('split', 512, 2)).finish();
    t.deepEqual([f.walk(700)!.dirty, f.walk(700)!.accessed], [false, false]);
    t.true(f.write(700));
    t.deepEqual([f.walk(700)!.dirty, f.walk(701)!.dirty], [true, false]);
    const collapse = must(f.table.replace('collapse', 512, 2));
    collapse.finish();
    t.deepEqual([f.walk(512)!.dirty, f.walk(512)!.accessed, f.walk(512)!.level], [true, true, 2]);
    must(f.table.replace('split', 512, 2)).finish();
    t.deepEqual([f.walk(1023)!.dirty, f.walk(1023)!.accessed], [true, true]);
    // A walker that read the table before a direct collapse writes into it afterwards.
    t.is(f.table.readAndClearDirty(512, 512, new Uint8Array(64)), 512);
    const late = f.walk(600)!;
    const direct = must(f.table.replace('collapse', 512, 2, true));
    t.false(f.walk(600)!.dirty);
    const bit7 = 1n << 7n;
    f.bench.setRam(late.slot, stage === 1 ? late.descriptor & ~bit7 : late.descriptor | bit7);
    direct.finish();
    t.true(f.walk(512)!.dirty);
    t.is(f.walk(512)!.level, 2);
  }
});

test('ungroup: one dirty member makes all dirty, since hardware may have marked any', (t) => {
  const f = new TableFixture(FOUR, { contiguous: true });
  t.is(f.table.map(32, 32, 32, RW | DBM), 0);
  t.true(f.write(37));
  must(f.table.replace('ungroup', 32, 3)).finish();
  must(f.table.replace('ungroup', 48, 3)).finish();
  t.is(f.table.readAndClearDirty(0, 512, new Uint8Array(64), { noClear: true }), 16);
  t.true(f.walk(47)!.dirty);
  t.false(f.walk(48)!.dirty);
});

test('unmapCutting: blocks and groups are split at both ends, each break invalidated before it is mended', (t) => {
  const f = new TableFixture(FOUR, { contiguous: true });
  t.is(f.table.map(0, 0, 4 * 512, RW), 0);
  const breaks: [number, number, number][] = [];
  const invalidate = (change: Replacement): number => {
    t.is(f.walk(change.firstPage), null);
    breaks.push([change.firstPage, change.pages, f.frames.used]);
    return 0;
  };
  t.is(f.table.unmapCutting(100, 3 * 512, invalidate), 3 * 512);
  t.deepEqual(
    breaks.map(([first, pages]) => [first, pages]),
    [
      [0, 512],
      [3 * 512, 512],
    ],
  );
  for (const [page, pfn] of [
    [99, 99],
    [100, -1],
    [3 * 512 + 99, -1],
    [3 * 512 + 100, 3 * 512 + 100],
  ] as const)
    t.is(f.pfn(page), pfn);
  t.is(f.table.map(5 * 512, 5 * 512 + 1024 * 16 + 16, 64, RW), 0);
  t.is(f.table.unmap(5 * 512, 20), -EINVAL);
  t.is(f.table.unmapCutting(5 * 512, 20, null), 20);
  t.is(f.pfn(5 * 512 + 20), 5 * 512 + 1024 * 16 + 36);
  t.false(f.walk(5 * 512 + 20)!.contiguous);
  t.true(f.walk(5 * 512 + 32)!.contiguous);
});

test('unmapCutting: an invalidation that fails leaves everything mapped', (t) => {
  const f = new TableFixture(FOUR);
  t.is(f.table.map(0, 0, 1024, RW), 0);
  t.is(
    f.table.unmapCutting(0, 513, () => -110),
    -110,
  );
  t.is(f.walk(513)!.level, 2);
  t.is(f.pfn(0), 0);
  t.is(f.table.unmap(0, 1024), 1024);
});
