import test from 'ava';
import { choose } from '../../../../perf/explore/engine/chooser.js';
import { ControlMemory, H, POLICY_PCT, T } from '../../../../perf/explore/engine/control.js';
import { PctStrategy, pctBound } from '../../../../perf/explore/strategies/pct.js';
import { Plan, Run } from '../../../../perf/explore/strategies/strategy.js';
import { MUTEX, withSession } from './campaign.js';

const OPTIONS = { threads: 4, seed: 1, depth: 4, preemptions: 0, shard: { index: 0, count: 1 } };

/** A control memory in which nothing runs, with a strategy that plans for it. */
function planner(options = OPTIONS) {
  const control = new ControlMemory();
  control.i32[H.threads] = options.threads;
  const strategy = new PctStrategy(options);
  const plan = new Plan(control);
  const next = () => {
    strategy.next(plan);
    const priorities = Array.from(
      { length: options.threads },
      (_, thread) => control.i32[control.thread(thread) + T.priority]!,
    );
    const points = Array.from(
      { length: control.i32[H.changePoints]! },
      (_, k) => control.i32[control.plan(k)]!,
    );
    return { priorities, points };
  };
  const learn = (decisions: number) => {
    control.i32[H.decisions] = decisions;
    strategy.learn(new Run(control));
  };
  return { control, strategy, next, learn };
}

test('pct: priorities are a permutation, change points distinct steps of the longest schedule so far', (t) => {
  const { next, learn } = planner();
  t.deepEqual(next().points, [], 'the first one measures');
  learn(10);
  learn(7);
  const orders = new Set<string>();
  const seen = new Set<number>();
  for (let n = 0; n < 2000; n++) {
    const { priorities, points } = next();
    t.deepEqual([...priorities].sort(), [0, 1, 2, 3]);
    t.is(points.length, 3);
    t.is(new Set(points).size, 3);
    for (const point of points) t.true(point >= 0 && point < 10);
    orders.add(priorities.join());
    for (const point of points) seen.add(point);
    learn(10);
  }
  t.is(orders.size, 24, 'every order of four threads comes up');
  t.is(seen.size, 10, 'and every step');
});

test('pct: a change point puts whoever would run behind all, each lower than the one before', (t) => {
  const control = new ControlMemory();
  control.i32[H.threads] = 3;
  control.i32[H.policy] = POLICY_PCT;
  new Plan(control).setPriorities([1, 2, 0], [4, 2, 5]);
  const run = [];
  for (let decision = 0; decision < 8; decision++) {
    control.i32[H.decisions] = decision;
    run.push(choose(control, 0, 0b111, 0));
  }
  // 1 is first; at 2 it falls to -2, and 0 follows; at 4 that falls to -1, and 2 follows; at 5 that falls to -3.
  t.deepEqual(run, [1, 1, 0, 0, 2, 0, 0, 0]);
  t.is(choose(control, 0, 0b110, 0), 1, 'whoever fell to the least goes last');
});

test('pct: the bound is that of the paper, and what was missed follows from it', (t) => {
  t.is(pctBound(2, 100, 1), 1 / 2);
  t.is(pctBound(2, 100, 2), 1 / 200);
  t.is(pctBound(3, 50, 3), 1 / 7500);
  const { strategy, next, learn } = planner({ ...OPTIONS, threads: 2, depth: 2 });
  // The first measures, and the third is longer than it was planned to be: neither counts.
  for (const length of [10, 10, 12, 11, 12]) {
    next();
    learn(length);
  }
  const summary = strategy.summary();
  t.regex(summary, /^5 schedules; n = 2 threads, k = 12 decisions/);
  t.regex(summary, new RegExp(`depth 2 with probability >= 1/\\(n k\\^1\\) = ${(1 / 24).toPrecision(3)}`));
  const missed = (1 - 1 / 20) * (1 - 1 / 24) ** 2;
  t.regex(summary, new RegExp(`the 3 schedules that count .* probability <= ${missed.toPrecision(3)}`));
  t.throws(() => new PctStrategy({ ...OPTIONS, depth: 0 }), { instanceOf: RangeError });
});

test.serial(
  'pct: depth 2 finds the lost wake-up of a mutex that wakes too early, and says how likely that was',
  (t) =>
    withSession(MUTEX, 'mutex2', ['mutex-wakes-before-release'], async (campaign) => {
      const { failure, summary } = await campaign('pct', { depth: 2 }, 2000);
      t.is(failure?.invariant, 'lost wake-up');
      t.true(failure!.preemptions <= 1, 'depth 2 preempts once');
      t.regex(summary, /probability >= 1\/\(n k\^1\) = 0\.0/);
    }),
);
