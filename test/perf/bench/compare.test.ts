import test from 'ava';
import { compareResults } from '../../../perf/bench/compare.js';
import { type BenchResult, parseResult, type Row, rowOf } from '../../../perf/bench/row.js';

const row = (name: string, changes: Partial<Row> = {}): Row => ({
  name,
  ratio: null,
  target: null,
  median: 100,
  spread: [90, 110],
  unit: 'ns',
  ...changes,
});
const run = (...rows: Row[]): BenchResult => ({ rows, node: 'v20.20.2', cores: 2 });
const names = (list: readonly { name: string }[]) => list.map(({ name }) => name);

test('row: the six fields of the JSON output and no other', (t) => {
  const figure = {
    name: 'hit',
    unit: 'ns' as const,
    ratio: 0.7,
    target: 0.6,
    median: 3,
    spread: [2, 4] as const,
    ratioSpread: [0.6, 0.8] as const,
    n: 41,
    dropped: 2,
    disturbed: 0,
  };
  t.deepEqual(Object.keys(rowOf(figure)).sort(), ['median', 'name', 'ratio', 'spread', 'target', 'unit']);
});

test('compare: what is worse by more than the tolerance is named, in either direction of better', (t) => {
  const before = run(row('time'), row('rate', { unit: 'M/s' }), row('same'), row('faster'));
  const now = run(
    row('time', { median: 126 }),
    row('rate', { unit: 'M/s', median: 70 }),
    row('same', { median: 124 }),
    row('faster', { median: 10 }),
  );
  const { worse, kept, missing, added } = compareResults(before, now, 25);
  t.deepEqual(names(worse), ['time', 'rate']);
  t.deepEqual(
    worse.map(({ of, before: was, now: is, worsePercent }) => [of, was, is, Math.round(worsePercent)]),
    [
      ['median', 100, 126, 26],
      ['median', 100, 70, 30],
    ],
  );
  t.deepEqual(names(kept), ['same', 'faster']);
  t.deepEqual([missing, added], [[], []]);
});

test('compare: ratios go before medians, and only where both runs have one', (t) => {
  const before = run(
    row('slower machine', { ratio: 0.8 }),
    row('slower', { ratio: 0.8 }),
    row('no cc', { ratio: 1 }),
  );
  const now = run(
    row('slower machine', { ratio: 0.8, median: 300 }),
    row('slower', { ratio: 0.5 }),
    row('no cc', { median: 105 }),
  );
  const { worse, kept } = compareResults(before, now, 10);
  t.deepEqual(names(worse), ['slower']);
  t.deepEqual(
    kept.map(({ name, of }) => [name, of]),
    [
      ['slower machine', 'ratio'],
      ['no cc', 'median'],
    ],
  );
});

test('compare: a row that should be there and is not is missing; a new one is only told', (t) => {
  const before = run(row('a'), row('b'), row('c'));
  const { missing, added } = compareResults(before, run(row('a'), row('d')), 10, (name) => name !== 'c');
  t.deepEqual([missing, added], [['b'], ['d']]);
});

test('compare: a run compared with itself has nothing worse', (t) => {
  const same = run(row('a', { ratio: 0.5 }), row('b'));
  t.deepEqual(compareResults(same, same, 0).worse, []);
});

test('baseline file: what it lacks is named by its key', (t) => {
  const good = JSON.stringify(run(row('a', { ratio: 0.5, target: 0.6 })));
  t.deepEqual(parseResult(good), run(row('a', { ratio: 0.5, target: 0.6 })));
  const bad: [unknown, RegExp][] = [
    ['nonsense', /not JSON/],
    ['[]', /expected object/],
    [{ rows: [], node: 'v20' }, /^cores: /],
    [{ rows: [{ ...row('a'), median: 'fast' }], node: 'v20', cores: 2 }, /^rows\.0\.median: /],
    [{ rows: [{ ...row('a'), unit: 'furlong' }], node: 'v20', cores: 2 }, /^rows\.0\.unit: /],
    [{ rows: [{ ...row('a'), ratio: undefined }], node: 'v20', cores: 2 }, /^rows\.0\.ratio: /],
  ];
  for (const [text, expected] of bad)
    t.regex(String(parseResult(typeof text === 'string' ? text : JSON.stringify(text))), expected);
});
