/** A session over two threads and a mutex that loses wake-ups, and a failure of it. */
import type { ExecutionContext } from 'ava';
import type { CampaignRequest, Failure } from '../../../perf/explore/engine/messages.js';
import { ExploreSession } from '../../../perf/explore/session.js';

export const BUGS = ['mutex-wakes-before-release'] as const;
export const scenarioUrl = (file: string): string =>
  new URL(`../../../perf/explore/scenarios/${file}.js`, import.meta.url).href;

export async function brokenLock(t: ExecutionContext, name = 'mutex2'): Promise<ExploreSession> {
  const session = await ExploreSession.start(
    { url: scenarioUrl('mutex'), export: name },
    { cpu: 0, bugs: BUGS },
  );
  t.teardown(() => session.close());
  return session;
}

export const walks = (seed: number, schedules = 10_000): CampaignRequest => ({
  strategy: 'random',
  options: { threads: 2, seed, depth: 3, preemptions: 3, shard: { index: 0, count: 1 } },
  schedules,
  timeMs: 60_000,
});

/** @throws Error the bug is not found */
export async function failureOf(session: ExploreSession, seed: number): Promise<Failure> {
  const { failure } = await session.run(walks(seed));
  if (failure === null) throw new Error(`seed ${seed}: nothing was found`);
  return failure;
}
