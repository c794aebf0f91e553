/** Memory of an idle SMMU with its worker: what a process with 17 of them has more than one with a single one. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Group, must, type Scale } from './rounds.js';

const MORE = 16;

export const IDLE_ROWS = ['resident memory of an idle SMMU'] as const;

export function idle(scale: Scale): Group {
  const more = scale.work < 0.1 ? 1 : MORE;
  const script = fileURLToPath(new URL('./idle-once.js', import.meta.url));
  const residentMib = (smmus: number): number => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [script, String(smmus)], {
      encoding: 'utf8',
    });
    must(status === 0, `idle: ${stderr}`);
    return Number(stdout);
  };
  return {
    cases: [
      {
        figures: [{ name: IDLE_ROWS[0], unit: 'MiB', goal: { kind: 'at-most', value: 12 } }],
        round: () => ({ values: [(residentMib(1 + more) - residentMib(1)) / more] }),
      },
    ],
    startsProcesses: true,
    close: () => undefined,
  };
}
