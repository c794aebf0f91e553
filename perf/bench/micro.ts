/**
 * Single operations, by the package `benchmark`: each test is a loop of operations that is far longer than what
 * the package itself costs, and one round is one short run of it.
 */
import Benchmark from 'benchmark';
import { iotlbLayout, UnitLayout } from '../../hw/iotlb/unit-layout.js';
import { FILL_S1 } from '../../hw/kernel/kernel.js';
import { layout, raw, u32 } from '../../hw/memory/layout.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import { PROT_READ } from '../../hw/pagetable/aarch64.js';
import { CMD_TLBI_NH_VA, COMMAND_WORDS, encodeTlbiAddress } from '../../hw/smmuv3/command.js';
import { IoasMap } from '../../uapi/iommufd/ioas.js';
import { FIRST_PAGE, hostTarget, prepare } from './machines.js';
import { editorImage } from './page-tables.js';
import { type Case, type Group, must, type Scale } from './rounds.js';

/** Operations of one test: hundreds of times what calling it costs. */
const BATCH = 2000;
const SAMPLE_S = 0.002;

export const MICRO_ROWS = [
  'micro: a batch slot described (DmaPort.prepare)',
  'micro: struct iommu_ioas_map to bytes',
  'micro: TLBI_NH_VA encoded',
  'micro: page-table look-up, 4 levels, from JavaScript',
  'micro: IOTLB probe, from JavaScript',
  'micro: 32-bit word of shared memory, loaded atomically',
] as const;

function micro(name: string, scale: Scale, operation: (i: number) => void): Case {
  const run = new Benchmark(
    () => {
      for (let i = 0; i < BATCH; i++) operation(i);
    },
    { minTime: SAMPLE_S, maxTime: 0, minSamples: scale.work >= 1 ? 3 : 1 },
  );
  return {
    busyThreads: 1,
    figures: [{ name, unit: 'ns' }],
    round: () => {
      run.reset();
      run.run();
      must(run.error === undefined, `${name}: ${String(run.error)}`);
      return { values: [(run.stats.mean * 1e9) / BATCH] };
    },
  };
}

export function micros(scale: Scale): Group {
  const target = hostTarget(1);
  const { port } = target;
  const words = new Uint32Array(COMMAND_WORDS);
  const struct = {
    size: IoasMap.size,
    flags: 7,
    ioasId: 1,
    userVa: 0x7f00_0000_0000n,
    length: 4096n,
    iova: 0x1000_0000n,
  };
  const { table } = editorImage(8);
  must(table.map(FIRST_PAGE, FIRST_PAGE + 1, 1, PROT_READ) === 0, 'one page');
  const own = MachineMemory.create({ ramBytes: 2 ** 21, controlBytes: 2 ** 20 });
  const { base: word } = own.allocRegion(layout('word', 1, { word: u32(), rest: raw(60) }), 'word');
  const { machine } = target;
  const unit = machine.memory.region(UnitLayout, 'unit:0').base;
  const iotlb = machine.memory.region(iotlbLayout(machine.config.iommus[0]!.iotlbEntries), 'iotlb:0').base;
  let seen = 0;
  return {
    cases: [
      micro(MICRO_ROWS[0], scale, (i) => prepare(port, i & 63, FIRST_PAGE + i)),
      micro(MICRO_ROWS[1], scale, () => {
        seen += IoasMap.toBytes(struct).length;
      }),
      micro(MICRO_ROWS[2], scale, (i) =>
        encodeTlbiAddress(words, 0, CMD_TLBI_NH_VA, 0, 1, FIRST_PAGE + i, true),
      ),
      micro(MICRO_ROWS[3], scale, () => {
        seen += table.lookup(FIRST_PAGE);
      }),
      micro(MICRO_ROWS[4], scale, (i) => {
        seen += machine.kernel.iotlbProbe(unit, iotlb, 1, FILL_S1, FIRST_PAGE + i);
      }),
      micro(MICRO_ROWS[5], scale, () => {
        seen += own.words.load(word);
      }),
    ],
    close: () => {
      must(Number.isFinite(seen), 'what was computed was used');
      machine.close();
    },
  };
}
