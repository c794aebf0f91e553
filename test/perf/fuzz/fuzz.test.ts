import { readdirSync } from 'node:fs';
import test from 'ava';
import { iotlbLayout, UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { runShard } from '../../../perf/fuzz/episode.js';
import { GuestTarget } from '../../../perf/fuzz/guest-target.js';
import { IoctlTarget } from '../../../perf/fuzz/ioctl-target.js';
import { progressMemory } from '../../../perf/fuzz/progress.js';
import { runFuzz } from '../../../perf/fuzz/run.js';
import { failureOf } from '../../../perf/fuzz/shrink.js';
import { UnitTarget } from '../../../perf/fuzz/unit-target.js';
import { WireTarget } from '../../../perf/fuzz/wire-target.js';
import { Random } from '../../../perf/stress/random.js';

const SEED = Number(process.env.SEED ?? Date.now() % 2 ** 32) >>> 0;
const COUNT = 200_000;
const OP_WORDS = 6;

test(`fuzz: 200 k operations of every kind break nothing (seed ${SEED})`, async (t) => {
  let last = 0;
  const result = await runFuzz(
    { count: COUNT, seed: SEED, targets: ['unit', 'guest'], corpus: null, jobs: 1 },
    {
      progress(ops) {
        last = ops;
      },
    },
    new AbortController().signal,
  );
  t.deepEqual(
    result.failures.map(({ target, message }) => `${target}: ${message}`),
    [],
  );
  t.true(result.ops >= COUNT && last >= COUNT);
  for (const { target, byKind, features } of result.shards) {
    for (const [kind, count] of Object.entries(byKind)) t.true(count > 500, `${target}: ${kind} ${count}`);
    t.true(features > 1000, `${target} saw ${features} different outcomes`);
  }
});

test(`fuzz: 40 k calls of a hostile program break nothing and leave nothing behind (seed ${SEED})`, (t) => {
  const count = 40_000;
  const { failure, byKind, features } = runShard({
    target: 'ioctl',
    seed: SEED,
    count,
    inputs: [],
    shared: progressMemory(1),
    slot: 0,
  });
  t.is(failure?.message ?? null, null);
  for (const [kind, n] of Object.entries(byKind)) t.true(n > 5, `${kind} ${n}`);
  t.true(features > 1000, `${features} different outcomes`);
});

test(`fuzz: 8 k messages of a hostile client hurt no other (seed ${SEED})`, (t) => {
  const shared = progressMemory(1);
  const descriptors = readdirSync('/proc/self/fd').length;
  const result = runShard({ target: 'wire', seed: SEED, count: 8_000, inputs: [], shared, slot: 0 });
  t.is(result.failure?.message ?? null, null);
  for (const [kind, n] of Object.entries(result.byKind)) t.true(n > 0, `${kind} ${n}`);
  t.true(result.features > 300, `${result.features} different outcomes`);
  // The ends of pipes to processes that are gone close a little later; each process has five, and there were two.
  const left = readdirSync('/proc/self/fd').length - descriptors;
  t.true(left <= 10, `${left} descriptors`);
});

test("fuzz: a client that is hurt is found: its device's DMA, its connection", (t) => {
  const target = new WireTarget();
  target.reset();
  t.is(target.check(), null);
  const { machine } = target.world;
  const [device] = [...machine.core.openDevices];
  t.is(device, 0);
  // Its IOMMU forgets what the driver told it.
  machine.iommus[0]!.mmio.write32(0x20, 0);
  machine.settle();
  t.regex(target.check() ?? 'nothing', /the other client's/);
  target.close();
});

test('fuzz: a page that stays pinned, an object that stays, is found at the next close of everything', (t) => {
  const target = new IoctlTarget();
  const closeAll = Uint32Array.of(8, 0, 0, 0, 0, 0);
  target.reset();
  target.apply(closeAll, 0);
  t.is(target.check(), null);
  const { machine } = target.world;
  machine.user.pin(machine.memory.ram.basePa / 4096, 1);
  target.apply(closeAll, 0);
  t.regex(target.check() ?? 'nothing', /left after the last close: 1 pins and mappings of frames/);
  machine.user.unpin(machine.memory.ram.basePa / 4096, 1);
  target.reset();
  // Nobody has a descriptor of it: it cannot be closed.
  const lost = target.world.machine.core.openFile();
  const held = target.world.machine.core.openVfio(target.world.machine.device('0001:01:00.0'));
  if (typeof lost === 'number') return t.fail();
  const fd = target.world.machine.core.own.files.install(lost);
  held.ioctl(0x3b76, new Uint8Array(Uint32Array.of(16, 0, fd, 0).buffer));
  target.apply(closeAll, 0);
  t.regex(target.check() ?? 'nothing', /1 devices taken/);
  held.close();
  target.close();
  return undefined;
});

for (const target of ['unit', 'ioctl'] as const)
  test(`fuzz: the same seed does the same, ${target}`, (t) => {
    const once = () =>
      runShard({ target, seed: 7, count: 20_000, inputs: [], shared: progressMemory(1), slot: 0 });
    const first = once();
    t.deepEqual(once(), first);
    t.true(first.found.length > 50);
  });

/** Operations of one kind, drawn as the fuzzer draws them. */
function episode(target: UnitTarget | GuestTarget, count: number): Uint32Array {
  const random = new Random(SEED);
  const ops = new Uint32Array(count * OP_WORDS);
  for (let at = 0; at < ops.length; at += OP_WORDS) target.fresh(random, ops, at);
  return ops;
}

test('fuzz: an IOTLB entry that leads to the other VM is found, and so is a DMA that uses it', (t) => {
  const target = new GuestTarget();
  target.reset();
  t.is(target.check(), null);
  const { machine, victimRun } = target.world;
  const unit = machine.memory.region(UnitLayout, 'unit:1').base;
  const iotlb = machine.memory.region(iotlbLayout(64), 'iotlb:1').base;
  machine.kernel.iotlbFill(unit, iotlb, 77, 0x123, victimRun.pfn + 3, 12, 0x37, 0);
  t.regex(target.check() ?? 'nothing', /smmu1: VMID 77 leads to frame 0x[0-9a-f]+, which is the other VM's/);
  target.close();
});

test(`fuzz: a store outside the unit's own memory is found (seed ${SEED})`, (t) => {
  const target = new UnitTarget();
  const ops = episode(target, 500);
  t.is(failureOf(target, ops), null);
  target.memory.u8[target.foreignByte] ^= 1;
  t.regex(target.check() ?? 'nothing', /not the unit's, was changed/);
  target.reset();
  t.is(target.check(), null);
  target.close();
});
