/**
 * Whether a machine with 64 SMMUs costs more per operation than one with a single SMMU. The same work is dealt
 * out in bursts, one SMMU after the other, and both machines take turns within a round. A burst is long enough
 * that waking a worker, which sleeps while others have their turn, is a small part of it.
 */
import { PORT_BATCH } from '../../hw/iotlb/port-layout.js';
import type { DmaPort } from '../../hw/pci/dma-port.js';
import { createMachine, type Machine } from '../../runtime/machine.js';
import { startWorkers } from '../../workers/index.js';
import { FIRST_PAGE, mapPages, prepare } from './machines.js';
import { type Calls, calls } from './mappings.js';
import { type Case, type Group, must, repetitions, type Scale, timed } from './rounds.js';
import { shuffledPages } from './translations.js';

const FEW = 1;
const MANY = 64;
/** Cost on one SMMU over cost on 64: grows by no more than 15 %. */
const AT_LEAST = 1 / 1.15;
const PAGE = 4096;
const PAGES = 4096;
/** SMMUs that one round goes to; the next goes on from there. */
const TURNS = 8;
const FEWEST_TURNS = 2;
const HIT_BATCHES = 1500;
const MISS_BATCHES = 256;
const PAIRS = 400;
/** Bursts on each SMMU until its thread runs compiled code. */
const WARM_BURSTS = 10;
const WINDOW_IOVA = 0x1000_0000n;

export const MANY_SMMUS_ROWS = [
  `hit, ${FEW} -> ${MANY} SMMUs`,
  `miss through the worker, ${FEW} -> ${MANY} SMMUs`,
  `IOAS_MAP + IOAS_UNMAP of 4 KiB, ${FEW} -> ${MANY} SMMUs`,
] as const;

interface Fleet {
  readonly machine: Machine;
  readonly ports: readonly DmaPort[];
  /** A domain of its own behind each SMMU. */
  readonly windows: readonly Calls[];
  close(): Promise<void>;
}

async function fleet(smmus: number): Promise<Fleet> {
  const labels = Array.from({ length: smmus }, (_, i) => `device${i}`);
  const machine = createMachine({
    memory: '128MiB',
    iommus: labels.map((_, i) => ({ name: `smmu${i}`, model: 'smmuv3' as const })),
    devices: labels.map((name, i) => ({ name, iommu: `smmu${i}`, streamId: 1 })),
  });
  const fd = machine.openIommufd();
  const userVa = machine.user.alloc(PAGE);
  // One address space for the traffic of all; one more for each device would not fit 64 times.
  const windows = labels.map((label) => {
    const { ioasId } = fd.ioasAlloc();
    const vfio = machine.openVfio(label);
    vfio.bindIommufd(fd);
    vfio.attach(ioasId);
    mapPages(machine, fd, ioasId, PAGES);
    return calls({ fd, ioasId }, userVa, PAGE, WINDOW_IOVA);
  });
  const host = await startWorkers(machine, { startTimeoutMs: 60_000 });
  return {
    machine,
    ports: labels.map((label) => machine.dmaPort(label)),
    windows,
    close: async () => {
      await host.stop();
      machine.close();
    },
  };
}

/**
 * Bursts on the next SMMUs in turn.
 * @param before  what each of them needs first, not timed
 * @returns a function: ns per operation of one turn
 */
function turns(
  count: number,
  n: number,
  opsPerBurst: number,
  burst: (smmu: number) => void,
  before: (smmu: number) => void = () => undefined,
): () => number {
  // A round comes to few of 64: all memory is touched before, and each worker's own code is compiled.
  for (let i = 0; i < WARM_BURSTS * count; i++) {
    before(i % count);
    burst(i % count);
  }
  let next = 0;
  return () => {
    for (let i = 0; i < n; i++) before((next + i) % count);
    const ms = timed(() => {
      for (let i = 0; i < n; i++, next++) burst(next % count);
    });
    return (ms * 1e6) / (n * opsPerBurst);
  };
}

function grown(name: string, few: () => number, many: () => number): Case {
  return {
    busyThreads: 1,
    figures: [{ name, unit: 'ns', goal: { kind: 'ratio', atLeast: AT_LEAST, of: `${FEW} SMMU` } }],
    round: () => {
      const before = few();
      const after = many();
      return { values: [after], ratios: [before / after] };
    },
  };
}

export async function manySmmus(scale: Scale): Promise<Group> {
  const fleets = [await fleet(FEW), await fleet(MANY)] as const;
  // Fewer bursts for a quick run, not shorter ones: waking a worker is a part of each.
  const smmus = Math.max(FEWEST_TURNS, repetitions(TURNS, scale));
  const order = Uint32Array.from(shuffledPages(PAGES), (page) => FIRST_PAGE + page);
  const batchesOf = (n: number, fixed: boolean) =>
    fleets.map(({ ports }) =>
      turns(
        ports.length,
        smmus,
        n * PORT_BATCH,
        (smmu) => {
          const port = ports[smmu]!;
          for (let slot = 0; slot < PORT_BATCH; slot++) prepare(port, slot, order[slot]!);
          for (let batch = 0; batch < n; batch++) {
            if (!fixed)
              for (let slot = 0; slot < PORT_BATCH; slot++)
                prepare(port, slot, order[(batch * PORT_BATCH + slot) % PAGES]!);
            port.translate(PORT_BATCH);
            port.end();
          }
          must(port.status(PORT_BATCH - 1) === 0, 'every page is mapped');
        },
        (smmu) => {
          // The other rows' work has pushed these pages out: a hit is to be one.
          if (!fixed) return;
          const port = ports[smmu]!;
          for (let slot = 0; slot < PORT_BATCH; slot++) prepare(port, slot, order[slot]!);
          port.translate(PORT_BATCH);
          port.end();
        },
      ),
    ) as [() => number, () => number];
  const mappings = fleets.map(({ windows }) =>
    turns(windows.length, smmus, PAIRS, (smmu) => {
      const { map, unmap } = windows[smmu]!;
      let status = 0;
      for (let i = 0; i < PAIRS; i++) status |= map() | unmap();
      must(status === 0, `map and unmap gave ${status}`);
    }),
  ) as [() => number, () => number];
  return {
    cases: [
      grown(MANY_SMMUS_ROWS[0], ...batchesOf(HIT_BATCHES, true)),
      grown(MANY_SMMUS_ROWS[1], ...batchesOf(MISS_BATCHES, false)),
      grown(MANY_SMMUS_ROWS[2], ...mappings),
    ],
    close: async () => {
      for (const each of fleets) await each.close();
    },
  };
}
