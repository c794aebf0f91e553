/** From nothing to the first DMA on four SMMUs with workers, each time in a process of its own. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Group, must } from './rounds.js';

/** Milliseconds. */
export interface StartUpTimes {
  readonly create: number;
  readonly workers: number;
  /** Attaching four devices, and one DMA of each. */
  readonly firstDma: number;
  /** All of it, Node's own start and the loading of modules included. */
  readonly process: number;
}

export const START_UP_ROWS = [
  'start-up, 4 SMMUs: createMachine',
  'start-up, 4 SMMUs: startWorkers',
  'start-up, 4 SMMUs: attach and first DMA of 4 devices',
  'start to first DMA, 4 SMMUs, from the start of the process',
] as const;

export function startUp(): Group {
  const script = fileURLToPath(new URL('./start-up-once.js', import.meta.url));
  return {
    cases: [
      {
        figures: [
          { name: START_UP_ROWS[0], unit: 'ms' },
          { name: START_UP_ROWS[1], unit: 'ms' },
          { name: START_UP_ROWS[2], unit: 'ms' },
          { name: START_UP_ROWS[3], unit: 'ms', goal: { kind: 'at-most', value: 700 } },
        ],
        round: () => {
          const { status, stdout, stderr } = spawnSync(process.execPath, [script], { encoding: 'utf8' });
          must(status === 0, `start-up: ${stderr}`);
          const { create, workers, firstDma, process: all } = JSON.parse(stdout) as StartUpTimes;
          return { values: [create, workers, firstDma, all] };
        },
      },
    ],
    startsProcesses: true,
    close: () => undefined,
  };
}
