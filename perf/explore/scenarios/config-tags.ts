/** A device leaves a domain, whose ID is the next that another domain gets: by then nothing cached may carry it. */
import { machineScenario } from '../machine-scenario.js';
import { watchTags } from '../monitors/tag-reuse.js';
import { driverHost, STAGE_1, STAGE_2 } from './driver-host.js';
import { BDFS, smallMachine } from './small-host.js';

const IOVA = 0x10000n;
const MINE = 1;

function reuse(name: string, about: string, kind: number) {
  return machineScenario({
    name,
    about,
    checks: ['R6'],
    machine: smallMachine(),
    instrument: watchTags,
    core(ctx, machine) {
      const { domain, map, attach } = driverHost(ctx, machine);
      const first = domain(kind);
      const second = domain(kind);
      map(first, IOVA, MINE);
      attach(0, first);
      machine.dmaPort(BDFS[0]).write(IOVA, new Uint8Array(4));
      return () => {
        attach(0, null);
        attach(0, second);
      };
    },
  });
}

export const asidReuse = reuse('asid-reuse', 'an ASID is freed and given out again', STAGE_1);
export const vmidReuse = reuse('vmid-reuse', 'a VMID is freed and given out again', STAGE_2);
