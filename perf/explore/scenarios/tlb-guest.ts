/**
 * A guest takes a page out of its stage-1 table and invalidates it, on a thread of its own and past the core, while
 * the device writes there: when the invalidation is through the device is, too.
 */
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { type GuestUnmapping, prepareUnmapping, unmapInGuest } from './guest-unmapping.js';
import { smallGuest } from './small-guest.js';
import { smallHost, smallMachine } from './small-host.js';

const IOVA = 0n;
const MINE = 1;
const ACCESSES = 6;

interface Shared {
  readonly ramBase: number;
  readonly gate: number;
  readonly fdIndex: number;
  readonly unmapping: GuestUnmapping;
}

export const guestUnmap = machineScenario<Shared>({
  name: 'guest-unmap',
  about: 'a device writes to a page of a guest while the guest unmaps it by TLBI_NH_VA',
  checks: ['R1'],
  machine: smallMachine(),
  core(ctx, machine, share) {
    const host = smallHost(ctx, machine);
    const { fd, vfios, owners, warm } = host;
    const guest = smallGuest(host);
    vfios[0]!.attach(guest.nested(guest.cd));
    owners.give(guest.data, MINE);
    warm(0, IOVA);
    const unmapping = prepareUnmapping(machine, guest);
    share({
      ramBase: machine.memory.ram.basePa,
      gate: Gate.make(ctx, machine).at,
      fdIndex: fd.index,
      unmapping,
    });
    return () => undefined;
  },
  threads: {
    guest: (ctx, thread, shared) => unmapInGuest(ctx, thread, shared.unmapping, shared),
    device(ctx, thread, { ramBase, gate }) {
      const owners = new PageOwners(ctx, ramBase);
      const device = new PageAccess(ctx, thread, 0);
      const landed = (pa: number): void =>
        ctx.check(
          'R1',
          owners.ownerOf(pa) === MINE,
          () => 'a DMA lands in a page that the guest has unmapped',
        );
      return () => {
        for (let i = 0; i < ACCESSES; i++) if (device.make(IOVA, WRITE, landed) !== 0) return;
        new Gate(ctx, gate).pass();
        device.make(IOVA, WRITE, landed);
      };
    },
  },
});
