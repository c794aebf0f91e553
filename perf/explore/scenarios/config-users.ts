/**
 * R5, while a device is attached: from the moment at which it can use a domain's table until it cannot, an unmap would
 * tell its SMMU. The ghost is kept by wrapping the two calls that change the domain's array of invalidations.
 */
import { machineScenario } from '../machine-scenario.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { driverHost, STAGE_1 } from './driver-host.js';
import { smallMachine } from './small-host.js';

const IOVA = 0x10000n;
const MINE = 1;
/** Ghost words: the domain's users that it knows of; the core is through. */
const USERS = 0;
const DONE = 1;
const MAX_ACCESSES = 12;

export const attachAndDetach = machineScenario({
  name: 'attach-and-detach',
  about: 'a device writes while it is attached and detached: whenever it lands, the domain knows its SMMU',
  checks: ['R5'],
  machine: smallMachine(),
  core(ctx, machine) {
    const { domain, map, attach } = driverHost(ctx, machine);
    // Its STE is there, and aborts.
    attach(0, null);
    const used = domain(STAGE_1);
    map(used, IOVA, MINE);
    const add = used.addUser.bind(used);
    used.addUser = (...args) => {
      add(...args);
      ctx.ghost[USERS] = used.invs.length;
    };
    const remove = used.removeUser.bind(used);
    used.removeUser = (...args) => {
      const status = remove(...args);
      ctx.ghost[USERS] = used.invs.length;
      return status;
    };
    return () => {
      attach(0, used);
      attach(0, null);
      ctx.ghost[DONE] = 1;
    };
  },
  threads: {
    device(ctx, thread) {
      const device = new PageAccess(ctx, thread, 0);
      const landed = (): void =>
        ctx.check(
          'R5',
          ctx.ghost[USERS]! > 0,
          () => 'a DMA goes through a table whose changes nobody is told of',
        );
      return () => {
        for (let i = 0; i < MAX_ACCESSES && ctx.ghost[DONE] === 0; i++) device.make(IOVA, WRITE, landed);
      };
    },
  },
});
