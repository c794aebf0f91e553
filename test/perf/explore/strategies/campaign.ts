/** Campaigns over the programs of this folder, or the explorer's own scenarios. */
import type { BugName } from '../../../../hw/bugs/bug-switches.js';
import type { CampaignResult } from '../../../../perf/explore/engine/messages.js';
import { ExploreSession } from '../../../../perf/explore/session.js';
import type { StrategyName } from '../../../../perf/explore/strategies/index.js';
import type { StrategyOptions } from '../../../../perf/explore/strategies/strategy.js';

export const PROGRAMS = new URL('./programs.js', import.meta.url).href;
export const MUTEX = new URL('../../../../perf/explore/scenarios/mutex.js', import.meta.url).href;

export type Campaign = (
  strategy: StrategyName,
  options?: Partial<StrategyOptions>,
  schedules?: number,
) => Promise<CampaignResult>;

/** Lends a session for as long as `use` takes. */
export async function withSession<T>(
  url: string,
  name: string,
  bugs: readonly BugName[],
  use: (campaign: Campaign, session: ExploreSession) => Promise<T>,
): Promise<T> {
  const session = await ExploreSession.start({ url, export: name }, { cpu: 0, bugs });
  try {
    const campaign: Campaign = (strategy, options = {}, schedules = 1e6) =>
      session.run({
        strategy,
        options: {
          threads: session.scenario.threads.length,
          seed: 1,
          depth: 3,
          preemptions: 3,
          shard: { index: 0, count: 1 },
          ...options,
        },
        schedules,
        timeMs: 60_000,
      });
    return await use(campaign, session);
  } finally {
    await session.close();
  }
}
