/**
 * The editor's tables under the compiled walker: in every geometry it finds what was mapped, in the sizes that were
 * chosen; and what it marks dirty while another thread reads and clears is never lost.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { Random, SEED } from '../../kit/random.js';
import { type Geometry, geometryName, TableFixture } from './table-fixture.js';

const F_TRANSLATION = 0x10;
const F_PERMISSION = 0x13;
const RW = 3;
const DBM = 1 << 8;
/** HA and HD of stage 1, of stage 2; faults on a clear access flag. */
const MANAGED = 3 | (3 << 6) | (3 << 8);
/** The SMMU has 52-bit addresses. */
const OAS52 = 1 << 21;
const [CONTEXT_S1, CONTEXT_S2] = [2, 3];

const GEOMETRIES: readonly Geometry[] = [
  { stage: 1, granuleLg2: 12, inputBits: 48, outputBits: 48, startLevel: 0 },
  { stage: 1, granuleLg2: 12, inputBits: 30, outputBits: 36, startLevel: 2 },
  { stage: 2, granuleLg2: 12, inputBits: 42, outputBits: 42, startLevel: 1 },
  { stage: 2, granuleLg2: 12, inputBits: 34, outputBits: 36, startLevel: 2 },
  { stage: 1, granuleLg2: 14, inputBits: 48, outputBits: 48, startLevel: 0 },
  { stage: 1, granuleLg2: 14, inputBits: 36, outputBits: 48, startLevel: 2 },
  { stage: 2, granuleLg2: 14, inputBits: 48, outputBits: 48, startLevel: 1 },
  { stage: 2, granuleLg2: 14, inputBits: 40, outputBits: 40, startLevel: 2 },
  { stage: 1, granuleLg2: 16, inputBits: 52, outputBits: 52, startLevel: 1 },
  { stage: 1, granuleLg2: 16, inputBits: 42, outputBits: 48, startLevel: 2 },
  { stage: 2, granuleLg2: 16, inputBits: 52, outputBits: 52, startLevel: 1 },
  { stage: 2, granuleLg2: 16, inputBits: 33, outputBits: 36, startLevel: 3 },
];

function contextOf(f: TableFixture): number {
  const { stage, granuleLg2, inputBits, outputBits, startLevel } = f.geometry;
  const common = { tag: 5, flags: MANAGED | OAS52 };
  return stage === 1
    ? f.bench.context(9, {
        ...common,
        kind: CONTEXT_S1,
        s1Root: f.plain.root,
        s1InputBits: inputBits,
        s1OutputBits: outputBits,
        s1StartLevel: startLevel,
        s1GranuleLg2: granuleLg2,
      })
    : f.bench.context(9, {
        ...common,
        kind: CONTEXT_S2,
        s2Root: f.plain.root,
        s2InputBits: inputBits,
        s2OutputBits: outputBits,
        s2StartLevel: startLevel,
        s2GranuleLg2: granuleLg2,
      });
}

for (const geometry of GEOMETRIES)
  test(`the walker finds what was mapped: ${geometryName(geometry)}`, (t) => {
    t.log(`SEED=${SEED}`);
    const random = new Random(SEED ^ GEOMETRIES.indexOf(geometry));
    for (const contiguous of [false, true]) {
      const f = new TableFixture(geometry, { contiguous });
      const context = contextOf(f);
      const g = f.granulePages;
      const largest = f.span(geometry.startLevel === 3 ? 3 : 2);
      const inPages = 2 ** (geometry.inputBits - 12);
      const outPages = 2 ** (geometry.outputBits - 12);
      const mapped: { first: number; pfn: number; pages: number; prot: number }[] = [];
      for (let n = 0; n < 24; n++) {
        const pages = random.chance(0.5)
          ? g * (1 + random.below(60))
          : Math.min(largest * (1 + random.below(40)), inPages / 4);
        // The high half of both spaces, where 52-bit addresses are.
        const first =
          g * Math.floor(((inPages - pages) / g) * random.pick([random.below(1000) / 1000, 0, 1]));
        const pfn = g * Math.floor(((outPages - pages) / g) * (random.below(1000) / 1000));
        const aligned = random.chance(0.6) ? pfn - ((pfn - first) % (largest * 32)) : pfn;
        const prot = random.pick([1, RW]);
        if (aligned >= 0 && aligned + pages <= outPages && f.table.map(first, aligned, pages, prot) === 0)
          mapped.push({ first, pfn: aligned, pages, prot });
      }
      t.true(mapped.length > 2);
      for (const { first, pfn, pages, prot } of mapped)
        for (const at of [
          0,
          pages - 1,
          random.below(Math.min(pages, 2 ** 31)),
          random.below(Math.min(pages, 2 ** 31)),
        ]) {
          const write = random.chance(0.5);
          const iova = BigInt(first + at) * 4096n + 0x123n;
          const got = f.bench.translate(context, iova, write);
          const want = write && prot === 1 ? F_PERMISSION : 0;
          t.is(got.status, want);
          if (want !== 0) continue;
          t.is(got.pa, BigInt(pfn + at) * 4096n + 0x123n);
          f.table.lookup(first + at);
          // A contiguous group may be one translation.
          t.true(contiguous ? got.sizeLg2 >= f.table.foundLg2 : got.sizeLg2 === f.table.foundLg2);
        }
      const { first, pages } = mapped[0]!;
      t.is(f.table.unmap(first, pages), pages);
      f.bench.kernel.iotlbInvalidateAll(f.bench.unit, f.bench.iotlb);
      t.is(f.bench.translate(context, BigInt(first) * 4096n).status, F_TRANSLATION);
    }
  });

test('the walker marks tracked leaves dirty, and readAndClearDirty tells it', (t) => {
  for (const geometry of GEOMETRIES) {
    const f = new TableFixture(geometry);
    const context = contextOf(f);
    const g = f.granulePages;
    const options = { unitLg2: geometry.granuleLg2 };
    t.is(f.table.map(0, g, 8 * g, RW | DBM), 0);
    t.is(f.bench.translate(context, BigInt(2 * g) * 4096n, false).status, 0);
    const bitmap = new Uint8Array(1);
    t.is(f.table.readAndClearDirty(0, 8 * g, bitmap, options), 0);
    t.is(f.bench.translate(context, BigInt(3 * g) * 4096n, true).status, 0);
    t.is(f.bench.translate(context, BigInt(5 * g) * 4096n, true).status, 0);
    t.is(f.table.readAndClearDirty(0, 8 * g, bitmap, options), 2);
    t.is(bitmap[0], 0b101000);
  }
});

test('what the walker marks while another thread reads and clears is told by that scan or a later one', async (t) => {
  const PAGES = 64;
  const ROUNDS = 40_000;
  for (const stage of [1, 2] as const) {
    const f = new TableFixture({
      stage,
      granuleLg2: 12,
      inputBits: 42,
      outputBits: 42,
      startLevel: stage === 1 ? 0 : 1,
    });
    const { memory, kernel, unit, iotlb, scratch, tables } = f.bench;
    const { words } = memory;
    t.is(f.table.map(512, 512, PAGES, RW | DBM), 0);
    const context = contextOf(f);
    // Word 0: writes begun; word 1: done; word 2: enough was told; from 64 on, per page, the number of its last write.
    const control = tables + 4096;
    words.store(control, 0);
    words.store(control + 4, 0);
    words.store(control + 8, 0);
    const worker = new Worker(new URL('./writing-walker.js', import.meta.url), {
      workerData: {
        handle: memory.handle(),
        unit,
        iotlb,
        context,
        xlat: scratch,
        control,
        pages: PAGES,
        first: 512,
        rounds: ROUNDS,
      },
    });
    await once(worker, 'message');
    const scanEnd = new Array<number>(PAGES).fill(-1);
    let told = 0;
    const scan = (): void => {
      const bitmap = new Uint8Array(PAGES / 8);
      told += f.table.readAndClearDirty(512, PAGES, bitmap);
      const now = words.load(control);
      for (let i = 0; i < PAGES; i++) if ((bitmap[i >> 3]! >> (i & 7)) & 1) scanEnd[i] = now;
    };
    while (words.load(control + 4) === 0) {
      scan();
      if (told > PAGES) words.store(control + 8, 1);
    }
    scan();
    await once(worker, 'exit');
    t.true(told > PAGES);
    // A write that began after the last scan that told its page had ended was not told at all.
    for (let i = 0; i < PAGES; i++) t.true(words.load(control + 64 + i * 4) <= scanEnd[i]!, `page ${i}`);
    t.is(kernel.ptLookup(tables, 512), 512);
  }
});
