/**
 * The command queue's histories, searched depth first while that ends and at random beyond. What README.md says of it is
 * printed by this file: node dist/test/proofs/command-queue.js [seconds a row]
 */
import { pathToFileURL } from 'node:url';
import type { BugName } from '../../hw/bugs/bug-switches.js';
import type { CampaignResult } from '../../perf/explore/engine/messages.js';
import { FULL, WRAPPED } from '../../perf/explore/scenarios/queue-linear.js';
import { ExploreSession } from '../../perf/explore/session.js';
import type { StrategyName } from '../../perf/explore/strategies/index.js';

export interface QueueCampaign {
  /** An export of perf/explore/scenarios/FILE. */
  readonly file?: string;
  readonly scenario: string;
  readonly strategy: StrategyName;
  readonly schedules: number;
  readonly preemptions?: number;
  readonly bugs?: readonly BugName[];
  readonly seed?: number;
  readonly timeMs?: number;
}

export async function explore(campaign: QueueCampaign): Promise<CampaignResult> {
  const { file = 'queue-linear', scenario, strategy, schedules, preemptions = 2 } = campaign;
  const { bugs = [], seed = 1, timeMs = 60_000 } = campaign;
  const url = new URL(`../../perf/explore/scenarios/${file}.js`, import.meta.url).href;
  const session = await ExploreSession.start({ url, export: scenario }, { cpu: 0 });
  try {
    const threads = session.scenario.threads.length;
    const options = { threads, seed, depth: 3, preemptions, shard: { index: 0, count: 1 } };
    return await session.run({ strategy, options, schedules, timeMs, bugs });
  } finally {
    await session.close();
  }
}

const EXHAUSTED = [
  'queueLinear2',
  'queueLinear2Syncs',
  'queueLinear2Msi',
  'queueLinear2Full',
  'queueLinear2Lists',
];
const SAMPLED = [
  'queueLinear3',
  'queueLinear3Full',
  'queueLinear4',
  'queueLinear4Full',
  'queueLinear4Msi',
  'queueLinear2Late',
  'queueLinear4Late',
];

async function print(seconds: number): Promise<void> {
  console.log('| scenario | search | schedules | steps | all | wrapped | full |');
  console.log('| --- | --- | ---: | ---: | --- | ---: | ---: |');
  const row = async (scenario: string, strategy: StrategyName, preemptions: number): Promise<void> => {
    const schedules = Number.MAX_SAFE_INTEGER;
    const result = await explore({ scenario, strategy, schedules, preemptions, timeMs: seconds * 1000 });
    const search = strategy === 'dfs' ? `dfs, ${preemptions} preemptions` : strategy;
    const { checks, failure, exhausted, steps } = result;
    console.log(
      `| ${scenario} | ${search} | ${result.schedules} | ${steps} | ${exhausted ? 'yes' : 'no'} ` +
        `| ${checks[WRAPPED]} | ${checks[FULL]} |${failure === null ? '' : ` ${failure.invariant}: ${failure.detail}`}`,
    );
  };
  for (const scenario of EXHAUSTED) for (const bound of [1, 2]) await row(scenario, 'dfs', bound);
  for (const scenario of SAMPLED)
    for (const strategy of ['random', 'pct'] as const) await row(scenario, strategy, 0);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await print(Number(process.argv[2] ?? 20));
