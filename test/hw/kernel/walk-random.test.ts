/**
 * Random tables against the reference: RAM is filled with descriptors that point into RAM, at themselves, past
 * its end, or are noise, so most walks end in some fault and all of them end.
 */
import test from 'ava';
import { KernelBench, RAM_PA } from '../../kit/kernel-bench.js';
import { Random, SEED } from '../../kit/random.js';
import { type Outcome, type StageConfig, translateReference } from '../../kit/vmsa-reference.js';

const RAM_BYTES = 2 << 20;
const FRAMES = 48n;
const CLASS = { CD: 0, TTD: 1, IN: 2 };

function descriptor(random: Random): bigint {
  const roll = random.below(100);
  if (roll < 2) return (1n << 64n) - 1n;
  if (roll < 4) return random.big(64);
  if (roll < 8) return random.big(64) & ~1n;
  const frame = RAM_PA + BigInt(random.below(Number(FRAMES))) * 4096n;
  const address = roll < 12 ? random.big(48) & ~0xfffn : roll < 14 ? RAM_PA + BigInt(RAM_BYTES) : frame;
  const type = random.chance(0.8) ? 3n : 1n;
  const af = random.chance(0.95) ? 1n << 10n : 0n;
  // Two in three grant everything to either stage: AP 01 and S2AP 11 disagree on bit 7.
  const ap = BigInt(random.pick([1, 3, 3, 1, random.below(4)])) << 6n;
  const ng = random.chance(0.8) ? 1n << 11n : 0n;
  const tableAp = random.chance(0.05) ? random.big(2) << 61n : 0n;
  return address | type | af | ap | ng | tableAp;
}

function stageConfig(random: Random, stage: 1 | 2): StageConfig {
  const startLevel = random.below(stage === 2 ? 4 : 3);
  const topBits = startLevel === 0 ? 9 : stage === 2 ? 13 : 9;
  const inputBits = 39 - 9 * startLevel + 1 + random.below(topBits);
  return {
    stage,
    inputBits,
    startLevel,
    outputBits: random.pick([32, 36, 40, 48, 48, 48]),
    root: RAM_PA + BigInt(random.below(Number(FRAMES)) * 4096) + BigInt(random.below(2) * 64),
    afFault: random.chance(0.7),
  };
}

const KIND = { s1: 2, s2: 3, nested: 4 };

for (const kind of ['s1', 's2', 'nested'] as const) {
  test(`walk: random and hostile tables translate as the reference says (${kind})`, (t) => {
    t.log(`SEED=${SEED}`);
    const random = new Random(SEED ^ KIND[kind]);
    const bench = new KernelBench({ ramBytes: RAM_BYTES, entries: 4 });
    const seen = new Map<number, number>();
    for (let round = 0; round < 60; round++) {
      // Some frames dense with tables, some sparse.
      for (let i = 0n; i < FRAMES * 512n; i++)
        bench.setRam(RAM_PA + i * 8n, random.chance(0.97) ? descriptor(random) : 0n);
      for (let c = 0; c < 10; c++) {
        const s1 = kind === 's2' ? null : stageConfig(random, 1);
        let s2 = kind === 's1' ? null : stageConfig(random, 2);
        // Nested walks reach anything only when stage 2 maps the tables' IPAs: half of them get a 2 GiB identity.
        if (s1 !== null && s2 !== null && random.chance(0.7)) {
          const root = RAM_PA + FRAMES * 4096n;
          for (let g = 0n; g < 4n; g++) bench.setRam(root + g * 8n, (g << 30n) | 0x4c1n | (0n << 2n));
          s2 = { stage: 2, inputBits: 32, startLevel: 1, outputBits: 48, root, afFault: true };
        }
        const context = bench.context(5, {
          kind: KIND[kind],
          tag: 1,
          flags: (s1?.afFault ? 1 : 0) | (s2?.afFault ? 2 : 0),
          ...(s1 && {
            s1Root: s1.root,
            s1InputBits: s1.inputBits,
            s1OutputBits: s1.outputBits,
            s1StartLevel: s1.startLevel,
          }),
          ...(s2 && {
            s2Root: s2.root,
            s2InputBits: s2.inputBits,
            s2OutputBits: s2.outputBits,
            s2StartLevel: s2.startLevel,
          }),
        });
        const inputs: [bigint, boolean][] = [];
        for (let i = 0; i < 64; i++) {
          const width = (s1 ?? s2!).inputBits + (random.chance(0.03) ? 3 : 0);
          inputs.push([random.big(width), random.chance(0.5)]);
        }
        // As one batch: the walk cache must not change any answer.
        inputs.forEach(([iova, write], i) => {
          bench.ask(bench.scratch + i * 64, iova, write ? 1 : 0);
        });
        bench.kernel.iotlbInvalidateAll(bench.unit, bench.iotlb);
        const faults = bench.kernel.translateBatch(
          bench.unit,
          context,
          bench.iotlb,
          bench.scratch,
          inputs.length,
        );
        let expectedFaults = 0;
        for (const [i, [iova, write]] of inputs.entries()) {
          const want = translateReference(s1, s2, iova, write, (pa) => bench.ram(pa));
          const got = bench.result(bench.scratch + i * 64);
          seen.set(want.status, (seen.get(want.status) ?? 0) + 1);
          if (want.status !== 0) expectedFaults++;
          const where = `${iova.toString(16)} ${write ? 'write' : 'read'} got ${show(got)} want ${show(want)}`;
          if (got.source === 2) {
            // A second visit to a page: the walk's answer, from the IOTLB.
            t.deepEqual([got.status, got.pa], [0, want.pa], where);
            continue;
          }
          const fault = want.status === 0 ? 0 : (want.stage2 ? 1 : 0) | (CLASS[want.klass] << 1);
          if (
            got.status !== want.status ||
            got.pa !== want.pa ||
            got.ipa !== want.ipa ||
            got.sizeLg2 !== want.sizeLg2 ||
            got.fault !== fault ||
            (want.status !== 0 && got.level !== want.level)
          )
            t.fail(where);
        }
        t.is(faults, expectedFaults);
      }
    }
    t.log([...seen].map(([status, n]) => `0x${status.toString(16)}: ${n}`).join(', '));
    for (const status of [0, 0x0b, 0x10, 0x11, 0x12, 0x13])
      t.true((seen.get(status) ?? 0) > 20, `status ${status}`);
  });
}

const show = (value: Outcome | object): string =>
  JSON.stringify(value, (_key, v: unknown) => (typeof v === 'bigint' ? `0x${v.toString(16)}` : v));
