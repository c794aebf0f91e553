import test from 'ava';
import { ExploreSession } from '../../../perf/explore/session.js';

/** One campaign of random walks over an export of perf/explore/scenarios. */
async function walk(file: string, name: string, schedules: number) {
  const url = new URL(`../../../perf/explore/scenarios/${file}.js`, import.meta.url).href;
  const session = await ExploreSession.start({ url, export: name }, { cpu: 0 });
  try {
    const options = { threads: 0, seed: 1, depth: 3, preemptions: 3, shard: { index: 0, count: 1 } };
    return await session.run({ strategy: 'random', options, schedules, timeMs: 60_000 });
  } finally {
    await session.close();
  }
}

// A waiter announces itself and reads the word: free. Another takes it, the waiter finds it taken, the other gives it
// up and finds nobody asleep; and the waiter goes to sleep on a word that says free.
for (const [file, name] of [
  ['mutex', 'mutex3'],
  ['spin-lock', 'spinLock3'],
  ['semaphore', 'semaphore3'],
  ['once', 'once3'],
] as const)
  test.serial(`${name}: nobody sleeps on a word that was taken and given up before it slept`, async (t) => {
    const { failure, schedules } = await walk(file, name, 4000);
    t.is(failure, null, failure?.detail);
    t.is(schedules, 4000);
  });
