/**
 * One stage 2 under two SMMUs: a guest's device translates through it behind the first, a device that is on it
 * directly behind the second. The guest invalidates on its own thread while the core takes a page out of the stage 2.
 *
 *   device0  IOVA 0      --stage 1--> DATA_PAGE       guest    leaf 0 away . TLBI_NH_VA . SYNC
 *            IOVA 0x1000 --stage 1--> GPA BEHIND      core     unmap BEHIND from the parent, its frame is free
 *   device1  GPA BEHIND
 */
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { type GuestUnmapping, prepareUnmapping, unmapInGuest } from './guest-unmapping.js';
import { LEAF, smallGuest } from './small-guest.js';
import { PAGE, PAGE_BYTES, smallHost } from './small-host.js';
import { twoSmmus } from './two-devices.js';

const BEHIND = 0x10000n;
const MINE = 1;
const ACCESSES = 2;

interface Shared {
  readonly ramBase: number;
  readonly gates: { readonly guest: number; readonly core: number };
  readonly fdIndex: number;
  readonly unmapping: GuestUnmapping;
}

export const unmapBelowGuest = machineScenario<Shared>({
  name: 'unmap-below-guest',
  about: 'a guest invalidates behind one SMMU while the stage 2 that two share loses a page',
  checks: ['R1', 'R7'],
  machine: twoSmmus(),
  core(ctx, machine, share) {
    const host = smallHost(ctx, machine);
    const { fd, ioasId, vfios, owners, map, warm } = host;
    const guest = smallGuest(host);
    const { userVa } = map(BEHIND, MINE);
    machine.memory.words.store64(guest.leaf + 8, BEHIND | LEAF);
    vfios[0]!.attach(guest.nested(guest.cd));
    vfios[1]!.attach(guest.parent);
    owners.give(guest.data, MINE);
    warm(0, 0n);
    warm(0, PAGE);
    warm(1, BEHIND);
    machine.user.free(userVa, PAGE_BYTES);
    const unmapping = prepareUnmapping(machine, guest);
    const gate = Gate.make(ctx, machine);
    share({
      ramBase: machine.memory.ram.basePa,
      gates: { guest: Gate.make(ctx, machine).at, core: gate.at },
      fdIndex: fd.index,
      unmapping,
    });
    return () => {
      fd.ioasUnmap({ ioasId, iova: BEHIND, length: PAGE });
      gate.open();
    };
  },
  threads: {
    guest: (ctx, thread, { ramBase, fdIndex, gates, unmapping }) =>
      unmapInGuest(ctx, thread, unmapping, { ramBase, fdIndex, gate: gates.guest }),
    device0(ctx, thread, { ramBase, gates }) {
      const owners = new PageOwners(ctx, ramBase);
      const device = new PageAccess(ctx, thread, 0);
      const of = (invariant: string, whose: string) => (pa: number) =>
        ctx.check(
          invariant,
          owners.ownerOf(pa) === MINE,
          () => `a DMA lands in a page that ${whose} unmapped`,
        );
      const guests = of('R1', 'the guest has');
      const hosts = of('R7', 'the host has');
      return () => {
        for (let i = 0; i < ACCESSES; i++) {
          device.make(0n, WRITE, guests);
          device.make(PAGE, WRITE, hosts);
        }
        new Gate(ctx, gates.guest).pass();
        device.make(0n, WRITE, guests);
        new Gate(ctx, gates.core).pass();
        device.make(PAGE, WRITE, hosts);
      };
    },
    device1(ctx, thread, { ramBase, gates }) {
      const owners = new PageOwners(ctx, ramBase);
      const device = new PageAccess(ctx, thread, 1);
      const landed = (pa: number): void =>
        ctx.check(
          'R7',
          owners.ownerOf(pa) === MINE,
          () => 'a DMA lands in a page that the host has unmapped',
        );
      return () => {
        for (let i = 0; i < ACCESSES; i++) if (device.make(BEHIND, WRITE, landed) !== 0) return;
        new Gate(ctx, gates.core).pass();
        device.make(BEHIND, WRITE, landed);
      };
    },
  },
});
