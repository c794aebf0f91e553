import test from 'ava';
import { runChoices, shrink, sizeOf } from '../../../perf/explore/shrink.js';
import { brokenLock, failureOf } from './broken-lock.js';

test.serial(
  'replay: the choices of a failure are the same failure at the same step, 100 times of 100',
  async (t) => {
    const session = await brokenLock(t);
    const failure = await failureOf(session, 7);
    for (let i = 0; i < 100; i++) {
      const { failure: again } = await runChoices(session, failure.choices, 7);
      t.deepEqual({ ...again, schedule: failure.schedule }, failure);
    }
  },
);

for (const [name, most] of [
  ['mutex2', 3],
  ['mutex3', 4],
] as const)
  test.serial(
    `shrink: a lost wake-up of ${name} needs ${most} switches at most, whatever the seed`,
    async (t) => {
      const session = await brokenLock(t, name);
      for (const seed of [1, 2]) {
        const failure = await failureOf(session, seed);
        const { before, after, failure: shrunk, complete } = await shrink(session, failure, { seed });
        t.true(complete);
        t.deepEqual(before, sizeOf(failure));
        t.is(shrunk.invariant, failure.invariant);
        t.true(after.switches <= most, `seed ${seed}: ${after.switches} switches`);
        t.true(after.switches <= before.switches);
        const { failure: again } = await runChoices(session, shrunk.choices, seed);
        t.is(again?.invariant, failure.invariant);
        t.is(again?.steps, shrunk.steps);
      }
    },
  );

test.serial('shrink: ends at its budget, with what it has', async (t) => {
  const session = await brokenLock(t);
  const failure = await failureOf(session, 1);
  const { tried, complete } = await shrink(session, failure, { seed: 1, schedules: 3 });
  t.is(tried, 3);
  t.false(complete);
  const abort = new AbortController();
  abort.abort();
  const stopped = await shrink(session, failure, { seed: 1, signal: abort.signal });
  t.is(stopped.tried, 0);
  t.deepEqual(stopped.failure, failure);
});

test.serial('session: cancel() ends a campaign with what there is', async (t) => {
  const session = await brokenLock(t);
  const running = session.run({
    strategy: 'random',
    options: { threads: 2, seed: 1, depth: 1, preemptions: 1, shard: { index: 0, count: 1 } },
    schedules: Number.POSITIVE_INFINITY,
    timeMs: Number.POSITIVE_INFINITY,
    bugs: [],
  });
  setTimeout(() => session.cancel(), 50);
  const { failure, schedules } = await running;
  t.is(failure, null);
  t.true(schedules > 0);
});
