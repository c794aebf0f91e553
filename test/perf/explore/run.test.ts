/** `iommufd/explore` as its users have it. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import * as explorer from '../../../perf/explore/index.js';
import { explore, renderStory, replay } from '../../../perf/explore/index.js';
import { BUGS, scenarioUrl } from './broken-lock.js';

const MUTEX = new URL(scenarioUrl('mutex'));

test.serial('explore: a failure comes with its story, and its file replays it in new threads', async (t) => {
  const out = mkdtempSync(join(tmpdir(), 'iommufd-explore-'));
  t.teardown(() => rmSync(out, { recursive: true }));
  const found = await explore({
    scenario: MUTEX,
    export: 'mutex2',
    bugs: BUGS,
    seed: 11,
    out,
    shrink: true,
  });
  t.false(found.ok);
  t.is(found.failure?.invariant, 'lost wake-up');
  t.is(found.told!.shrunk!.after.switches, 2);
  t.deepEqual(readdirSync(out), ['explore-mutex-2-mutex-wakes-before-release-11.json']);
  const { story, replayFile } = found.told!;
  for (let i = 0; i < 3; i++) {
    const again = await replay({ file: replayFile!, cpu: i % 2 });
    t.true(again.same);
    t.deepEqual(again.told!.story, story);
  }
  t.regex(renderStory(story), /sleeps on/);
});

test.serial('explore: the same without the bug is clean, exhaustively', async (t) => {
  const clean = await explore({
    scenario: 'mutex-2',
    strategy: 'dfs',
    preemptions: 2,
    schedules: Number.POSITIVE_INFINITY,
  });
  t.true(clean.ok);
  t.true(clean.exhausted);
  t.is(clean.failure, null);
  t.is(clean.told, null);
  t.true(clean.schedulesPerSecond > 0 && clean.stepsPerSecond > 0);
});

test.serial('explore: a scenario of a machine runs by its name', async (t) => {
  const found = await explore({ scenario: 'unmap-during-dma', strategy: 'random', schedules: 50, seed: 1 });
  t.true(found.ok, found.failure?.detail);
  t.true(Object.values(found.checks).some((n) => n > 0));
});

test.serial('explore: every strategy that has a name runs, replays apart', async (t) => {
  for (const strategy of explorer.STRATEGY_NAMES) {
    if (strategy === 'replay') continue;
    const { ok, schedules, problem } = await explore({ scenario: 'mutex-2', strategy, schedules: 50 });
    t.true(ok, `${strategy}: ${problem}`);
    t.is(schedules, 50, strategy);
  }
});

test('explore: a scenario that is not there, or not said which, is a TypeError', async (t) => {
  await t.throwsAsync(explore({ scenario: 'mutex-9' }), {
    instanceOf: TypeError,
    message: /no scenario 'mutex-9'/,
  });
  await t.throwsAsync(explore({ scenario: MUTEX }), { instanceOf: TypeError, message: /mutex2, mutex3/ });
  await t.throwsAsync(explore({ scenario: MUTEX, export: 'mutex9' }), {
    instanceOf: TypeError,
    message: /'mutex9'/,
  });
  const none = new URL('../../../perf/explore/shrink.js', import.meta.url);
  await t.throwsAsync(explore({ scenario: none }), { instanceOf: TypeError, message: /exports no scenario/ });
});

test('explore: a scenario that is put together wrongly is refused by name', (t) => {
  const program = () => () => undefined;
  const good = { name: 'x', about: 'nothing much', checks: ['a'], threads: [{ name: 'a', program }] };
  t.is(explorer.defineScenario(good), good);
  for (const [change, message] of [
    [{ threads: [] }, /x: there is no thread/],
    [{ threads: [good.threads[0]!, good.threads[0]!] }, /two threads of one name/],
    [{ threads: [{ name: 'a', daemon: true, program }] }, /nothing but daemons/],
    [{ storeBuffer: ['b'] }, /storeBuffer names 'b'/],
  ] as const)
    t.throws(() => explorer.defineScenario({ ...good, ...change }), { instanceOf: TypeError, message });
});

test.serial('explore: a missing barrier is found by every strategy, and is told', async (t) => {
  const scenario = new URL('./message-passing.js', import.meta.url);
  for (const strategy of explorer.STRATEGY_NAMES) {
    if (strategy === 'replay') continue;
    const found = await explore({ scenario, export: 'withoutBarrier', strategy, shrink: true });
    t.is(found.failure?.invariant, 'data before flag', strategy);
    const told = renderStory(found.told!.story);
    t.regex(told, /data := 7, in its store buffer/);
    t.regex(told, /store buffer[^\n]*\n[^\n]*shows flag := 1/);
    t.regex(told, /data is 0/);
  }
  const clean = await explore({ scenario, export: 'withBarrier', strategy: 'dfs' });
  t.true(clean.ok && clean.exhausted);
});

test.serial(
  'explore: locks taken the wrong way round are found by every strategy (R25), in some schedules',
  async (t) => {
    const scenario = new URL('./two-locks.js', import.meta.url);
    for (const strategy of explorer.STRATEGY_NAMES) {
      if (strategy === 'replay') continue;
      const found = await explore({ scenario, export: 'inverted', strategy, shrink: true });
      t.is(found.failure?.invariant, 'R25', strategy);
      t.is(found.failure?.thread, 'user');
      t.regex(found.failure!.detail, /takes rank 10 while it holds rank 20/);
      if (strategy === 'dfs') t.is(found.told!.shrunk!.after.switches, 1, 'nobody need be interrupted');
    }
    // The first schedule of the search lets the user go first: it never sees a table that has grown.
    const one = await explore({ scenario, export: 'inverted', strategy: 'dfs', schedules: 1 });
    t.is(one.failure, null);
    const clean = await explore({ scenario, export: 'inOrder', strategy: 'dfs' });
    t.true(clean.ok && clean.exhausted);
  },
);
