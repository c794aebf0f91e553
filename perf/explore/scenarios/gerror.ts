/**
 * The core puts a command on the queue that no SMMU knows, while a guest invalidates on its own thread: the queue stops
 * at it, one of the two serves the error, and what waits behind it is carried out.
 */
import { machineScenario } from '../machine-scenario.js';
import { CommandStream } from '../monitors/command-stream.js';
import { cfgiCd, invalidation, makeGuest, SMALL } from './object-guest.js';

const VSID = 5;
const MARK = 3;
const ILLEGAL = 0xff;
const TIMES = 2;

export const gerrorBesideGuest = machineScenario<{ fdIndex: number; bytes: readonly number[] }>({
  name: 'gerror-beside-guest',
  about: 'a command is refused while a guest invalidates: every invalidation is carried out all the same',
  checks: ['R19'],
  machine: SMALL,
  unmonitored: { 'command errors': 'one is what it is about' },
  core(ctx, machine, share) {
    const { fd, devIds, viommuId } = makeGuest(machine);
    fd.vdeviceAlloc({ viommuId, devId: devIds[0]!, virtId: VSID });
    const { smmu } = machine.iommus[0]!.instance;
    share({ fdIndex: fd.index, bytes: [...invalidation(machine, viommuId, [cfgiCd(VSID, MARK)])] });
    const stream = new CommandStream(machine.memory);
    return {
      run() {
        for (let i = 0; i < TIMES; i++) {
          const status = smmu.issueSync((words, at) => {
            words.fill(0, at, at + 4);
            words[at] = ILLEGAL;
          });
          ctx.check('R19', status === 0, () => `the SYNC behind a refused command ends in ${status}`);
          machine.poll();
        }
      },
      check() {
        machine.poll();
        const carried = stream.commands().filter(({ words }) => words[0]! >>> 12 === MARK).length;
        ctx.check('R19', carried === TIMES, () => `${carried} invalidations of ${TIMES} went to the queue`);
      },
    };
  },
  threads: {
    guest(ctx, thread, { fdIndex, bytes }) {
      const shared = thread.shared(fdIndex);
      return () => {
        for (let i = 0; i < TIMES; i++) {
          const status = shared.hwptInvalidate(Uint8Array.from(bytes));
          ctx.check('R19', status === 0, () => `an invalidation ends in ${status}`);
        }
      };
    },
  },
});
