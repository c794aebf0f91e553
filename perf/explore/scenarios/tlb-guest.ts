/**
 * A guest takes a page out of its stage-1 table and invalidates it, on a thread of its own and past the core, while
 * the device writes there: when the invalidation is through the device is, too.
 */
import {
  CMD_TLBI_NH_VA,
  COMMAND_BYTES,
  COMMAND_WORDS,
  encodeTlbiAddress,
} from '../../../hw/smmuv3/command.js';
import {
  HwptInvalidate,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
} from '../../../uapi/iommufd/hwpt-invalidate.js';
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { ASID, smallGuest } from './small-guest.js';
import { PAGE_BYTES, smallHost, smallMachine } from './small-host.js';

const IOVA = 0n;
const MINE = 1;
const ACCESSES = 6;

interface Shared {
  readonly ramBase: number;
  readonly gate: number;
  readonly fdIndex: number;
  readonly viommuId: number;
  readonly leaf: number;
  readonly data: number;
  /** User address of the command. */
  readonly command: string;
}

export const guestUnmap = machineScenario<Shared>({
  name: 'guest-unmap',
  about: 'a device writes to a page of a guest while the guest unmaps it by TLBI_NH_VA',
  checks: ['R1'],
  machine: smallMachine(),
  core(ctx, machine, share) {
    const host = smallHost(ctx, machine);
    const { fd, vfios, owners, warm } = host;
    const { viommuId, leaf, data, cd, nested } = smallGuest(host);
    vfios[0]!.attach(nested(cd));
    owners.give(data, MINE);
    warm(0, IOVA);
    const command = machine.user.alloc(PAGE_BYTES);
    const words = new Uint32Array(COMMAND_WORDS);
    encodeTlbiAddress(words, 0, CMD_TLBI_NH_VA, 0, ASID, 0, true);
    machine.user.copyOut(command, new Uint8Array(words.buffer));
    share({
      ramBase: machine.memory.ram.basePa,
      gate: Gate.make(ctx, machine).at,
      fdIndex: fd.index,
      viommuId,
      leaf,
      data,
      command: `${command}`,
    });
    return () => undefined;
  },
  threads: {
    guest(ctx, thread, { ramBase, gate, fdIndex, viommuId, leaf, data, command }) {
      const owners = new PageOwners(ctx, ramBase);
      const shared = thread.shared(fdIndex);
      const bytes = HwptInvalidate.toBytes({
        size: HwptInvalidate.size,
        hwptId: viommuId,
        dataUptr: BigInt(command),
        dataType: IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
        entryLen: COMMAND_BYTES,
        entryNum: 1,
      });
      return () => {
        ctx.words.store64(leaf, 0n);
        const status = shared.hwptInvalidate(bytes);
        ctx.check('R1', status === 0, () => `the invalidation ended in ${status}`);
        owners.give(data, 0);
        new Gate(ctx, gate).open();
      };
    },
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
