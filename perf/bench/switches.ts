/**
 * What a bug of the zoo costs that is off: a command is encoded with and without a switch beside it, in turn. Its code
 * is written twice, so that each loop is compiled for itself.
 */
import { NO_BUGS } from '../../hw/bugs/bug-switches.js';
import { CMD_TLBI_NH_VA, COMMAND_WORDS, encodeTlbiAddress } from '../../hw/smmuv3/command.js';
import type { SyncEnv } from '../../hw/sync/thread.js';
import { FIRST_PAGE } from './machines.js';
import { type Group, must, type Scale } from './rounds.js';

export const SWITCH_ROWS = ['a command encoded beside a bug switch that is off'] as const;

const COMMANDS = 400_000;

type Bugs = Pick<SyncEnv, 'bugs'>;

export function switches(scale: Scale): Group {
  const words = new Uint32Array(COMMAND_WORDS);
  const commands = Math.max(20_000, Math.floor(COMMANDS * scale.work));
  // As a machine has it without a zoo, and as an explorer has it: neither is to cost anything.
  const environments: readonly Bugs[] = [{ bugs: undefined }, { bugs: NO_BUGS }];
  let turn = 0;
  let wrong = 0;

  function without(): void {
    for (let i = 0; i < commands; i++)
      encodeTlbiAddress(words, 0, CMD_TLBI_NH_VA, 0, 1, FIRST_PAGE + i, true);
  }

  function beside(env: Bugs): void {
    for (let i = 0; i < commands; i++) {
      if (env.bugs?.['mutex-wakes-before-release'] === true) wrong++;
      encodeTlbiAddress(words, 0, CMD_TLBI_NH_VA, 0, 1, FIRST_PAGE + i, true);
    }
  }

  const nsEach = (work: () => void): number => {
    const startedMs = performance.now();
    work();
    return ((performance.now() - startedMs) * 1e6) / commands;
  };

  return {
    cases: [
      {
        busyThreads: 1,
        figures: [
          {
            name: SWITCH_ROWS[0],
            unit: 'ns',
            goal: { kind: 'ratio', atLeast: 0.95, of: 'without the switch' },
          },
        ],
        round: () => {
          const env = environments[turn++ & 1]!;
          // Whoever goes second finds a warmer processor.
          const first = (turn & 2) === 0;
          const early = first ? nsEach(without) : 0;
          const ns = nsEach(() => beside(env));
          const plain = first ? early : nsEach(without);
          must(wrong === 0, 'no bug is on');
          return { values: [ns], ratios: [plain / ns] };
        },
      },
    ],
    close: () => undefined,
  };
}
