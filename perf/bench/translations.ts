/**
 * Translations a second, of one device on this thread, in batches of 64, without a data phase.
 *
 *   micro-TLB   64 pages again and again
 *   IOTLB       1024 pages in turn, so that every one has left the micro-TLB when it comes round
 *   in place    32 pairs of pages that displace each other in the micro-TLB: no slot is ever written again
 *   miss        16384 pages in random order, eight times what the IOTLB holds; the SMMU on a worker
 */
import { PORT_BATCH } from '../../hw/iotlb/port-layout.js';
import { startWorkers, type WorkerHost } from '../../workers/index.js';
import { Random } from '../stress/random.js';
import {
  FIRST_PAGE,
  guestTarget,
  hostTarget,
  leafLg2,
  type PortCount,
  portCount,
  prepare,
  type Target,
} from './machines.js';
import { type Case, type Group, must, repetitions, type Scale, timed } from './rounds.js';

const IOTLB_PAGES = 1024;
const MISS_PAGES = 16384;
const HIT_BATCHES = 4000;
/** Passes over all the pages. */
const MISS_PASSES = 4;
const SEED = 1;
/** Something may have been prefetched or left over; more than this, and it is another figure. */
const MOST = 0.98;

/** One batch after the other; where the pages change, their slots are written first. */
function translations(
  target: Target,
  what: string,
  comesFrom: PortCount,
  batches: number,
  pages: readonly number[],
  busyThreads: number,
): Case {
  const { port } = target;
  const order = Uint32Array.from(pages, (page) => FIRST_PAGE + page);
  const fixed = order.length === PORT_BATCH;
  const n = batches * PORT_BATCH;
  const run = (): void => {
    for (let batch = 0, at = 0; batch < batches; batch++) {
      if (!fixed) {
        for (let slot = 0; slot < PORT_BATCH; slot++) prepare(port, slot, order[at + slot]!);
        at = (at + PORT_BATCH) % order.length;
      }
      port.translate(PORT_BATCH);
      port.end();
    }
  };
  return {
    busyThreads,
    figures: [
      { name: what, unit: 'ns' },
      { name: what, unit: 'M/s' },
    ],
    round: () => {
      for (let slot = 0; slot < PORT_BATCH; slot++) prepare(port, slot, order[slot]!);
      const before = portCount(target, comesFrom);
      const ms = timed(run);
      const came = (portCount(target, comesFrom) - before) >>> 0;
      must(came >= n * MOST || batches < 64, `${what}: ${came} of ${n} were ${comesFrom}`);
      return [(ms * 1e6) / n, n / ms / 1e3];
    },
  };
}

const sequence = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

export function hits(scale: Scale): Group {
  const target = hostTarget(IOTLB_PAGES);
  for (let page = 0; page < IOTLB_PAGES; page++)
    must(leafLg2(target, FIRST_PAGE + page) === 12, 'a 4 KiB page behind every address');
  const batches = repetitions(HIT_BATCHES, scale);
  const pairs = sequence(PORT_BATCH).map((i) => (i % 32) + Math.floor(i / 32) * 64);
  return {
    cases: [
      translations(target, 'hit, micro-TLB, stage 1', 'hitsMicro', batches, sequence(PORT_BATCH), 1),
      translations(target, 'hit, IOTLB, stage 1, slots in place', 'hitsIotlb', batches, pairs, 1),
      translations(
        target,
        'hit, IOTLB, stage 1, 1024 pages, slots written',
        'hitsIotlb',
        batches,
        sequence(IOTLB_PAGES),
        1,
      ),
    ],
    close: () => target.machine.close(),
  };
}

export async function misses(scale: Scale): Promise<Group> {
  const random = new Random(SEED);
  const shuffled = sequence(MISS_PAGES);
  for (let i = MISS_PAGES - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [shuffled[i], shuffled[j]] = [shuffled[j]!, shuffled[i]!];
  }
  const batches = repetitions((MISS_PASSES * MISS_PAGES) / PORT_BATCH, scale);
  const targets = { 'stage 1': hostTarget(MISS_PAGES), nested: guestTarget(MISS_PAGES) };
  const hosts: WorkerHost[] = [];
  for (const { machine } of Object.values(targets)) hosts.push(await startWorkers(machine));
  return {
    cases: Object.entries(targets).map(([stages, target]) => {
      must(leafLg2(target, FIRST_PAGE) === 12, 'a 4 KiB page');
      return translations(
        target,
        `miss, ${stages}, 64 outstanding, SMMU on a worker`,
        'misses',
        batches,
        shuffled,
        2,
      );
    }),
    close: async () => {
      for (const host of hosts) await host.stop();
      for (const { machine } of Object.values(targets)) machine.close();
    },
  };
}
