import test from 'ava';
import { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { monotonicClock } from '../../../hw/sync/thread.js';
import { Timeline } from '../../../hw/timeline/timeline.js';

const memory = () => MachineMemory.create({ ramBytes: 2 ** 21, controlBytes: 2 ** 20 });

test('timeline: a machine without them has none, and a track that was not made neither', (t) => {
  const plain = memory();
  t.is(Timeline.attach(plain, 'core', { nowNs: () => 0 }), null);
  Timeline.allocRegions(plain, ['core'], 4);
  t.is(Timeline.attach(plain, 'device:0', { nowNs: () => 0 }), null);
  t.not(Timeline.attach(plain, 'core', { nowNs: () => 0 }), null);
});

test('timeline: times are of the shared clock, and exact past 32 bits', (t) => {
  const machine = memory();
  Timeline.allocRegions(machine, ['core'], 4);
  let now = 1000;
  const line = Timeline.attach(machine, 'core', { nowNs: () => now, epochNs: 3 * 2 ** 40 })!;
  const began = line.nowNs();
  now += 250.75;
  line.record(7, began, 1, 2, 3, 4, 5, 6, 7, 0xffff_ffff);
  const [event] = [...line.events()];
  t.is(event!.startNs, 3 * 2 ** 40 + 1000);
  t.is(event!.durationNs, 250);
  t.is(event!.kind, 7);
  t.deepEqual([...event!.args], [1, 2, 3, 4, 5, 6, 7, 0xffff_ffff]);
  line.recordPast(8, began, -5);
  line.recordPast(8, began, 2 ** 40);
  t.deepEqual(
    [...line.events()].slice(1).map(({ durationNs }) => durationNs),
    [0, 0xffff_ffff],
    'what no clock should give is counted at the ends',
  );
});

test('timeline: the last events are kept, in order, and a reader of another thread finds them', (t) => {
  const machine = memory();
  Timeline.allocRegions(machine, ['core', 'smmu:0'], 4);
  const clock = { nowNs: () => 0 };
  const line = Timeline.attach(machine, 'smmu:0', clock)!;
  t.is(line.oldestNs(), null);
  for (let n = 0; n < 4; n++) line.recordPast(1, n, 1, n);
  t.false(line.wrapped);
  t.is(line.oldestNs(), 0);
  for (let n = 4; n < 11; n++) line.recordPast(1, n, 1, n);
  const reader = Timeline.attach(machine, 'smmu:0', clock)!;
  t.true(reader.wrapped);
  t.is(reader.recorded, 11);
  t.is(reader.oldestNs(), 7);
  t.deepEqual(
    [...reader.events()].map(({ args }) => args[0]),
    [7, 8, 9, 10],
  );
  t.deepEqual([...Timeline.attach(machine, 'core', clock)!.events()], [], 'the neighbour’s is its own');
});

test('clock: with its epoch, the monotonic clock is the processor’s, which all threads share', (t) => {
  const before = Number(process.hrtime.bigint());
  const now = monotonicClock.nowNs() + monotonicClock.epochNs!;
  const after = Number(process.hrtime.bigint());
  t.true(now >= before - 1e6 && now <= after + 1e6, `${before} ${now} ${after}`);
});
