import test from 'ava';
import { runZoo } from '../../../perf/zoo/run.js';

test('zoo: a scenario that cannot be run is a row with its problem, and the others are run all the same', async (t) => {
  const bug = 'mutex-wakes-before-release';
  const of = (name: string) =>
    ({
      bug,
      scenario: { file: 'mutex', export: name },
      strategy: 'random',
      budget: 1000,
    }) as const;
  const seen: { found: boolean; clean: boolean; problem: string | null }[] = [];
  await runZoo({
    entries: [of('noSuchExport'), of('mutex2')],
    seed: 1,
    replays: 3,
    cpus: [],
    onRow: ({ found, clean, problem }) => seen.push({ found, clean, problem }),
  });
  t.is(seen.length, 2);
  t.regex(seen[0]!.problem ?? '', /^could not be run: .*noSuchExport/);
  t.false(seen[0]!.clean);
  t.deepEqual(seen[1], { found: true, clean: true, problem: null });
});
