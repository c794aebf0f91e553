/** Whether a map and unmap cost more the more mappings are alive: from a thousand to four million. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Group, must, repetitions, type Scale } from './rounds.js';

/** What live-mappings-once.ts prints, for each round. */
export interface LiveRound {
  readonly fewNs: number;
  readonly manyNs: number;
}

const FEW = 1024;
const MANY = 4 * 2 ** 20;
/** A run that is only to be quick stays where the heap is small. */
const QUICK_MANY = 2 ** 18;
const PAIRS = 2000;
const HEAP_MIB = 8192;

export const LIVE_MAPPINGS_ROWS = ['IOAS_MAP + IOAS_UNMAP of 4 KiB, 1 k -> 4 M live mappings'] as const;

export function liveMappings(scale: Scale): Group {
  const script = fileURLToPath(new URL('./live-mappings-once.js', import.meta.url));
  const many = scale.work >= 1 ? MANY : scale.work >= 0.1 ? QUICK_MANY : 2 * FEW;
  let rounds: LiveRound[] | undefined;
  let next = 0;
  /** All rounds of the one process that has the mappings, taken out one by one. */
  const measured = (): LiveRound[] => {
    const args = [FEW, many, 3 * scale.rounds, repetitions(PAIRS, scale)].map(String);
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [`--max-old-space-size=${HEAP_MIB}`, script, ...args],
      { encoding: 'utf8', maxBuffer: 2 ** 26 },
    );
    must(status === 0, `live mappings: ${stderr}`);
    return JSON.parse(stdout) as LiveRound[];
  };
  return {
    cases: [
      {
        figures: [
          {
            name: LIVE_MAPPINGS_ROWS[0],
            unit: 'ns',
            goal: { kind: 'ratio', atLeast: Math.log2(FEW) / Math.log2(many), of: 'log n of 1 k' },
          },
        ],
        round: () => {
          rounds ??= measured();
          const { fewNs, manyNs } = rounds[next++ % rounds.length]!;
          return { values: [manyNs], ratios: [fewNs / manyNs] };
        },
      },
    ],
    startsProcesses: true,
    close: () => undefined,
  };
}
