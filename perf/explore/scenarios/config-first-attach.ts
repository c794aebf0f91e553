/**
 * The first attach of a range of StreamIDs, whose STEs are in frames that held what looks like an STE that lets
 * everything pass. A device that is there already finds no STE, one that aborts, or its own.
 */
import { machineScenario } from '../machine-scenario.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { driverHost, STAGE_2 } from './driver-host.js';
import { litter, PAGE_BYTES, smallMachine } from './small-host.js';

const CANARY = 1;
/** V, and Config = bypass. */
const BYPASS_STE = 0b1001n;
const MAX_ACCESSES = 30;
/** Ghost word: the attach has returned. */
const ATTACHED = 0;

export const firstAttach = machineScenario<{ ramBase: number; canary: number }>({
  name: 'first-attach',
  about: 'a device writes while a leaf of the stream table is made for it in frames that were used before',
  checks: ['R3'],
  // The last STE of its leaf.
  machine: smallMachine([{ bdf: '0000:01:1f.7' }]),
  stepLimit: 40_000,
  core(ctx, machine, share) {
    const { frames, memory } = machine;
    const canary = frames.alloc() * PAGE_BYTES;
    litter(machine, BYPASS_STE);
    share({ ramBase: memory.ram.basePa, canary });
    const { owners, domain, attach } = driverHost(ctx, machine);
    owners.give(canary, CANARY);
    const into = domain(STAGE_2);
    return () => {
      attach(0, into);
      ctx.ghost[ATTACHED] = 1;
    };
  },
  threads: {
    device(ctx, thread, { ramBase, canary }) {
      const owners = new PageOwners(ctx, ramBase);
      const device = new PageAccess(ctx, thread, 0);
      const landed = (pa: number): void =>
        ctx.check(
          'R3',
          owners.ownerOf(pa) !== CANARY,
          () => `a DMA passes untranslated to ${pa.toString(16)}`,
        );
      return () => {
        for (let i = 0; i < MAX_ACCESSES && ctx.ghost[ATTACHED] === 0; i++) {
          const status = device.make(BigInt(canary), WRITE, landed);
          ctx.check('R3', status !== 0, () => 'a DMA succeeds where nothing is mapped');
        }
      };
    },
  },
});
