/**
 * The IOTLB against an associative model: a list of entries and a predicate for each invalidation. What the
 * hardware may do (evict when a set is full) is read back; what it must and must not do is the model's.
 */
import test from 'ava';
import type { IotlbEntryView } from '../../../hw/kernel/kernel.js';
import { KernelBench } from '../../kit/kernel-bench.js';
import { Random, SEED } from '../../kit/random.js';

const ENTRIES = 64;
const READ = 1 << 1;
const WRITE = 1 << 2;
const GLOBAL = 1 << 3;
const S1 = 1 << 4;
const S2 = 1 << 5;

function contents(bench: KernelBench): Map<string, IotlbEntryView> {
  const found = new Map<string, IotlbEntryView>();
  for (let i = 0; i < ENTRIES; i++) {
    const entry = bench.kernel.iotlbReadEntry(bench.iotlb, i);
    if (entry) found.set(key(entry), entry);
  }
  return found;
}

const key = (e: IotlbEntryView): string => [e.vmid, e.asid, e.page, e.sizeLg2, e.stage1, e.stage2].join('/');
const pagesOf = (e: IotlbEntryView): number => 2 ** (e.sizeLg2 - 12);
const overlap = (first: number, n: number, first2: number, n2: number): boolean =>
  first < first2 + n2 && first2 < first + n;

test('iotlb: fills, probes and invalidations agree with an associative model', (t) => {
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  const bench = new KernelBench({ entries: ENTRIES });
  const { kernel, unit, iotlb } = bench;
  const vmids = [0, 1, 0xffff];
  const asids = [0, 1, 0xffff];
  let removals = 0;
  for (let round = 0; round < 60; round++) {
    const globals = round % 3 === 2;
    kernel.iotlbInvalidateAll(unit, iotlb);
    for (let step = 0; step < 120; step++) {
      const vmid = random.pick(vmids);
      const page = random.pick([0, 0x12345, 2 ** 36 - 512]) + random.below(random.pick([16, 1024]));
      if (random.chance(0.75)) {
        const stages = random.pick([S1, S2, S1 | S2]);
        const asid = stages === S2 ? 0 : random.pick(asids);
        const sizeLg2 = random.pick([12, 12, 21, 30]);
        const bits =
          stages |
          READ |
          (random.chance(0.5) ? WRITE : 0) |
          (globals && random.chance(0.3) && stages !== S2 ? GLOBAL : 0);
        const pfn = random.below(2 ** 32) * 8;
        const before = contents(bench);
        const seq = kernel.iotlbFill(
          unit,
          iotlb,
          (vmid | (asid << 16)) >>> 0,
          page,
          pfn,
          sizeLg2,
          bits,
          random.u32(),
        );
        const after = contents(bench);
        const index = kernel.iotlbProbe(unit, iotlb, vmid | (asid << 16), stages, page);
        const entry = kernel.iotlbReadEntry(iotlb, index)!;
        if (entry.fillSeq !== seq) {
          // A page may be covered by another size as well, but the new entry must be there.
          t.true([...after.values()].some((e) => e.fillSeq === seq));
        }
        const span = 2 ** (sizeLg2 - 12);
        const fresh = [...after.values()].find((e) => e.fillSeq === seq)!;
        t.like(fresh, {
          vmid,
          asid,
          page: Math.floor(page / span) * span,
          pfn: Math.floor(pfn / span) * span,
          sizeLg2,
          writable: (bits & WRITE) !== 0,
          global: (bits & GLOBAL) !== 0,
          stage1: (bits & S1) !== 0,
          stage2: (bits & S2) !== 0,
        });
        before.delete(key(fresh));
        after.delete(key(fresh));
        const lost = [...before.keys()].filter((k) => !after.has(k));
        t.true(lost.length <= 1, `one fill evicted ${lost.length}`);
        for (const k of after.keys()) t.deepEqual(after.get(k), before.get(k));
        continue;
      }
      const asid = random.pick(asids);
      const pages = random.pick([1, 2, 16, 700, 300_000, 2 ** 36]);
      const inVm = (e: IotlbEntryView): boolean => e.vmid === vmid;
      const inRange = (e: IotlbEntryView): boolean => overlap(e.page, pagesOf(e), page, pages);
      const [run, hit]: [() => number, (e: IotlbEntryView) => boolean] = random.pick([
        [() => kernel.iotlbInvalidateVmid(iotlb, vmid, false), inVm],
        [() => kernel.iotlbInvalidateVmid(iotlb, vmid, true), (e) => inVm(e) && e.stage1],
        [
          () => kernel.iotlbInvalidateAsid(iotlb, vmid, asid),
          (e) => inVm(e) && e.stage1 && e.asid === asid && !e.global,
        ],
        [
          () => kernel.iotlbInvalidateVa(unit, iotlb, vmid, asid, page, pages),
          (e) => inVm(e) && e.stage1 && (e.asid === asid || e.global) && inRange(e),
        ],
        [
          () => kernel.iotlbInvalidateVa(unit, iotlb, vmid, -1, page, pages),
          (e) => inVm(e) && e.stage1 && inRange(e),
        ],
        [
          () => kernel.iotlbInvalidateIpa(unit, iotlb, vmid, page, pages),
          (e) => inVm(e) && !e.stage1 && inRange(e),
        ],
      ] as [() => number, (e: IotlbEntryView) => boolean][]);
      const before = contents(bench);
      const kept = [...before].filter(([, e]) => !hit(e));
      const removed = run();
      t.is(removed, before.size - kept.length, String(run));
      t.deepEqual(contents(bench), new Map(kept), String(run));
      removals += removed;
      const left = kept.map(([, e]) => e);
      t.is(kernel.iotlbCountVmid(iotlb, vmid), left.filter(inVm).length);
      t.is(
        kernel.iotlbCountAsid(iotlb, vmid, asid),
        left.filter((e) => inVm(e) && e.stage1 && e.asid === asid && !e.global).length,
      );
    }
    const all = [...contents(bench).values()];
    const probe = random.pick(all.length > 0 ? all : [undefined]);
    if (probe) {
      const found = kernel.iotlbFindPa(iotlb, probe.pfn + pagesOf(probe) - 1, 2);
      t.true(found >= 0);
      const entry = kernel.iotlbReadEntry(iotlb, found)!;
      t.true(overlap(entry.pfn, pagesOf(entry), probe.pfn + pagesOf(probe) - 1, 2));
    }
    t.is(kernel.iotlbInvalidateAll(unit, iotlb), all.length);
    t.is(kernel.iotlbFindPa(iotlb, 0, 2 ** 40), -1);
  }
  t.true(removals > 500, `${removals} removals`);
});

test('iotlb: an entry answers for its own VMID, ASID, stages and span only', (t) => {
  const { kernel, unit, iotlb } = new KernelBench({ entries: ENTRIES });
  kernel.iotlbFill(unit, iotlb, 7 | (3 << 16), 0x200, 0x1000, 21, READ | S1 | S2);
  t.true(kernel.iotlbProbe(unit, iotlb, 7 | (3 << 16), S1 | S2, 0x200) >= 0);
  t.true(kernel.iotlbProbe(unit, iotlb, 7 | (3 << 16), S1 | S2, 0x3ff) >= 0);
  t.is(kernel.iotlbProbe(unit, iotlb, 7 | (3 << 16), S1 | S2, 0x400), -1);
  t.is(kernel.iotlbProbe(unit, iotlb, 7 | (3 << 16), S1 | S2, 0x1ff), -1);
  t.is(kernel.iotlbProbe(unit, iotlb, 8 | (3 << 16), S1 | S2, 0x200), -1);
  t.is(kernel.iotlbProbe(unit, iotlb, 7 | (4 << 16), S1 | S2, 0x200), -1);
  t.is(kernel.iotlbProbe(unit, iotlb, 7 | (3 << 16), S1, 0x200), -1);
});

test('iotlb: the same key is replaced, never doubled', (t) => {
  const { kernel, unit, iotlb } = new KernelBench({ entries: ENTRIES });
  kernel.iotlbFill(unit, iotlb, 7, 0x200, 0x1000, 12, READ | S2);
  kernel.iotlbFill(unit, iotlb, 7, 0x200, 0x2000, 12, READ | WRITE | S2);
  t.is(kernel.iotlbCountVmid(iotlb, 7), 1);
  t.is(kernel.iotlbFindPa(iotlb, 0x1000, 1), -1);
  t.true(kernel.iotlbFindPa(iotlb, 0x2000, 1) >= 0);
});

test('iotlb: a stage-2-only and a nested entry of ASID 0 do not stand for each other', (t) => {
  const { kernel, unit, iotlb } = new KernelBench({ entries: ENTRIES });
  kernel.iotlbFill(unit, iotlb, 7, 0x200, 0x1000, 12, READ | S1 | S2);
  t.is(kernel.iotlbProbe(unit, iotlb, 7, S2, 0x200), -1);
  t.is(kernel.iotlbInvalidateIpa(unit, iotlb, 7, 0, 2 ** 36), 0);
  kernel.iotlbFill(unit, iotlb, 7, 0x200, 0x2000, 12, READ | S2);
  t.is(kernel.iotlbInvalidateVa(unit, iotlb, 7, 0, 0x200, 1), 1);
  t.true(kernel.iotlbProbe(unit, iotlb, 7, S2, 0x200) >= 0);
});

test('iotlb: ranges of no pages remove nothing, and an index past the end reads as empty', (t) => {
  const { kernel, unit, iotlb } = new KernelBench({ entries: ENTRIES });
  kernel.iotlbFill(unit, iotlb, 7, 0, 0, 12, READ | S2);
  t.is(kernel.iotlbInvalidateIpa(unit, iotlb, 7, 0, 0), 0);
  t.is(kernel.iotlbInvalidateVa(unit, iotlb, 7, 0, 0, 0), 0);
  t.is(kernel.iotlbReadEntry(iotlb, ENTRIES), null);
  t.is(kernel.iotlbReadEntry(iotlb, -1), null);
});

test('iotlb: consecutive pages fill every set before any is evicted', (t) => {
  const { kernel, unit, iotlb } = new KernelBench({ entries: ENTRIES });
  for (let i = 0; i < ENTRIES; i++) kernel.iotlbFill(unit, iotlb, 9, 0x4000 + i, 0x100 + i, 12, READ | S2);
  t.is(kernel.iotlbCountVmid(iotlb, 9), ENTRIES);
});

test('iotlb: each of the low 30 bits of a page number moves it to another set', (t) => {
  const WAYS = 4;
  const bench = new KernelBench({ entries: 1024 * WAYS });
  const setOf = (page: number): number => {
    bench.kernel.iotlbFill(bench.unit, bench.iotlb, 1, page, 1, 12, READ | S1);
    return Math.floor(bench.kernel.iotlbProbe(bench.unit, bench.iotlb, 1, S1, page) / WAYS);
  };
  for (let bit = 0; bit < 30; bit++) t.not(setOf(2 ** bit), setOf(0), `bit ${bit}`);
});

test('iotlb: pages at a power-of-two stride fill it before they push each other out', (t) => {
  for (const strideLg2 of [0, 1, 2, 3, 4, 5, 6, 9, 10, 11]) {
    const bench = new KernelBench({ entries: 1024 });
    const { kernel, unit, iotlb } = bench;
    const pages = Array.from({ length: 256 }, (_, i) => 0x12345 + i * 2 ** strideLg2);
    for (const page of pages) kernel.iotlbFill(unit, iotlb, 1, page, 1, 12, READ | S1);
    const kept = pages.filter((page) => kernel.iotlbProbe(unit, iotlb, 1, S1, page) >= 0);
    t.is(kept.length, pages.length, `stride 2^${strideLg2}`);
  }
});
