/**
 * Translations of one device on this thread, in batches of 64, without a data phase.
 *
 *   micro-TLB   64 pages again and again
 *   in place    32 pairs of pages that displace each other in the micro-TLB: the IOTLB, no slot ever written again
 *   IOTLB       1024 pages in turn, so that every one has left the micro-TLB when it comes round
 *   miss        16384 pages in random order, eight times what the IOTLB holds; the SMMU on a worker
 */
import { PORT_BATCH, PortLayout } from '../../hw/iotlb/port-layout.js';
import { startWorkers, type WorkerHost } from '../../workers/index.js';
import { Random } from '../stress/random.js';
import type { FigureName } from './figures.js';
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
import { type Case, type Group, must, repetitions, type Scale, timed, watched } from './rounds.js';
import { answersHash, comparedFigure, comparedRound, onImage, type Yardstick } from './yardstick.js';

const IOTLB_PAGES = 1024;
const MISS_PAGES = 16384;
const HIT_BATCHES = 8000;
/** Passes over all the pages. */
const MISS_PASSES = 16;
const SEED = 1;
/** Something may have been prefetched or left over; more than this, and it is another figure. */
const MOST = 0.98;

export const HIT_ROWS = [
  'hit, micro-TLB, batch of 64',
  'hit, IOTLB, batch of 64, slots in place',
  'hit, IOTLB, 1024 pages, slots written',
] as const;
export const MISS_ROWS = [
  'miss through the pIOMMU worker, stage 1, 64 outstanding',
  'miss through the pIOMMU worker, nested, 64 outstanding',
] as const;

/** Batches one after the other; where the pages change, their slots are written first. */
function batchesOf(target: Target, comesFrom: PortCount, pages: readonly number[], batches: number) {
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
  /** @returns ns per translation, as `time` took it */
  return (time: (run: () => void) => number): number => {
    for (let slot = 0; slot < PORT_BATCH; slot++) prepare(port, slot, order[slot]!);
    const before = portCount(target, comesFrom);
    const ms = time(run);
    const came = (portCount(target, comesFrom) - before) >>> 0;
    must(came >= n * MOST || batches < 64, `${came} of ${n} were ${comesFrom}`);
    return (ms * 1e6) / n;
  };
}

const sequence = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

export async function hits(scale: Scale, yardstick: Yardstick): Promise<Group> {
  const target = hostTarget(IOTLB_PAGES);
  const { memory } = target.machine;
  for (let page = 0; page < IOTLB_PAGES; page++)
    must(leafLg2(target, FIRST_PAGE + page) === 12, 'a 4 KiB page behind every address');
  const batches = repetitions(HIT_BATCHES, scale);
  const c = await onImage(yardstick, memory);
  const port = memory.region(PortLayout, 'port:0').base;
  const pairs = sequence(PORT_BATCH).map((i) => (i % 32) + Math.floor(i / 32) * 64);
  const compared = async (name: string, from: PortCount, pages: readonly number[]): Promise<Case> => {
    const run = batchesOf(target, from, pages, batches);
    const slots = pages.map((page) => FIRST_PAGE + page);
    if (c !== null) {
      await c.ask('slots', port, target.port.streamId, ...slots);
      await c.ask('hits', port, 2);
      batchesOf(target, from, pages, 2)(timed);
      const { hash } = await c.ask('answers', port + PortLayout.at.batch, PORT_BATCH);
      const ours = answersHash(memory, port + PortLayout.at.batch, PORT_BATCH);
      must(hash === ours, `${name}: C answers otherwise`);
    }
    return {
      figures: [comparedFigure(name, yardstick, 0.6)],
      round: async () => {
        let theirs = null;
        if (c !== null) {
          await c.ask('slots', port, target.port.streamId, ...slots);
          theirs = await c.ask('hits', port, batches);
          must(theirs.done === batches * PORT_BATCH, `${name}: every slot hits in C`);
        }
        let share = 1;
        const ns = run((work) => {
          const { ms, share: had } = watched(work);
          share = had;
          return ms;
        });
        return comparedRound([{ ns, field: 'ns' }], share, theirs);
      },
    };
  };
  const written = batchesOf(target, 'hitsIotlb', sequence(IOTLB_PAGES), batches);
  return {
    cases: [
      await compared(HIT_ROWS[0], 'hitsMicro', sequence(PORT_BATCH)),
      await compared(HIT_ROWS[1], 'hitsIotlb', pairs),
      {
        busyThreads: 1,
        figures: [{ name: HIT_ROWS[2], unit: 'ns' }],
        round: () => ({ values: [written(timed)] }),
      },
    ],
    close: async () => {
      await c?.stop();
      target.machine.close();
    },
  };
}

/** Pages in an order that no cache of ours can guess. */
export function shuffledPages(pages: number): number[] {
  const random = new Random(SEED);
  const shuffled = sequence(pages);
  for (let i = pages - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [shuffled[i], shuffled[j]] = [shuffled[j]!, shuffled[i]!];
  }
  return shuffled;
}

export async function misses(scale: Scale): Promise<Group> {
  const pages = shuffledPages(MISS_PAGES);
  const batches = repetitions((MISS_PASSES * MISS_PAGES) / PORT_BATCH, scale);
  const targets = [hostTarget(MISS_PAGES), guestTarget(MISS_PAGES)] as const;
  const hosts: WorkerHost[] = [];
  for (const { machine } of targets) hosts.push(await startWorkers(machine));
  const figures: readonly FigureName[] = [
    { name: MISS_ROWS[0], unit: 'M/s' },
    { name: MISS_ROWS[1], unit: 'M/s', goal: { kind: 'at-least', value: 5 } },
  ];
  return {
    cases: targets.map((target, i): Case => {
      must(leafLg2(target, FIRST_PAGE) === 12, 'a 4 KiB page');
      const run = batchesOf(target, 'misses', pages, batches);
      return { busyThreads: 2, figures: [figures[i]!], round: () => ({ values: [1e3 / run(timed)] }) };
    }),
    close: async () => {
      for (const host of hosts) await host.stop();
      for (const { machine } of targets) machine.close();
    },
  };
}
