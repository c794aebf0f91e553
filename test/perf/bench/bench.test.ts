import test from 'ava';
import { Kernel } from '../../../hw/kernel/kernel.js';
import { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { compileBaseline, NO_CC } from '../../../perf/bench/baseline.js';
import { digits, figureOf, passed, percentile } from '../../../perf/bench/figures.js';
import { type Case, runRounds, type Scale } from '../../../perf/bench/rounds.js';
import { rowOf } from '../../../perf/bench/row.js';
import { SECTIONS } from '../../../perf/bench/run.js';
import { benchTable } from '../../../perf/bench/table.js';

const TINY: Scale = { rounds: 1, warmUp: 0, work: 0.01 };
/** Their machines are as large however little they are to do. */
const LARGE = ['many SMMUs'];

const plain = (values: readonly number[]) => values.map((value) => ({ value, ratio: null }));

test('percentile: interpolates, in any order, and refuses nothing', (t) => {
  t.is(percentile([3], 0.9), 3);
  t.is(percentile([4, 1, 3, 2], 0.5), 2.5);
  t.is(percentile([10, 9, 100], 0.5), 10);
  t.is(percentile(Float64Array.of(0, 10), 0.1), 1);
  t.throws(() => percentile([], 0.5), { instanceOf: RangeError });
});

test('figure: median, quartiles, and the number of rounds', (t) => {
  const samples = plain(Array.from({ length: 101 }, (_, i) => 100 - i));
  t.deepEqual(figureOf({ name: 'x', unit: 'us' }, samples, { dropped: 3 }), {
    name: 'x',
    unit: 'us',
    ratio: null,
    target: null,
    median: 50,
    spread: [25, 75],
    ratioSpread: null,
    n: 101,
    dropped: 3,
    disturbed: 0,
  });
});

test('figure: a goal is reached when the ratio is at least the target, whatever the unit', (t) => {
  const judged = (goal: Parameters<typeof figureOf>[0]['goal'], samples: Parameters<typeof figureOf>[1]) => {
    const figure = figureOf({ name: 'x', unit: 'ns', ...(goal === undefined ? {} : { goal }) }, samples);
    return [figure.ratio, figure.target, passed(figure)];
  };
  t.deepEqual(judged({ kind: 'at-most', value: 2 }, plain([1])), [2, 1, true]);
  t.deepEqual(judged({ kind: 'at-most', value: 2 }, plain([4])), [0.5, 1, false]);
  t.deepEqual(judged({ kind: 'at-least', value: 400 }, plain([300])), [0.75, 1, false]);
  const rounds = [0.5, 0.7, 0.6].map((ratio) => ({ value: 3, ratio }));
  t.deepEqual(judged({ kind: 'ratio', atLeast: 0.6, of: 'C' }, rounds), [0.6, 0.6, true]);
  t.deepEqual(judged({ kind: 'ratio', atLeast: 0.6, of: 'C' }, plain([3])), [null, 0.6, null]);
  t.deepEqual(judged(undefined, rounds), [0.6, null, null]);
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

test('rounds: cases take turns, and the first rounds do not count', async (t) => {
  const order: string[] = [];
  const counting = (name: string): Case => ({
    figures: [{ name, unit: 'ns' }],
    round: () => ({ values: [order.push(name)] }),
  });
  const rows = await runRounds({ cases: [counting('a'), counting('b')] }, { rounds: 2, warmUp: 1, work: 1 });
  t.is(order.join(''), 'ababab');
  t.deepEqual(
    rows.map(({ name, median, n }) => [name, median, n]),
    [
      ['a', 4, 2],
      ['b', 5, 2],
    ],
  );
});

test('rounds: those in which a thread had no processor are dropped, but not all of them', async (t) => {
  const shares = [0.5, 1, 0.94, 0.95, 1, 0.2];
  let at = 0;
  const each: Case = {
    figures: [{ name: 'x', unit: 'ns' }],
    round: () => ({ values: [at], share: shares[at++] ?? 0 }),
  };
  const [kept] = await runRounds({ cases: [each] }, { rounds: 3, warmUp: 0, work: 1 });
  t.deepEqual([kept!.n, kept!.dropped, kept!.disturbed, kept!.median], [3, 2, 0, 3]);
  const [noisy] = await runRounds({ cases: [each] }, { rounds: 3, warmUp: 0, work: 1 });
  t.deepEqual([noisy!.n, noisy!.dropped, noisy!.disturbed], [12, 0, 12]);
});

test('rounds: a signal ends them with what there is', async (t) => {
  const abort = new AbortController();
  const each: Case = {
    figures: [{ name: 'x', unit: 'ns' }],
    round: () => {
      abort.abort();
      return { values: [1] };
    },
  };
  const scale = { rounds: 9, warmUp: 0, work: 1 };
  t.is((await runRounds({ cases: [each] }, scale, abort.signal))[0]!.n, 1);
  t.deepEqual(await runRounds({ cases: [each] }, scale, abort.signal), []);
});

const compiled = compileBaseline(Kernel.load(MachineMemory.create({ ramBytes: 2 ** 21 })));
test.after.always(() => {
  if (typeof compiled !== 'string') compiled.remove();
});

test('bench: the yardstick compiles where there is a C compiler', (t) => {
  if (compiled === NO_CC) t.log('not tried: no C compiler');
  t.true(typeof compiled === 'object' || compiled === NO_CC, String(compiled));
});

for (const { name: section, rows, set } of SECTIONS)
  if (!LARGE.includes(section))
    test.serial(`bench: one tiny round of ${section} gives the rows it says`, async (t) => {
      if (typeof compiled === 'string') t.log(`not compared with C: ${compiled}`);
      const group = await set(TINY, () => compiled);
      const figures = await runRounds(group, TINY).finally(() => group.close());
      t.deepEqual(
        figures.map(({ name }) => name),
        [...rows],
      );
      for (const { name, unit, median, ratio, goal } of figures) {
        t.true(Number.isFinite(median) && (median > 0 || unit === 'MiB'), `${name}: ${median} ${unit}`);
        if (goal !== undefined && typeof compiled !== 'string') t.true(Number.isFinite(ratio), name);
      }
      t.is(figures.map(rowOf).length, rows.length);
      for (const row of rows) t.true(benchTable(figures).includes(row), row);
    });

test('bench: no two rows have one name', (t) => {
  const names = SECTIONS.flatMap(({ rows }) => rows);
  t.is(new Set(names).size, names.length);
});
