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

export function startUp(): Group {
  const script = fileURLToPath(new URL('./start-up-once.js', import.meta.url));
  return {
    cases: [
      {
        figures: [
          { name: 'start-up, 4 SMMUs: createMachine', unit: 'ms' },
          { name: 'start-up, 4 SMMUs: startWorkers', unit: 'ms' },
          { name: 'start-up, 4 SMMUs: attach and first DMA of 4 devices', unit: 'ms' },
          { name: 'start-up, 4 SMMUs: all, from the start of the process', unit: 'ms' },
        ],
        round: () => {
          const { status, stdout, stderr } = spawnSync(process.execPath, [script], { encoding: 'utf8' });
          must(status === 0, `start-up: ${stderr}`);
          const { create, workers, firstDma, process: all } = JSON.parse(stdout) as StartUpTimes;
          return [create, workers, firstDma, all];
        },
      },
    ],
    close: () => undefined,
  };
}
