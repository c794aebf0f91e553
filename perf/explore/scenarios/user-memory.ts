/**
 * A guest's thread copies commands out of user memory while the core maps and unmaps other memory beside it. The copy
 * is whole, and the thread sleeps while the core is in the middle of a change.
 */
import { machineScenario } from '../machine-scenario.js';
import { PAGE_BYTES, smallMachine } from './small-host.js';

const COPIES = 3;
const MARK = 0x5a;

export const copyDuringFree = machineScenario<string>({
  name: 'copy-during-free',
  about: 'a thread copies from user memory while the core frees and allocates beside it',
  checks: ['R14'],
  machine: smallMachine(),
  core(_ctx, { user }, share) {
    const before = user.alloc(PAGE_BYTES);
    const mine = user.alloc(PAGE_BYTES);
    user.copyOut(mine, new Uint8Array(PAGE_BYTES).fill(MARK));
    share(`${mine}`);
    return () => {
      user.free(before, PAGE_BYTES);
      user.alloc(PAGE_BYTES);
    };
  },
  threads: {
    guest(ctx, { user }, mine) {
      const bytes = new Uint8Array(16);
      return () => {
        for (let i = 0; i < COPIES; i++) {
          const status = user.copyIn(BigInt(mine), bytes.fill(0));
          ctx.check('R14', status === 0 && bytes.every((byte) => byte === MARK), () =>
            status === 0 ? 'what was copied is not what is there' : `the copy ended in ${status}`,
          );
        }
      };
    },
  },
});
