/**
 * The driver's command queue against the SMMU's: every history is one of a sequential bounded queue. Small budgets;
 * command-queue.ts has no limit.
 */
import test from 'ava';
import type { BugName } from '../../hw/bugs/bug-switches.js';
import { FULL, WRAPPED } from '../../perf/explore/scenarios/queue-linear.js';
import { explore } from './command-queue.js';

for (const scenario of ['queueLinear2', 'queueLinear2Syncs', 'queueLinear2Msi', 'queueLinear2Full'])
  test.serial(`${scenario}: every schedule with one preemption is linearizable`, async (t) => {
    const { failure, exhausted, checks } = await explore({
      scenario,
      strategy: 'dfs',
      preemptions: 1,
      schedules: 20_000,
    });
    t.is(failure, null, failure?.detail);
    t.true(exhausted);
    t.true(checks[WRAPPED]! > 0);
    if (scenario.endsWith('Full')) t.true(checks[FULL]! > 0);
  });

for (const scenario of ['queueLinear3Full', 'queueLinear4Full', 'queueLinear4Msi', 'queueLinear4Late'])
  test.serial(`${scenario}: walks and PCT find nothing that is not`, async (t) => {
    for (const strategy of ['random', 'pct'] as const) {
      const { failure, checks } = await explore({ scenario, strategy, schedules: 150 });
      t.is(failure, null, failure?.detail);
      t.true(checks[WRAPPED]! > 0, 'it wraps');
      t.true(checks[FULL]! > 0, 'it is full');
    }
  });

for (const bug of ['cmdq-valid-before-written', 'cmdq-owner-does-not-wait'] as BugName[])
  test.serial(`a queue with ${bug} is seen not to be linearizable`, async (t) => {
    const { failure } = await explore({
      scenario: 'queueLinear3',
      strategy: 'pct',
      schedules: 2000,
      bugs: [bug],
    });
    t.is(failure?.invariant, 'R17');
  });

// Each of these ended in a sleep that nobody ended, or in a loop.
for (const [scenario, strategy, schedules, what] of [
  ['queueRoomAlone', 'pct', 100, 'whoever looks for room alone sleeps, and is woken by CMDQ_CONS'],
  ['queueRoomSyncs', 'random', 200, 'whoever looks for room hears of two SYNCs that leave at once'],
  ['queueError', 'random', 200, 'CMDQ_CONS shows an error before GERROR does: nobody sleeps through it'],
  [
    'queueErrorsPolled',
    'dfs',
    1500,
    'a second error, seen while the core still serves the first, is served as well',
  ],
] as const)
  test.serial(what, async (t) => {
    const { failure } = await explore({ file: 'queue-zoo', scenario, strategy, schedules });
    t.is(failure, null, failure?.detail);
  });
