import test from 'ava';
import { growing, type Resources, resources } from '../../../perf/soak/resources.js';

const reading = (atS: number, over: Partial<Resources> = {}): Resources => ({
  atS,
  rssMiB: 200,
  heapMiB: 20,
  externalMiB: 3,
  descriptors: 20,
  threads: 11,
  handles: 0,
  ...over,
});
const times = Array.from({ length: 20 }, (_, i) => i * 60);

test('soak: what wavers is flat', (t) => {
  t.deepEqual(
    growing(times.map((atS, i) => reading(atS, { rssMiB: 200 + (i % 3) * 10, heapMiB: 20 + (i % 2) }))),
    [],
  );
  t.deepEqual(growing([]), []);
});

test('soak: a leak is told by what leaks, and by how much', (t) => {
  const problems = growing(times.map((atS, i) => reading(atS, { heapMiB: 20 + i, descriptors: 20 + i })));
  t.deepEqual(problems, ['heapMiB grew by 19.0 in 1140 s', 'descriptors grew by 19.0 in 1140 s']);
});

test('soak: one descriptor more at the end of an hour is a leak', (t) => {
  const problems = growing(times.map((atS, i) => reading(atS, { descriptors: i < 10 ? 20 : 21 })));
  t.is(problems.length, 1);
});

test('soak: the process itself can be read', (t) => {
  const kept = [new Uint8Array(1), new Array<number>(2 ** 20).fill(1.5)];
  const now = resources(1, true);
  t.true(now.heapMiB > 8 && now.rssMiB > now.heapMiB && now.descriptors > 2 && now.threads > 1);
  t.is(kept.length, 2);
});
