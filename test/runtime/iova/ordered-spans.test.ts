import test from 'ava';
import { OrderedSpans } from '../../../runtime/iova/ordered-spans.js';
import type { Span } from '../../../runtime/iova/span-chunk.js';
import { Random, SEED } from '../../kit/random.js';

const span = (first: number, last: number): Span => ({
  firstPage: Math.floor(first / 4096),
  firstOffset: first % 4096,
  lastPage: Math.floor(last / 4096),
  lastOffset: last % 4096,
});
const startOf = (s: Span): number => s.firstPage * 4096 + s.firstOffset;
const lastOf = (s: Span): number => s.lastPage * 4096 + s.lastOffset;

test('random inserts and removes agree with a sorted array, at chunk splits and merges', (t) => {
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  const spans = new OrderedSpans<Span>();
  let model: Span[] = [];
  let peak = 0;
  const at = (byte: number): [number, number] => [Math.floor(byte / 4096), byte % 4096];
  for (let step = 0; step < 6000; step++) {
    const growing = Math.floor(step / 1500) % 2 === 0;
    if (random.chance(growing ? 0.8 : 0.2) || model.length === 0) {
      const first = random.below(10_000_000);
      const last = first + random.below(2000);
      const free = !model.some((s) => startOf(s) <= last && lastOf(s) >= first);
      t.is(spans.firstIn(...at(first), ...at(last)) === undefined, free);
      if (!free) continue;
      const made = span(first, last);
      spans.insert(made);
      model.push(made);
      peak = Math.max(peak, model.length);
    } else {
      const victim = random.pick(model);
      t.true(spans.remove(victim));
      t.false(spans.remove(victim));
      model = model.filter((s) => s !== victim);
    }
  }
  model.sort((a, b) => startOf(a) - startOf(b));
  t.deepEqual([...spans], model);
  t.is(spans.size, model.length);
  model.forEach((s, i) => {
    if (spans.next(s) !== model[i + 1]) t.fail(`next of ${i}`);
    if (spans.previous(s) !== model[i - 1]) t.fail(`previous of ${i}`);
  });
  t.true(peak > 700);
});

test('firstIn: finds the lowest span that touches the range, by one byte at either end', (t) => {
  const spans = new OrderedSpans<Span>();
  const a = span(1000, 5000);
  const b = span(9000, 9000);
  spans.insert(b);
  spans.insert(a);
  t.is(spans.firstIn(0, 0, 0, 999), undefined);
  t.is(spans.firstIn(0, 0, 0, 1000), a);
  t.is(spans.firstIn(1, 904, 3, 0), a);
  t.is(spans.firstIn(1, 905, 2, 807), undefined);
  t.is(spans.firstIn(1, 905, 2, 808), b);
  t.is(spans.firstIn(2, 809, 99, 0), undefined);
});

test('more spans begin on one page than a chunk holds: each is found by its offset', (t) => {
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  const spans = new OrderedSpans<Span>();
  const before = span(4096, 4099);
  spans.insert(before);
  const present = new Map<number, Span>();
  for (let step = 0; step < 8000; step++) {
    // Every fourth byte of page 5, and of the page behind it now and then.
    const first = 5 * 4096 + 4 * random.below(1060);
    const held = present.get(first);
    const { firstPage, firstOffset } = span(first, first);
    t.is(spans.firstIn(firstPage, firstOffset, firstPage, firstOffset + 1), held);
    if (held === undefined && random.chance(step < 5000 ? 0.9 : 0.3)) {
      const made = span(first, first + 1);
      present.set(first, made);
      spans.insert(made);
    } else if (held !== undefined && random.chance(step < 5000 ? 0.1 : 0.8)) {
      present.delete(first);
      t.true(spans.remove(held));
    }
  }
  const sorted = [...present.entries()].sort(([a], [b]) => a - b).map(([, each]) => each);
  t.true(sorted.length > 200);
  t.deepEqual([...spans], [before, ...sorted]);
  t.is(spans.previous(sorted[0]!), before);
  spans.clear();
  t.is(spans.firstIn(0, 0, 10, 0), undefined);
  spans.insert(before);
  t.deepEqual([...spans], [before]);
});
