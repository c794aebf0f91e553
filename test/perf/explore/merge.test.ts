import test from 'ava';
import type { CampaignResult } from '../../../perf/explore/engine/messages.js';
import { mergeReports } from '../../../perf/explore/merge.js';
import { type ExploreReport, exploreReport } from '../../../perf/explore/report.js';
import { MUTEX, withSession } from './strategies/campaign.js';

const HEAD = {
  scenario: 'mutex-2',
  bugs: [],
  strategy: 'dfs',
  seed: 1,
  bounds: { depth: 3, preemptions: 2 },
};

const report = (index: number, count: number, result: Partial<CampaignResult> = {}): ExploreReport =>
  exploreReport(
    { ...HEAD, shard: { index, count } },
    {
      schedules: 10 + index,
      steps: 100,
      seconds: 0.5,
      checks: { alone: 5 + index },
      exhausted: true,
      diverged: false,
      digest: '00000001ffffffff',
      summary: `part ${index}`,
      failure: null,
      ...result,
    },
  );

const failure = (schedule: number) => ({
  invariant: 'deadlock',
  detail: `in ${schedule}`,
  thread: 'a',
  schedule,
  choices: [0],
  preemptions: 0,
  steps: 1,
});

test('merge: what was done adds up, and rates are of one process', (t) => {
  const merged = mergeReports([report(1, 2), report(0, 2)]);
  t.like(merged, {
    shard: '0,1/2',
    schedules: 21,
    steps: 200,
    seconds: 1,
    schedulesPerSecond: 21,
    stepsPerSecond: 200,
    checks: { alone: 11 },
    exhausted: true,
    diverged: false,
    digest: '00000002fffffffe',
    failure: null,
  });
});

test('merge: the failure of the lowest schedule number is the first', (t) => {
  const parts = [report(0, 3, { failure: failure(7) }), report(1, 3), report(2, 3, { failure: failure(4) })];
  t.is(mergeReports(parts).failure?.detail, 'in 4');
});

test('merge: exhausted when every shard is there and is, diverged when one is', (t) => {
  t.false(mergeReports([report(0, 3), report(2, 3)]).exhausted);
  t.false(mergeReports([report(0, 2), report(1, 2, { exhausted: false })]).exhausted);
  t.true(mergeReports([report(0, 2), report(1, 2, { diverged: true })]).diverged);
  const halves = mergeReports([report(0, 4), report(2, 4)]);
  t.is(mergeReports([halves, report(1, 4)]).shard, '0,1,2/4', 'merged again');
});

test('merge: shards twice, of another number, or of another campaign are refused', (t) => {
  const refuses = (reports: ExploreReport[], message: RegExp) =>
    t.throws(() => mergeReports(reports), { instanceOf: RangeError, message });
  refuses([], /nothing/);
  refuses([report(1, 2), report(1, 2)], /1\/2 is there twice/);
  refuses([report(0, 2), report(1, 3)], /number of shards/);
  refuses([report(0, 2), { ...report(1, 2), seed: 2 }], /seed is 2, and 1/);
  refuses([report(0, 2), { ...report(1, 2), bugs: ['x'] }], /bugs/);
  const deeper = { ...report(1, 2), bounds: { depth: 3, preemptions: 3 } };
  refuses([report(0, 2), deeper], /bounds/);
  refuses([{ ...report(0, 2), shard: 'all' }], /'all'/);
  refuses([report(0, 2), { ...report(1, 2), shard: '5/2' }], /no shard 5\/2/);
  refuses([{ ...report(0, 1), shard: '0/0' }], /no shard 0\/0/);
  refuses([{ ...report(0, 1), shard: `0/${'9'.repeat(400)}` }], /names no shards/);
});

test.serial('merge: the parts of a search are the search', (t) =>
  withSession(MUTEX, 'mutex2', [], async (campaign) => {
    const head = { ...HEAD, shard: { index: 0, count: 1 } };
    const whole = exploreReport(head, await campaign('dfs'));
    const parts = [];
    for (let index = 0; index < 4; index++) {
      const shard = { index, count: 4 };
      parts.push(exploreReport({ ...head, shard }, await campaign('dfs', { shard })));
    }
    const { schedules, steps, checks, digest, exhausted } = mergeReports(parts);
    t.is(schedules, whole.schedules);
    t.is(steps, whole.steps);
    t.is(digest, whole.digest);
    t.true(exhausted && whole.exhausted);
    t.true(checks['mutual exclusion']! >= whole.checks['mutual exclusion']!);
  }),
);
