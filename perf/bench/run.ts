/** Every section of the benchmark, one after the other, each on machines of its own. */
import { availableParallelism } from 'node:os';
import { Kernel } from '../../hw/kernel/kernel.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import { type Compiled, compileBaseline } from './baseline.js';
import { CLIENT_ROWS, clients } from './clients.js';
import { EXPLORE_ROWS, explore } from './explore.js';
import type { Figure } from './figures.js';
import { IDLE_ROWS, idle } from './idle.js';
import { INVALIDATION_ROWS, invalidations } from './invalidations.js';
import { LIVE_MAPPINGS_ROWS, liveMappings } from './live-mappings.js';
import { MANY_SMMUS_ROWS, manySmmus } from './many-smmus.js';
import { LARGE_MAPPING_ROWS, largeMappings, SMALL_MAPPING_ROWS, smallMappings } from './mappings.js';
import { MICRO_ROWS, micros } from './micro.js';
import { PAGE_TABLE_ROWS, pageTables } from './page-tables.js';
import { FULL, type Group, QUICK, runRounds, type Scale } from './rounds.js';
import { type BenchResult, rowOf } from './row.js';
import { START_UP_ROWS, startUp } from './start-up.js';
import { SWITCH_ROWS, switches } from './switches.js';
import { HIT_ROWS, hits, MISS_ROWS, misses } from './translations.js';
import { TWO_THREADS_ROWS, twoThreads } from './two-threads.js';
import { coldWalks, hotWalks, WALK_ROWS } from './walks.js';
import type { Yardstick } from './yardstick.js';

export interface BenchOptions {
  /** Few and short rounds: for a look, not for a record. */
  readonly quick: boolean;
  /** Only rows whose name has this, whatever the case; '' for all. */
  readonly filter: string;
}

export interface Section {
  readonly name: string;
  /** What the rows will be called. */
  readonly rows: readonly string[];
  /** Rounds relative to the usual. */
  readonly rounds: number;
  readonly warmUp?: number;
  set(scale: Scale, yardstick: Yardstick): Group | Promise<Group>;
}

/** Rounds of what takes seconds. */
const SLOW = 0.25;

export const SECTIONS: readonly Section[] = [
  { name: 'hits', rows: HIT_ROWS, rounds: 1, set: hits },
  { name: 'two threads', rows: TWO_THREADS_ROWS, rounds: 1, warmUp: 2, set: twoThreads },
  { name: 'hot walks', rows: WALK_ROWS.slice(0, 2), rounds: 1, set: hotWalks },
  { name: 'cold walks', rows: WALK_ROWS.slice(2), rounds: 1, warmUp: 2, set: coldWalks },
  { name: 'page tables', rows: PAGE_TABLE_ROWS, rounds: 1, set: pageTables },
  { name: 'misses', rows: MISS_ROWS, rounds: 1, set: misses },
  { name: 'invalidations', rows: INVALIDATION_ROWS, rounds: 1, set: invalidations },
  { name: 'small mappings', rows: SMALL_MAPPING_ROWS, rounds: 1, set: smallMappings },
  { name: 'large mappings', rows: LARGE_MAPPING_ROWS, rounds: SLOW, set: largeMappings },
  { name: 'many SMMUs', rows: MANY_SMMUS_ROWS, rounds: 1, set: manySmmus },
  { name: 'live mappings', rows: LIVE_MAPPINGS_ROWS, rounds: SLOW, warmUp: 0, set: liveMappings },
  { name: 'clients', rows: CLIENT_ROWS, rounds: 0.5, warmUp: 2, set: clients },
  { name: 'explore', rows: EXPLORE_ROWS, rounds: 1, warmUp: 6, set: explore },
  { name: 'start-up', rows: START_UP_ROWS, rounds: SLOW, warmUp: 1, set: startUp },
  { name: 'idle', rows: IDLE_ROWS, rounds: 0.125, warmUp: 0, set: idle },
  { name: 'micro', rows: MICRO_ROWS, rounds: SLOW, warmUp: 1, set: micros },
  { name: 'bug switches', rows: SWITCH_ROWS, rounds: 1, set: switches },
];

export const matches = (name: string, filter: string): boolean =>
  name.toLowerCase().includes(filter.toLowerCase());

export interface BenchRun {
  readonly figures: readonly Figure[];
  readonly result: BenchResult;
  /** Why nothing is compared with C; null when it is. */
  readonly noC: string | null;
}

/**
 * @param say     a line about what is under way
 * @param signal  ends after the round under way, with the figures there are
 */
export async function runBench(
  { quick, filter }: BenchOptions,
  say: (text: string) => void,
  signal: AbortSignal,
): Promise<BenchRun> {
  let compiled: Compiled | string | undefined;
  const yardstick: Yardstick = () => {
    compiled ??= compileBaseline(Kernel.load(MachineMemory.create({ ramBytes: 2 ** 21 })));
    return compiled;
  };
  const figures: Figure[] = [];
  try {
    for (const { name, rows, rounds, warmUp, set } of SECTIONS) {
      if (signal.aborted) break;
      if (!rows.some((row) => matches(row, filter))) continue;
      say(name);
      const usual = quick ? QUICK : FULL;
      const scale: Scale = {
        rounds: Math.max(3, Math.round(usual.rounds * rounds)),
        warmUp: warmUp ?? usual.warmUp,
        work: usual.work,
      };
      const group = await set(scale, yardstick);
      try {
        const wanted = group.cases.filter((each) =>
          each.figures.some((figure) => matches(figure.name, filter)),
        );
        const all = await runRounds({ ...group, cases: wanted }, scale, signal);
        figures.push(...all.filter((figure) => matches(figure.name, filter)));
      } finally {
        await group.close();
      }
    }
  } finally {
    if (typeof compiled === 'object') compiled.remove();
  }
  return {
    figures,
    result: { rows: figures.map(rowOf), node: process.version, cores: availableParallelism() },
    noC: typeof compiled === 'string' ? compiled : null,
  };
}
