/** Two devices behind one SMMU, each on a pinned thread, against one of them alone: hits share nothing they write. */
import { availableParallelism } from 'node:os';
import { PORT_BATCH } from '../../hw/iotlb/port-layout.js';
import { Crew } from './crew.js';
import { FIRST_PAGE, pairOfDevices, prepare } from './machines.js';
import { type Group, must, type Scale } from './rounds.js';

const WORK_MS = 20;

export const TWO_THREADS_ROWS = ['hit, two pinned threads against one'] as const;

export async function twoThreads(scale: Scale): Promise<Group> {
  const { machine, ports } = pairOfDevices(PORT_BATCH);
  for (const port of ports) {
    for (let slot = 0; slot < PORT_BATCH; slot++) prepare(port, slot, FIRST_PAGE + slot);
    port.translate(PORT_BATCH);
    must(port.status(PORT_BATCH - 1) === 0, 'every page is mapped');
    port.end();
  }
  const crew = await Crew.start(machine.handle(), [0, 1], PORT_BATCH);
  const ms = Math.max(1, WORK_MS * Math.min(1, 2 * scale.work));
  const enough = availableParallelism() >= 2;
  return {
    cases: [
      {
        figures: [
          {
            name: TWO_THREADS_ROWS[0],
            unit: 'M/s',
            goal: { kind: 'ratio', atLeast: 1.9, of: 'one thread' },
            ...(enough ? {} : { noRatio: 'one processor' }),
          },
        ],
        round: async () => {
          const [one] = await crew.work(1, ms);
          const two = await crew.work(2, ms);
          const rate = ({ translations, ms: took }: { translations: number; ms: number }) =>
            translations / took / 1e3;
          const both = two.reduce((sum, report) => sum + rate(report), 0);
          return {
            values: [both],
            ratios: [enough ? both / rate(one!) : null],
            share: Math.min(one!.share, ...two.map(({ share }) => share)),
          };
        },
      },
    ],
    close: async () => {
      await crew.stop();
      machine.close();
    },
  };
}
