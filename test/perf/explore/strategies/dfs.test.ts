import test from 'ava';
import { sumOfDigests } from '../../../../perf/explore/strategies/digest.js';
import { MUTEX, PROGRAMS, withSession } from './campaign.js';

/** n over k. */
const choose = (n: number, k: number): number => (k === 0 ? 1 : (choose(n, k - 1) * (n - k + 1)) / k);

/**
 * Two threads with n accesses each are n + 1 pieces each, the first one up to the first access. With p preemptions
 * a piece of one follows the other's p + 1 times before one of them is through: the pieces of one are cut in
 * ceil(p / 2) places out of n, those of the other in floor(p / 2); and either may begin.
 */
const withPreemptions = (n: number, p: number): number =>
  2 * choose(n, Math.ceil(p / 2)) * choose(n, Math.floor(p / 2));

for (const steps of [1, 3])
  test.serial(`dfs: two threads of ${steps} accesses have as many schedules as the formula says`, (t) =>
    withSession(PROGRAMS, `independent${steps}`, [], async (campaign) => {
      let total = 0;
      for (let bound = 0; bound <= 2 * steps + 1; bound++) {
        total += withPreemptions(steps, bound);
        const { schedules, exhausted, diverged } = await campaign('dfs', { preemptions: bound });
        t.deepEqual(
          { bound, schedules, exhausted, diverged },
          { bound, schedules: total, exhausted: true, diverged: false },
        );
      }
      t.is(total, choose(2 * steps + 2, steps + 1), 'all interleavings');
    }),
  );

test.serial('dfs: finds the lost wake-up of a mutex that wakes too early, with one preemption', (t) =>
  withSession(MUTEX, 'mutex2', ['mutex-wakes-before-release'], async (campaign) => {
    const { failure, exhausted } = await campaign('dfs');
    t.is(failure?.invariant, 'lost wake-up');
    t.is(failure?.preemptions, 1);
    t.false(exhausted);
    const again = await campaign('dfs', { preemptions: 0 });
    t.is(again.failure, null, 'and with none there is none');
    t.true(again.exhausted);
  }),
);

for (const preemptions of [0, 1, 3])
  for (const count of [2, 3])
    test.serial(`dfs: ${count} shards at bound ${preemptions} run every schedule, and none twice`, (t) =>
      withSession(MUTEX, 'mutex2', [], async (campaign) => {
        const whole = await campaign('dfs', { preemptions });
        t.true(whole.exhausted);
        let schedules = 0;
        let digest = '0'.repeat(16);
        for (let index = 0; index < count; index++) {
          const part = await campaign('dfs', { preemptions, shard: { index, count } });
          t.true(part.exhausted);
          schedules += part.schedules;
          digest = sumOfDigests(digest, part.digest);
        }
        t.deepEqual({ schedules, digest }, { schedules: whole.schedules, digest: whole.digest });
      }),
    );

test.serial('dfs: shards go on being shards when they are ended early', (t) =>
  withSession(MUTEX, 'mutex3', [], async (campaign) => {
    const parts = [];
    for (let index = 0; index < 3; index++)
      parts.push(await campaign('dfs', { shard: { index, count: 3 } }, 50));
    t.true(parts.every(({ schedules }) => schedules === 50));
    t.is(new Set(parts.map(({ digest }) => digest)).size, 3);
  }),
);

for (const [name, seen] of [
  ['passing00', true],
  ['passing01', true],
  ['passing10', true],
  ['passing11', true],
  ['passing10Barrier', false],
  ['passing11Barrier', true],
] as const)
  test.serial(`dfs: ${name} is ${seen ? '' : 'not '}seen, reduced or not`, (t) =>
    withSession(PROGRAMS, name, [], async (campaign) => {
      const reduced = await campaign('dfs', { reduce: true });
      const whole = await campaign('dfs', { reduce: false });
      t.is(reduced.failure !== null, seen);
      t.is(whole.failure !== null, seen);
      t.is(reduced.failure?.preemptions, whole.failure?.preemptions);
      if (!seen) {
        t.true(reduced.exhausted && whole.exhausted);
        t.true(reduced.schedules < whole.schedules);
      }
    }),
  );

for (const [outcome, seen] of [
  ['1122', false],
  ['1211', true],
  ['2112', false],
  ['2121', true],
] as const)
  test.serial(
    `dfs: two writers with store buffers ${seen ? 'come' : 'never come'} to ${outcome}, reduced or not`,
    (t) =>
      withSession(PROGRAMS, `crossing${outcome}`, [], async (campaign) => {
        const reduced = await campaign('dfs', { preemptions: 2, reduce: true });
        const whole = await campaign('dfs', { preemptions: 2, reduce: false });
        t.is(reduced.failure !== null, seen);
        t.is(reduced.failure?.detail, whole.failure?.detail);
        t.is(reduced.failure?.preemptions, whole.failure?.preemptions);
        t.true(seen || reduced.schedules < whole.schedules / 2);
      }),
  );
