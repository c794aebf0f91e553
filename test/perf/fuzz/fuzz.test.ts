import test from 'ava';
import { iotlbLayout, UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { runShard } from '../../../perf/fuzz/episode.js';
import { GuestTarget } from '../../../perf/fuzz/guest-target.js';
import { progressMemory } from '../../../perf/fuzz/progress.js';
import { runFuzz } from '../../../perf/fuzz/run.js';
import { failureOf } from '../../../perf/fuzz/shrink.js';
import { UnitTarget } from '../../../perf/fuzz/unit-target.js';
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

test('fuzz: the same seed does the same', (t) => {
  const once = () =>
    runShard({ target: 'unit', seed: 7, count: 20_000, inputs: [], shared: progressMemory(1), slot: 0 });
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
