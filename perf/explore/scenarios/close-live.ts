/**
 * The last descriptors of an iommufd are closed while a guest invalidates through it on its own thread and its device
 * writes. Nothing outlives the close: no DMA reaches memory, every invalidation is whole or refused.
 */
import { CMD_CFGI_CD_ALL } from '../../../hw/smmuv3/command.js';
import { ENOENT } from '../../../uapi/abi/errno.js';
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { invalidation, tlbiAsid } from './object-guest.js';
import { ASID, smallGuest, VSID } from './small-guest.js';
import { smallHost, smallMachine } from './small-host.js';

const MINE = 1;
const TIMES = 2;

interface Shared {
  readonly ramBase: number;
  readonly gate: number;
  readonly fdIndex: number;
  readonly command: readonly number[];
}

export const closeLive = machineScenario<Shared>({
  name: 'close-live',
  about: 'device and iommufd are closed while the guest invalidates and its device writes',
  checks: ['R1', 'R15'],
  machine: smallMachine(),
  core(ctx, machine, share) {
    const host = smallHost(ctx, machine);
    const { fd, vfios, owners, warm } = host;
    const { viommuId, data, cd, nested } = smallGuest(host);
    vfios[0]!.attach(nested(cd));
    owners.give(data, MINE);
    warm(0, 0n);
    const gate = Gate.make(ctx, machine);
    const command = invalidation(machine, viommuId, [tlbiAsid(ASID), [CMD_CFGI_CD_ALL, VSID, 0, 0]]);
    share({
      ramBase: machine.memory.ram.basePa,
      gate: gate.at,
      fdIndex: fd.index,
      command: [...command],
    });
    return () => {
      vfios[0]!.close();
      owners.give(data, 0);
      fd.close();
      gate.open();
    };
  },
  threads: {
    guest(ctx, thread, { fdIndex, command }) {
      const shared = thread.shared(fdIndex);
      return () => {
        for (let i = 0; i < TIMES; i++) {
          const status = shared.hwptInvalidate(Uint8Array.from(command));
          ctx.check(
            'R15',
            status === 0 || status === -ENOENT || status === -5,
            () => `it ended in ${status}`,
          );
          if (status !== 0) return;
        }
      };
    },
    device(ctx, thread, { ramBase, gate }) {
      const owners = new PageOwners(ctx, ramBase);
      const device = new PageAccess(ctx, thread, 0);
      const landed = (pa: number): void =>
        ctx.check(
          'R1',
          owners.ownerOf(pa) === MINE,
          () => 'a DMA lands in a page of a device that is closed',
        );
      return () => {
        for (let i = 0; i < TIMES; i++) device.make(0n, WRITE, landed);
        new Gate(ctx, gate).pass();
        device.make(0n, WRITE, landed);
      };
    },
  },
});
