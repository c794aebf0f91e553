import test from 'ava';
import type { ZooRow } from '../../../perf/zoo/run.js';
import { zooTable } from '../../../perf/zoo/table.js';

const row: ZooRow = {
  bug: 'condition-seq-read-after-unlock',
  origin: 'somebody saw it a long time ago, in a place that takes more than one line to tell',
  where: 'hw/sync/condition.ts',
  found: true,
  by: 'explore (coverage)',
  scenario: 'condition-signal-2',
  schedules: 151,
  seconds: 2.37,
  budget: 1500,
  invariant: 'lost wake-up',
  expected: 'lost wake-up',
  replayed: 100,
  replays: 100,
  clean: true,
  cleanSchedules: 1500,
  problem: null,
};

test('zoo table: it has the columns for which there is room, and is never wider', (t) => {
  for (const columns of [60, 80, 103, 104, 124, 125, 140, 200, undefined]) {
    const table = zooTable([row], columns);
    for (const line of table.split('\n')) t.true(line.length <= (columns ?? 200), `${columns}: ${line}`);
    const width = columns ?? 200;
    t.is(/origin/.test(table), width >= 125, table);
    t.is(/ coverage │ 151 of 1500 │/.test(table), width >= 104, table);
    t.regex(table, /lost wake-up │ +100\/100 │ clean │/);
    const names = table.split('\n').map((line) => line.split('│')[1]?.trim() ?? '');
    t.is(names.join('').replace('bug', ''), row.bug);
  }
});

test('zoo table: a bug that was not found, or shows without its switch, stands out', (t) => {
  const table = zooTable([{ ...row, found: false, invariant: null, replayed: 0, clean: false }]);
  t.regex(table, /not found/);
  t.regex(table, /0\/100 │ NOT CLEAN/);
});
