import test from 'ava';
import { digits, figureOf, percentile } from '../../../perf/bench/figures.js';
import { invalidations } from '../../../perf/bench/invalidations.js';
import { largeMappings, smallMappings } from '../../../perf/bench/mappings.js';
import { type Case, runRounds, type Scale } from '../../../perf/bench/rounds.js';
import { startUp } from '../../../perf/bench/start-up.js';
import { hits, misses } from '../../../perf/bench/translations.js';

const TINY: Scale = { rounds: 1, warmUp: 0, work: 0.01 };

test('percentile: interpolates, in any order, and refuses nothing', (t) => {
  t.is(percentile([3], 0.9), 3);
  t.is(percentile([4, 1, 3, 2], 0.5), 2.5);
  t.is(percentile([10, 9, 100], 0.5), 10);
  t.is(percentile(Float64Array.of(0, 10), 0.1), 1);
  t.throws(() => percentile([], 0.5), { instanceOf: RangeError });
});

test('figure: median, tenth and ninetieth percentile, and the number of rounds', (t) => {
  const samples = Array.from({ length: 101 }, (_, i) => 100 - i);
  t.deepEqual(figureOf({ name: 'x', unit: 'us' }, samples), {
    name: 'x',
    unit: 'us',
    median: 50,
    spread: [10, 90],
    n: 101,
    dropped: 0,
  });
});

test('digits: three that count', (t) => {
  t.deepEqual([1234567, 999.6, 123.4, 12.34, 1.234, 0.1234].map(digits), [
    '1,234,567',
    '1000',
    '123',
    '12.3',
    '1.23',
    '0.12',
  ]);
});

test('rounds: cases take turns, and the first rounds do not count', (t) => {
  const order: string[] = [];
  const counting = (name: string): Case => ({
    figures: [{ name, unit: 'ns' }],
    round: () => [order.push(name)],
  });
  const rows = runRounds([counting('a'), counting('b')], { rounds: 2, warmUp: 1, work: 1 });
  t.is(order.join(''), 'ababab');
  t.deepEqual(
    rows.map(({ name, median, n }) => [name, median, n]),
    [
      ['a', 4, 2],
      ['b', 5, 2],
    ],
  );
});

test.serial('bench: every figure comes out of one tiny round', async (t) => {
  const rows = [];
  for (const set of [hits, misses, smallMappings, largeMappings, invalidations, startUp]) {
    const group = await set(TINY);
    rows.push(...runRounds(group.cases, TINY));
    await group.close();
  }
  for (const { name, unit, median } of rows)
    t.true(median > 0 && Number.isFinite(median), `${name}, ${unit}`);
  t.is(new Set(rows.map(({ name, unit }) => `${name} ${unit}`)).size, rows.length, 'no figure has two rows');
});
