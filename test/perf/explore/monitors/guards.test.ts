import test from 'ava';
import { ExploreSession } from '../../../../perf/explore/session.js';

async function walk(name: string, schedules: number) {
  const url = new URL('./guarded.js', import.meta.url).href;
  const session = await ExploreSession.start({ url, export: name }, { cpu: 0 });
  try {
    const options = { threads: 3, seed: 1, depth: 3, preemptions: 3, shard: { index: 0, count: 1 } };
    return await session.run({ strategy: 'random', options, schedules, timeMs: 60_000 });
  } finally {
    await session.close();
  }
}

for (const [name, invariant, story] of [
  [
    'freedFrame',
    'R1',
    /^frames: reader reads 0x[0-9a-f]+40 in free frame 0x[0-9a-f]+, which core gave back at step \d+$/,
  ],
  ['freedObject', 'R15', /^objects: reader reads object 1, to which there is no reference, which /],
  [
    'freedRecord',
    'R15',
    /^objects: reader (reads|changes) the free vIOMMU record 0, which core gave back at step \d+$/,
  ],
] as const)
  test.serial(`${name}: its use is found, with who gave it back`, async (t) => {
    const { failure } = await walk(name, 200);
    t.is(failure?.invariant, invariant);
    t.is(failure?.thread, 'reader');
    t.regex(failure!.detail, story);
  });

test.serial('a monitor that a scenario switched off says nothing, and counts nothing', async (t) => {
  const { failure, schedules, checks } = await walk('freedFrameUnwatched', 100);
  t.is(failure, null);
  t.is(schedules, 100);
  t.false('R1 (frames)' in checks);
  t.true(checks['R17 (commands)']! > 0);
});

test.serial('the end is looked at when the hardware has done what it was told', async (t) => {
  const { failure, checks, schedules } = await walk('unwaited', 200);
  t.is(failure, null, failure?.detail);
  t.is(checks.settled, schedules);
});
