import test from 'ava';
import { ExploreSession } from '../../../perf/explore/session.js';
import { runChoices, shrink } from '../../../perf/explore/shrink.js';
import { placeNames } from '../../../perf/explore/story/places.js';
import { frameOf, type Story, tellStory } from '../../../perf/explore/story/story.js';
import { renderStory } from '../../../perf/explore/story/story-table.js';
import { traceOf } from '../../../perf/explore/story/trace.js';
import { createMachine } from '../../../runtime/machine.js';
import { brokenLock, failureOf, scenarioUrl, walks } from './broken-lock.js';

function storyOf(session: ExploreSession, violation: Story['violation']): Story {
  const { name, threads, words } = session.scenario;
  const names = placeNames(new Int32Array(session.memory.buffer), session.published(), words);
  return tellStory(
    name,
    threads.map((thread) => thread.name),
    session.recording(),
    violation,
    names,
  );
}

test.serial('story: a lost wake-up is told access by access, in the order they were made', async (t) => {
  const session = await brokenLock(t);
  const { failure } = await shrink(session, await failureOf(session, 3), { seed: 3 });
  const again = await runChoices(session, failure.choices, 3, true);
  const story = storyOf(session, again.failure);
  const steps = story.rows.flatMap(({ accesses }) => accesses.map(({ step }) => step));
  t.deepEqual(
    steps,
    steps.map((_, i) => i + 1),
  );
  const table = renderStory(story, { columns: 100, rows: 100 });
  for (const told of [
    /│ step +│ t0 +│ t1 +│/,
    /Mutex\.lock < run/,
    /Mutex\.unlock < run/,
    /base\+0: 0 -> [12]/,
    /base\+0 := 0/,
    /base\+4: 0 -> 1/,
    /sleeps on base\+0 = [12]/,
    /lost wake-up, in t[01]: t[01] sleeps on base\+0 = [12], now 0$/,
  ])
    t.regex(table, told);
  for (const line of table.split('\n').slice(0, -1)) t.true([...line].length <= 100, line);
  // Who sleeps does so before the word is given back, and nobody wakes it.
  t.true(table.indexOf('sleeps on') < table.lastIndexOf(':= 0'));
  t.notRegex(table, /wakes/);
  const last = renderStory(story, { columns: 100, rows: 1 });
  t.regex(last, new RegExp(`^\\.\\.\\. ${story.rows.length - 1} rows? before these`));
});

test.serial('story: the trace has a track a thread, and slices within which accesses lie', async (t) => {
  const session = await brokenLock(t);
  const failure = await failureOf(session, 3);
  const again = await runChoices(session, failure.choices, 3, true);
  const story = storyOf(session, again.failure);
  const { traceEvents } = JSON.parse(traceOf(story, session.recording())) as {
    traceEvents: {
      ph: string;
      name: string;
      tid: number;
      ts: number;
      dur: number;
      cat?: string;
      args: { name?: string };
    }[];
  };
  const tracks = traceEvents.filter(({ ph, name }) => ph === 'M' && name === 'thread_name');
  t.deepEqual(
    tracks.map(({ args }) => args.name),
    ['t0', 't1'],
  );
  const slices = traceEvents.filter(({ ph }) => ph === 'X');
  const accesses = traceEvents.filter(({ cat }) => cat === 'access');
  t.is(accesses.length, session.recording().steps.length);
  for (const { tid, ts } of accesses)
    t.true(slices.some((slice) => slice.tid === tid && slice.ts <= ts && ts <= slice.ts + slice.dur));
  t.is(traceEvents.at(-1)!.cat, 'violation');
});

test.serial('story: words of a machine are told by region and field, RAM by address', async (t) => {
  const session = await ExploreSession.start(
    { url: scenarioUrl('unmap'), export: 'unmapDuringDma' },
    { cpu: 0 },
  );
  t.teardown(() => session.close());
  await session.run({ ...walks(1, 1), record: true });
  const table = renderStory(storyOf(session, null), { columns: 160, rows: 10_000 });
  t.regex(table, /│ step +│ core +│ smmu0 +│ device +│/);
  t.regex(table, /smmuv3:0 cmdqProd/);
  t.regex(table, /smmuv3:0 cmdqCons/);
  t.regex(table, /unit:0 doorbell/);
  t.regex(table, /cmdq:0\[\d+\] :=/);
  t.regex(table, /objects:0 \[2\] users: 2 -> 3/);
  t.regex(table, /RAM 0x8[0-9a-f]{7} is/);
  // The compiled kernel by its functions, and never by the hook between it and the explorer.
  t.regex(table, /│ dmaBegin /);
  t.regex(table, /│ readContext < dmaBegin /);
  t.regex(table, /│ takeRequests /);
  t.notRegex(table, /variants\.js|kernel\.wasm/);
});

test('story: stream table entries and context descriptors are told by stream', (t) => {
  const machine = createMachine({
    maxFds: 1,
    memory: '4MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0' }],
  });
  const fd = machine.openIommufd();
  const vfio = machine.openVfio('0000:01:00.0');
  vfio.bindIommufd(fd);
  vfio.attach(fd.ioasAlloc().ioasId);
  const { ram, regions } = machine.handle().memory;
  const { i32 } = machine.memory;
  const nameOf = placeNames(i32, { ram, regions });
  const places = new Map<string, number>();
  for (let offset = ram.linear; offset < ram.linear + ram.bytes; offset += 8)
    places.set(nameOf(offset), offset);
  const word = (name: string): number => i32[places.get(name)! >> 2]!;
  // V, and Config that says stage 1; then V of the CD, bit 31.
  t.is(word('STE 256') & 0xf, 0b1011);
  t.is(word('CD of 256') >>> 31, 1);
  t.is(places.get('STE 256 +8')! - places.get('STE 256')!, 8);
  t.is(places.get('evtq:0[1]')! - places.get('evtq:0[0]')!, 32);
  t.is(nameOf(ram.linear + ram.bytes - 8), `RAM 0x${(ram.basePa + ram.bytes - 8).toString(16)}`);
});

test('story: words have the names that the scenario gives them', (t) => {
  const nameOf = placeNames(new Int32Array(16), undefined, { tail: 64, head: 0, slots: 128 });
  t.is(nameOf(2048), 'head');
  t.is(nameOf(2048 + 64), 'tail');
  t.is(nameOf(2048 + 136), 'slots+8');
  t.is(placeNames(new Int32Array(16), undefined)(2048 + 4), 'base+4');
  t.regex(nameOf(64 + 128 + 4), /^threads state\+4$/);
});

test('story: frames of every shape have a name and a place', (t) => {
  const shapes = {
    'Mutex.lock (hw/sync/mutex.js:46:19)': ['Mutex.lock', 'hw/sync/mutex.js:46'],
    'Object.run (perf/explore/scenarios/mutex.js:11:53)': ['run', 'perf/explore/scenarios/mutex.js:11'],
    'hw/sync/wait.js:3:1': ['at wait.js:3', 'hw/sync/wait.js:3'],
    'file:///home/me/queue.mjs:3:1': ['at queue.mjs:3', '/home/me/queue.mjs:3'],
    'push (file:///home/me/queue.mjs:3:1)': ['push', '/home/me/queue.mjs:3'],
    'wasm://wasm/0x1:wasm-function[7]:0x12': ['kernel', 'kernel.wasm'],
    'hw/kernel/assembly/iotlb/find (wasm://wasm/0002e37e:wasm-function[6]:0x1d02)': [
      'find',
      'hw/kernel/assembly/iotlb.ts',
    ],
  };
  for (const [text, [name, at]] of Object.entries(shapes))
    t.deepEqual(frameOf(text), { name: name!, at: at! });
});
