/**
 * Whether a map and unmap cost more the more mappings are alive: from a thousand to four million. In a ring of
 * random places, as a driver uses its addresses again and again, it is the algorithm that costs; at places that
 * nobody has been to before, it is the memory that the tree lies in.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Group, must, repetitions, type Scale } from './rounds.js';

/** What live-mappings-once.ts prints, for each round: ns of a pair, in a ring of pages and anywhere. */
export interface LiveRound {
  readonly few: LiveCost;
  readonly many: LiveCost;
}

export interface LiveCost {
  readonly ringNs: number;
  readonly anywhereNs: number;
}

const FEW = 1024;
const MANY = 4 * 2 ** 20;
const PAIRS = 2000;
const HEAP_MIB = 8192;

export const LIVE_MAPPINGS_ROWS = [
  'IOAS_MAP + IOAS_UNMAP of 4 KiB, 1 k -> 4 M live mappings, a ring of 256',
  'IOAS_MAP + IOAS_UNMAP of 4 KiB, 1 k -> 4 M live mappings, anywhere',
] as const;

export function liveMappings(scale: Scale): Group {
  const script = fileURLToPath(new URL('./live-mappings-once.js', import.meta.url));
  // The tests' share of the work is far below any that is measured.
  const many = scale.work >= 0.1 ? MANY : 2 * FEW;
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
  const goal = { kind: 'ratio', atLeast: Math.log2(FEW) / Math.log2(many), of: 'log n of 1 k' } as const;
  return {
    cases: [
      {
        figures: LIVE_MAPPINGS_ROWS.map((name) => ({ name, unit: 'ns', goal })),
        round: () => {
          rounds ??= measured();
          const { few, many: much } = rounds[next++ % rounds.length]!;
          return {
            values: [much.ringNs, much.anywhereNs],
            ratios: [few.ringNs / much.ringNs, few.anywhereNs / much.anywhereNs],
          };
        },
      },
    ],
    startsProcesses: true,
    close: () => undefined,
  };
}
