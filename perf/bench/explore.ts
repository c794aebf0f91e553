/** The explorer at its smallest: two threads that take a mutex, one schedule after the other, all on one processor. */
import { ExploreSession } from '../explore/session.js';
import { type Group, must, repetitions, type Scale } from './rounds.js';

const SCHEDULES = 2000;

export const EXPLORE_ROWS = [
  'explore: schedules of two threads at a mutex',
  'explore: steps of them',
] as const;

export async function explore(scale: Scale): Promise<Group> {
  const url = new URL('../explore/scenarios/mutex.js', import.meta.url).href;
  const session = await ExploreSession.start({ url, export: 'mutex2' }, { cpu: 1 });
  let seed = 0;
  return {
    cases: [
      {
        figures: [
          { name: EXPLORE_ROWS[0], unit: '1/s', goal: { kind: 'at-least', value: 3000 } },
          { name: EXPLORE_ROWS[1], unit: '1/s', goal: { kind: 'at-least', value: 100_000 } },
        ],
        round: async () => {
          const before = process.cpuUsage();
          const { schedules, steps, seconds, failure } = await session.run({
            strategy: 'random',
            options: { threads: 2, seed: ++seed, depth: 1, preemptions: 0, shard: { index: 0, count: 1 } },
            schedules: repetitions(SCHEDULES, scale),
            timeMs: Number.POSITIVE_INFINITY,
          });
          must(failure === null, `explore: ${failure?.detail}`);
          const { user, system } = process.cpuUsage(before);
          return {
            values: [schedules / seconds, steps / seconds],
            share: Math.min(1, (user + system) / 1e6 / seconds),
          };
        },
      },
    ],
    close: () => session.close(),
  };
}
