import test from 'ava';
import { sumOfDigests } from '../../../../perf/explore/strategies/digest.js';
import type { StrategyName } from '../../../../perf/explore/strategies/index.js';
import { MUTEX, PROGRAMS, withSession } from './campaign.js';

const SEARCHING = ['random', 'dfs', 'pct', 'coverage'] as const satisfies readonly StrategyName[];
const BUG = ['mutex-wakes-before-release'] as const;

for (const strategy of SEARCHING) {
  test.serial(`${strategy}: finds a mutex that wakes too early; the replay is exact, 100 times of 100`, (t) =>
    withSession(MUTEX, 'mutex2', BUG, async (campaign) => {
      const { failure } = await campaign(strategy, {}, 5000);
      t.is(failure?.invariant, 'lost wake-up');
      const { choices, steps, detail, thread, preemptions } = failure!;
      for (let i = 0; i < 100; i++) {
        const again = await campaign('replay', { choices });
        t.false(again.diverged);
        t.like(again.failure, { invariant: 'lost wake-up', steps, detail, thread, preemptions });
      }
    }),
  );

  test.serial(`${strategy}: one seed is one set of schedules, and another seed another`, (t) =>
    withSession(MUTEX, 'mutex3', [], async (campaign) => {
      const digest = async (seed: number) => (await campaign(strategy, { seed }, 300)).digest;
      const first = await digest(7);
      t.is(await digest(7), first);
      if (strategy !== 'dfs') t.not(await digest(8), first);
    }),
  );
}

test.serial('random: shards run the schedules that the whole would', (t) =>
  withSession(MUTEX, 'mutex3', [], async (campaign) => {
    const whole = await campaign('random', {}, 300);
    const parts = [];
    for (let index = 0; index < 3; index++)
      parts.push(await campaign('random', { shard: { index, count: 3 } }, 100));
    t.is(parts.map(({ digest }) => digest).reduce(sumOfDigests), whole.digest);
  }),
);

test.serial('replay: a schedule that does not fit is diverged, whatever else it is', async (t) => {
  const choices = await withSession(MUTEX, 'mutex2', BUG, async (campaign) => {
    const { failure } = await campaign('dfs');
    return [...failure!.choices];
  });
  await withSession(MUTEX, 'mutex2', [], async (campaign) => {
    const possible = await campaign('replay', { choices: choices.slice(0, 4) });
    t.false(possible.diverged);
    t.true((await campaign('replay', { choices: [0, 7] })).diverged, 'no such thread');
    t.true((await campaign('replay', { choices: [0, 256] })).diverged, 'no such store');
    const long = await campaign('replay', { choices: [...choices, ...Array(200).fill(-1)] });
    t.true(long.diverged, 'it goes on after the schedule has ended');
  });
  // The same choices over another program: something fails, and it is not what was recorded.
  await withSession(PROGRAMS, 'passing11', [], async (campaign) => {
    const { failure, diverged } = await campaign('replay', { choices: [0, 0, 0, 0, 1, 1, 1, 1, 1, 1] });
    t.is(failure?.invariant, 'unseen');
    t.true(diverged);
  });
});
