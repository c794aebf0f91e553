/** What goes wrong is told: no campaign of a scenario that does is clean, and none hangs. */
import test from 'ava';
import type { CampaignResult } from '../../../perf/explore/engine/messages.js';
import { defineScenario, explore } from '../../../perf/explore/index.js';
import { ExploreSession } from '../../../perf/explore/session.js';
import type { StrategyName } from '../../../perf/explore/strategies/index.js';

const url = new URL('./failing.js', import.meta.url).href;

async function campaign(
  name: string,
  { strategy = 'random' as StrategyName, schedules = 50, choices = [] as number[], stallMs = 30_000 } = {},
): Promise<CampaignResult> {
  const session = await ExploreSession.start({ url, export: name }, { stallMs });
  try {
    const threads = session.scenario.threads.length;
    const shard = { index: 0, count: 1 };
    return await session.run({
      strategy,
      options: { threads, seed: 1, depth: 3, preemptions: 2, shard, choices },
      schedules,
      timeMs: 60_000,
    });
  } finally {
    await session.close();
  }
}

test.serial('no check ran: not proved', async (t) => {
  const { ok, problem } = await explore({ scenario: new URL(url), export: 'quiet', schedules: 10 });
  t.false(ok);
  t.is(problem, 'no check ran');
});

test.serial('a worker that exits breaks the campaign', async (t) => {
  await t.throwsAsync(campaign('exits'), { message: /exits: the worker of thread 'b' exited with 0/ });
});

test.serial('a thread that loops without an access breaks the campaign', async (t) => {
  await t.throwsAsync(campaign('spins', { stallMs: 1000 }), {
    message: /spins: no step for 1 s.*'b' chosen/,
  });
  await t.throwsAsync(campaign('spinsInSetup', { stallMs: 1000 }), {
    message: /no step for 1 s, after 0 steps/,
  });
});

test.serial('a later setup that fails breaks the campaign', async (t) => {
  await t.throwsAsync(campaign('failsLater'), { message: /fails-later.*RangeError: no third time/ });
});

test.serial('what check() throws is a violation', async (t) => {
  const { failure } = await campaign('checkThrows');
  t.is(failure?.invariant, 'exception');
  t.regex(failure!.detail, /at the end/);
});

test.serial('a violation in a daemon is one, after the programs are through as before', async (t) => {
  const { failure } = await campaign('daemonThrows');
  t.is(failure?.invariant, 'seen');
  t.is(failure?.thread, 'd');
});

test.serial('the first violation is the one that is told', async (t) => {
  const { failure } = await campaign('twoAtOnce');
  t.is(failure?.invariant, 'first');
});

test.serial('a violation is one whatever its story is', async (t) => {
  const long = await campaign('longStory');
  t.is(long.failure?.invariant, 'seen');
  t.regex(long.failure!.detail, /1000000 characters/);
  const none = await campaign('storyThrows');
  t.is(none.failure?.invariant, 'seen');
  t.regex(none.failure!.detail, /no story: RangeError: no words/);
});

test.serial('a schedule of too many decisions is a violation', async (t) => {
  const { failure } = await campaign('longLog', { schedules: 1 });
  t.is(failure?.invariant, 'step-limit');
});

test.serial('a full store buffer loses nothing', async (t) => {
  const { failure, schedules } = await campaign('manyStores', { schedules: 200 });
  t.is(failure, null);
  t.is(schedules, 200);
});

test.serial('code that does not follow its plan is not exhausted, nor clean', async (t) => {
  const result = await campaign('moody', { strategy: 'dfs', schedules: 1e4 });
  t.true(result.diverged);
  t.false(result.exhausted);
  const { ok, problem } = await explore({ scenario: new URL(url), export: 'moody', strategy: 'dfs' });
  t.false(ok);
  t.regex(problem!, /did not follow/);
});

test.serial('choices that are made up are a divergence, whatever they are', async (t) => {
  for (const choice of [-1, 5, 31, 32, 255, 256, 300, 32_767])
    t.is(
      (await campaign('twoAtOnce', { strategy: 'replay', choices: [choice], schedules: 1 })).diverged,
      choice !== -1,
    );
});

test.serial('an export that is none is refused before a thread starts', async (t) => {
  for (const name of ['notAScenario', 'aFunction', 'absent', '__proto__'])
    await t.throwsAsync(campaign(name), { instanceOf: TypeError, message: /exports no scenario/ });
});

test.serial('a scenario that the explorer has no room for is refused', (t) => {
  const base = {
    name: 'x',
    about: '',
    checks: ['R1'],
    threads: [{ name: 'a', program: () => () => undefined }],
  };
  const many = Array.from({ length: 65 }, (_, i) => `R${i}`);
  t.throws(() => defineScenario({ ...base, checks: many }), { message: /more than 64 checks/ });
  t.throws(() => defineScenario({ ...base, checks: ['R1', 'R1'] }), { message: /twice/ });
});
