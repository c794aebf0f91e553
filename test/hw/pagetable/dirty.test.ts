import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { type Geometry, geometryName, TableFixture } from './table-fixture.js';

const ERANGE = 34;
const EINVAL = 22;
const EFAULT = 14;
const RW = 3;
/** PROT_DBM, PROT_NO_AF. */
const DBM = 1 << 8;
const NO_AF = 1 << 9;

const GEOMETRIES: readonly Geometry[] = [
  { stage: 1, granuleLg2: 12, inputBits: 48, outputBits: 48, startLevel: 0 },
  { stage: 2, granuleLg2: 12, inputBits: 42, outputBits: 42, startLevel: 1 },
  { stage: 1, granuleLg2: 14, inputBits: 47, outputBits: 48, startLevel: 1 },
  { stage: 2, granuleLg2: 16, inputBits: 52, outputBits: 52, startLevel: 1 },
];

/** Indexes of the bits that are set. */
const set = (bitmap: Uint8Array): number[] =>
  [...bitmap].flatMap((byte, i) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => (byte >> bit) & 1).map((bit) => i * 8 + bit),
  );

for (const geometry of GEOMETRIES) {
  const name = geometryName(geometry);

  test(`readAndClearDirty: leaves start clean, are told once when written, ${name}`, (t) => {
    const f = new TableFixture(geometry);
    const g = f.granulePages;
    const unitLg2 = geometry.granuleLg2;
    t.is(f.table.map(0, 0, 40 * g, RW | DBM), 0);
    t.is(f.table.map(40 * g, 40 * g, g, RW), 0);
    const scan = (options = {}): number[] => {
      const bitmap = new Uint8Array(8);
      const leaves = f.table.readAndClearDirty(0, 64 * g, bitmap, { unitLg2, ...options });
      t.is(leaves, set(bitmap).length);
      return set(bitmap);
    };
    t.deepEqual(scan(), []);
    for (const unit of [0, 7, 8, 39, 40]) t.true(f.write(unit * g));
    // What is not tracked is writable all along, and never dirty.
    t.deepEqual(scan({ noClear: true }), [0, 7, 8, 39]);
    t.deepEqual(scan(), [0, 7, 8, 39]);
    t.deepEqual(scan(), []);
    const clean = f.walk(0)!;
    t.deepEqual([clean.tracked, clean.dirty, clean.accessed, clean.writable], [true, false, true, true]);
    t.true(f.write(8 * g));
    t.deepEqual(scan(), [8]);
  });

  test(`readAndClearDirty: a block sets every bit it spans, ${name}`, (t) => {
    const f = new TableFixture(geometry);
    const pages = f.span(2);
    t.is(f.table.map(4 * pages, 4 * pages, 3 * pages, RW | DBM), 0);
    t.true(f.write(5 * pages + 3));
    const bitmap = new Uint8Array((8 * pages) / 8);
    t.is(f.table.readAndClearDirty(0, 8 * pages, bitmap), 1);
    t.deepEqual(
      bitmap.map((byte, i) => (byte === (i >= (5 * pages) / 8 && i < (6 * pages) / 8 ? 0xff : 0) ? 0 : 1)),
      new Uint8Array(pages),
    );
    t.false(f.walk(5 * pages)!.dirty);
    // In larger units: one bit for the block and its neighbour.
    t.true(f.write(5 * pages));
    const coarse = new Uint8Array(1);
    t.is(f.table.readAndClearDirty(0, 8 * pages, coarse, { unitLg2: 13 + Math.log2(pages) }), 1);
    t.deepEqual(set(coarse), [2]);
  });
}

test('readAndClearDirty: a leaf that the range cuts is told as far as it goes, and stays dirty', (t) => {
  const f = new TableFixture(GEOMETRIES[1]!);
  t.is(f.table.map(512, 512, 1024, RW | DBM), 0);
  t.true(f.write(512));
  t.true(f.write(1024));
  const bitmap = new Uint8Array(128);
  t.is(f.table.readAndClearDirty(600, 600, bitmap), 2);
  t.deepEqual(
    set(bitmap),
    Array.from({ length: 600 }, (_, i) => i),
  );
  t.true(f.walk(512)!.dirty);
  t.true(f.walk(1024)!.dirty);
  t.is(f.table.readAndClearDirty(512, 600, bitmap.fill(0)), 2);
  t.false(f.walk(512)!.dirty);
  t.true(f.walk(1024)!.dirty);
});

test('readAndClearDirty: bits that are set stay set, and any member makes its group dirty', (t) => {
  const f = new TableFixture(GEOMETRIES[0]!, { contiguous: true });
  t.is(f.table.map(16, 16, 64, RW | DBM), 0);
  t.true(f.write(37));
  const bitmap = new Uint8Array(16).fill(1);
  t.is(f.table.readAndClearDirty(0, 128, bitmap), 1);
  t.deepEqual(
    [...bitmap],
    Array.from({ length: 16 }, (_, i) => (i === 4 || i === 5 ? 0xff : 1)),
  );
  for (let page = 16; page < 80; page++) t.false(f.walk(page)!.dirty);
});

test('readAndClearDirty: a range far larger than what one call of the editor reports', (t) => {
  const f = new TableFixture(GEOMETRIES[0]!);
  const GIB = 2 ** 18;
  t.is(f.table.map(GIB, GIB, GIB, RW | DBM), 0);
  t.is(f.table.map(3 * GIB + 5, 0, 1, RW | DBM), 0);
  t.true(f.write(GIB));
  t.true(f.write(3 * GIB + 5));
  const bitmap = new Uint8Array((4 * GIB) / 8);
  t.is(f.table.readAndClearDirty(0, 4 * GIB, bitmap, { noClear: true }) >= 2, true);
  const count = bitmap.reduce((n, byte) => n + [...byte.toString(2)].filter((c) => c === '1').length, 0);
  t.is(count, GIB + 1);
  t.is(bitmap[GIB / 8 - 1], 0);
  t.is(bitmap[(3 * GIB) / 8], 1 << 5);
  f.table.readAndClearDirty(0, 4 * GIB, bitmap);
  t.false(f.walk(GIB)!.dirty);
  t.is(f.table.readAndClearDirty(0, 4 * GIB, bitmap.fill(0)), 0);
  // Nothing mapped, and all of the input range.
  t.is(f.table.unmap(0, 4 * GIB), GIB + 1);
  t.is(f.table.readAndClearDirty(0, 2 ** 36, new Uint8Array(8), { unitLg2: 48 }), 0);
});

test('readAndClearDirty: bad ranges, units, bitmaps and tables are refused', (t) => {
  const f = new TableFixture(GEOMETRIES[0]!);
  const bitmap = new Uint8Array(8);
  t.is(f.table.readAndClearDirty(2 ** 36, 1, bitmap), -ERANGE);
  t.is(f.table.readAndClearDirty(0, 65, bitmap), -EINVAL);
  t.is(f.table.readAndClearDirty(1, 64, bitmap, { unitLg2: 13 }), -EINVAL);
  t.is(f.table.readAndClearDirty(0, 1, bitmap, { unitLg2: 11 }), -EINVAL);
  f.bench.setRam(f.plain.root, 0x9_0000_0003n);
  t.is(f.table.readAndClearDirty(0, 64, bitmap), -EFAULT);
});

test('lookup tells tracked, dirty and accessed', (t) => {
  for (const stage of [1, 2] as const) {
    const f = new TableFixture({ ...GEOMETRIES[0]!, stage });
    t.is(f.table.map(1, 1, 1, RW | DBM | NO_AF), 0);
    t.is(f.table.map(2, 2, 1, 1 | DBM), 0);
    f.table.lookup(1);
    t.is(f.table.foundProt, RW | DBM | NO_AF);
    t.true(f.write(1));
    f.table.lookup(1);
    t.is(f.table.foundProt, RW | DBM | (1 << 10));
    // Nothing to track in what cannot be written.
    f.table.lookup(2);
    t.is(f.table.foundProt, 1);
  }
});

test('readAndClearDirty: against a walker that writes, each time a page becomes dirty is told exactly once', async (t) => {
  const PAGES = 256;
  for (const stage of [1, 2] as const) {
    const f = new TableFixture({ ...GEOMETRIES[0]!, stage });
    const { memory, scratch, tables } = f.bench;
    t.is(f.table.map(512, 512, PAGES, RW | DBM | NO_AF), 0);
    const first = f.walk(512)!.slot;
    const control = tables + 4096;
    memory.words.store(control, 0);
    const worker = new Worker(new URL('./dirtying-walker.js', import.meta.url), {
      workerData: {
        handle: memory.handle(),
        slots: memory.linearOf(Number(first), 8),
        counts: scratch,
        control,
        pages: PAGES,
        stage,
        total: 30_000,
      },
    });
    await once(worker, 'message');
    const told = new Uint32Array(PAGES);
    const scan = (): void => {
      const bitmap = new Uint8Array(PAGES / 8);
      f.table.readAndClearDirty(512, PAGES, bitmap);
      for (const unit of set(bitmap)) told[unit]!++;
    };
    while (memory.words.load(control) === 0) scan();
    scan();
    await once(worker, 'exit');
    const counted = Array.from({ length: PAGES }, (_, i) => memory.words.load(scratch + i * 4));
    t.deepEqual([...told], counted);
    t.is(memory.words.load(control + 4), 0);
    t.is(
      counted.reduce((a, b) => a + b),
      30_000,
    );
    for (let page = 0; page < PAGES; page++) t.true(f.walk(512 + page)!.accessed);
  }
});
