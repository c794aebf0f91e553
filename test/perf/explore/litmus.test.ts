import test from 'ava';
import {
  LITMUS,
  type LitmusCase,
  type LitmusOptions,
  type LitmusRow,
  runLitmus,
} from '../../../perf/explore/litmus.js';
import { ExploreSession } from '../../../perf/explore/session.js';

/** All that two threads have; of three threads' all with 1 preemption. The rest is for the command. */
const TWO_THREADS: LitmusOptions = { preemptions: 3 };
const THREE_THREADS = { preemptions: 3, schedules: 1500 } satisfies LitmusOptions;

async function search(one: LitmusCase, options: LitmusOptions): Promise<LitmusRow> {
  const rows: LitmusRow[] = [];
  for await (const row of runLitmus({ ...options, cases: [one], cpu: 0 })) rows.push(row);
  return rows[0]!;
}

for (const one of LITMUS) {
  const two = /2$|Rw$|Ww$|Vs$|Late$|^spsc/.test(one.export);
  const which = two ? 'every schedule' : `the first ${THREE_THREADS.schedules} schedules`;
  test.serial(`${one.primitive}: ${one.export} keeps its promise in ${which}`, async (t) => {
    const { failure, exhausted, schedules, threads } = await search(one, two ? TWO_THREADS : THREE_THREADS);
    t.is(threads, two ? 2 : 3);
    t.is(failure, null, failure?.detail);
    t.true(exhausted || schedules === (two ? 0 : THREE_THREADS.schedules));
  });
}

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
// up and finds nobody asleep; and the waiter goes to sleep on a word that says free. More than three preemptions.
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
