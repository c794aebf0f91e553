/**
 * A device goes from one domain to another while it writes. Until the attach returns it may reach either domain's
 * page, or none; then the new one's alone, whatever an SMMU cached on the way.
 */
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { driverHost, STAGE_1, STAGE_2 } from './driver-host.js';
import { smallMachine } from './small-host.js';

const IOVA = 0x10000n;
const OLD = 1;
const NEW = 2;
/** Ghost word: the attach has returned. */
const ATTACHED = 0;
/** Accesses before the device waits for the attach to return. */
const EARLY = 2;

function replace(name: string, about: string, kind: number) {
  return machineScenario<{ ramBase: number; gate: number }>({
    name,
    about,
    checks: ['R4'],
    // A mixed image is walked, and what it gave is cached: under a tag of nobody's, or of the other table.
    means: { R1: 'R4', R6: 'R4' },
    machine: smallMachine(),
    core(ctx, machine, share) {
      const gate = Gate.make(ctx, machine);
      share({ ramBase: machine.memory.ram.basePa, gate: gate.at });
      const { domain, map, attach } = driverHost(ctx, machine);
      const from = domain(kind);
      const to = domain(kind);
      map(from, IOVA, OLD);
      map(to, IOVA, NEW);
      attach(0, from);
      return () => {
        attach(0, to);
        ctx.ghost[ATTACHED] = 1;
        gate.open();
      };
    },
    threads: {
      device(ctx, thread, { ramBase, gate }) {
        const owners = new PageOwners(ctx, ramBase);
        const device = new PageAccess(ctx, thread, 0);
        const landed = (pa: number): void => {
          const owner = owners.ownerOf(pa);
          const after = ctx.ghost[ATTACHED] === 1;
          ctx.check('R4', owner === NEW || (owner === OLD && !after), () =>
            after
              ? `after the attach a DMA lands in a page of ${owner}`
              : `a DMA lands in a page of ${owner}`,
          );
        };
        return () => {
          for (let i = 0; i < EARLY; i++) device.make(IOVA, WRITE, landed);
          new Gate(ctx, gate).pass();
          device.make(IOVA, WRITE, landed);
        };
      },
    },
  });
}

export const replaceStage1 = replace(
  'replace-stage-1',
  'a device writes while it is moved from one stage-1 domain to another: a CD is replaced',
  STAGE_1,
);

export const replaceStage2 = replace(
  'replace-stage-2',
  'a device writes while it is moved from one stage-2 domain to another: an STE is replaced',
  STAGE_2,
);
