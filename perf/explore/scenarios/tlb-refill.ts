/**
 * A set of the IOTLB that is full, and refilled by the walks of one device while another reads it: whatever a lookup
 * meets, it gives the page that was asked for.
 */
import { machineScenario } from '../machine-scenario.js';
import { PageAccess, READ } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { smallHost, smallMachine } from './small-host.js';

/** Pages of one set: 16 entries are 4 sets of 4 ways, and the low bits of the page number choose. */
const STRIDE = 0x4000n;
const WAYS = 4;
const iovaOf = (page: number): bigint => 0x10000n + BigInt(page) * STRIDE;

export const refillDuringLookup = machineScenario<{ ramBase: number }>({
  name: 'refill-during-lookup',
  about: 'a device reads pages whose IOTLB entries another device displaces',
  checks: ['R1'],
  machine: smallMachine([{}, {}]),
  core(ctx, machine, share) {
    share({ ramBase: machine.memory.ram.basePa });
    const { ioasId, vfios, map, warm } = smallHost(ctx, machine);
    for (let page = 0; page < 2 * WAYS; page++) map(iovaOf(page), page + 1);
    vfios[0]!.attach(ioasId);
    vfios[1]!.attach(ioasId);
    // Configurations of both, then the set.
    warm(1, iovaOf(2 * WAYS - 1));
    for (let page = 0; page < WAYS; page++) warm(0, iovaOf(page));
    return () => undefined;
  },
  threads: {
    reader(ctx, thread, { ramBase }) {
      const owners = new PageOwners(ctx, ramBase);
      const device = new PageAccess(ctx, thread, 1);
      return () => {
        for (let page = 0; page < WAYS; page++)
          device.make(iovaOf(page), READ, (pa) =>
            ctx.check(
              'R1',
              owners.ownerOf(pa) === page + 1,
              () => `a read of page ${page} goes to page ${owners.ownerOf(pa) - 1}`,
            ),
          );
      };
    },
    filler(ctx, thread) {
      const device = new PageAccess(ctx, thread, 0);
      return () => {
        for (let page = WAYS; page < 2 * WAYS; page++) device.make(iovaOf(page), READ, () => undefined);
      };
    },
  },
});
