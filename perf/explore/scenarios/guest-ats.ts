/**
 * A device with an ATC under a guest: the guest unmaps a page and takes it out of the ATC by commands of its own, on its
 * own thread, while the core moves the device to a host table and the ATC is emptied and filled again on the way.
 *
 *   device  write . write . write            guest  leaf away . TLBI_NH_VA . ATC_INV . SYNC
 *                                            core   attach(host's table) . attach(the guest's) . attach(host's)
 */
import {
  CMD_TLBI_NH_VA,
  COMMAND_WORDS,
  encodeAtcInv,
  encodeTlbiAddress,
} from '../../../hw/smmuv3/command.js';
import { ANY_SSID } from '../../../runtime/drivers/smmuv3/atc.js';
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { invalidation } from './object-guest.js';
import { ASID, smallGuest, VSID } from './small-guest.js';
import { smallHost, smallMachine } from './small-host.js';

const GUESTS = 1;
const HOSTS = 2;
const ACCESSES = 6;
/** Ghost words: whose pages a DMA may reach, by table, as bits; whether the guest's page is unmapped. */
const MAY = 0;
const UNMAPPED = 1;

interface Shared {
  readonly ramBase: number;
  readonly gates: readonly [number, number];
  readonly fdIndex: number;
  readonly leaf: number;
  readonly command: readonly number[];
}

export const guestAtcInv = machineScenario<Shared>({
  name: 'guest-atc-inv',
  about: 'a guest invalidates its device’s ATC while the core moves the device to a host table and back',
  checks: ['R2'],
  machine: smallMachine([{ ats: true }], { ats: true }),
  core(ctx, machine, share) {
    const host = smallHost(ctx, machine);
    const { fd, vfios, owners, map, warm } = host;
    const { viommuId, leaf, data, cd, nested } = smallGuest(host);
    const guests = nested(cd, true);
    const hosts = fd.ioasAlloc().ioasId;
    map(0n, HOSTS, hosts);
    vfios[0]!.attach(hosts);
    warm(0, 0n);
    vfios[0]!.attach(guests);
    owners.give(data, GUESTS);
    warm(0, 0n);
    ctx.ghost[MAY] = GUESTS;
    const words = new Uint32Array(2 * COMMAND_WORDS);
    encodeTlbiAddress(words, 0, CMD_TLBI_NH_VA, 0, ASID, 0, true);
    encodeAtcInv(words, COMMAND_WORDS, VSID, ANY_SSID, 0, 0);
    const commands = [[...words.subarray(0, COMMAND_WORDS)], [...words.subarray(COMMAND_WORDS)]];
    const gates = [Gate.make(ctx, machine), Gate.make(ctx, machine)] as const;
    share({
      ramBase: machine.memory.ram.basePa,
      gates: [gates[0].at, gates[1].at],
      fdIndex: fd.index,
      leaf,
      command: [...invalidation(machine, viommuId, commands)],
    });
    const move = (ptId: number, owner: number): void => {
      ctx.ghost[MAY] = GUESTS | HOSTS;
      vfios[0]!.attach(ptId);
      ctx.ghost[MAY] = owner;
    };
    return () => {
      move(hosts, HOSTS);
      move(guests, GUESTS);
      move(hosts, HOSTS);
      gates[0].open();
    };
  },
  threads: {
    guest(ctx, thread, { gates, fdIndex, leaf, command }) {
      const shared = thread.shared(fdIndex);
      return () => {
        ctx.words.store64(leaf, 0n);
        const status = shared.hwptInvalidate(Uint8Array.from(command));
        ctx.check('R2', status === 0, () => `the invalidation ended in ${status}`);
        ctx.ghost[UNMAPPED] = 1;
        new Gate(ctx, gates[1]).open();
      };
    },
    device(ctx, thread, { ramBase, gates }) {
      const owners = new PageOwners(ctx, ramBase);
      const device = new PageAccess(ctx, thread, 0);
      const landed = (pa: number): void => {
        const owner = owners.ownerOf(pa);
        const stale = owner === GUESTS && ctx.ghost[UNMAPPED] === 1;
        ctx.check('R2', !stale, () => 'a DMA lands in a page that the guest has unmapped');
        ctx.check('R2', (owner & ctx.ghost[MAY]!) !== 0, () => `a DMA lands in a page of table ${owner}`);
      };
      return () => {
        for (let i = 0; i < ACCESSES; i++) device.make(0n, WRITE, landed);
        for (const gate of gates) {
          new Gate(ctx, gate).pass();
          device.make(0n, WRITE, landed);
        }
      };
    },
  },
});
