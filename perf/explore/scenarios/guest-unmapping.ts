/** A small guest takes its page out of its stage-1 table and invalidates it, on its own thread, past the core. */
import {
  CMD_TLBI_NH_VA,
  COMMAND_BYTES,
  COMMAND_WORDS,
  encodeTlbiAddress,
} from '../../../hw/smmuv3/command.js';
import type { Machine } from '../../../runtime/machine.js';
import type { MachineThread } from '../../../runtime/machine-thread.js';
import {
  HwptInvalidate,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
} from '../../../uapi/iommufd/hwpt-invalidate.js';
import { Gate } from '../monitors/gate.js';
import { PageOwners } from '../monitors/page-owners.js';
import type { ThreadContext } from '../scenario.js';
import { ASID, type SmallGuest } from './small-guest.js';
import { PAGE_BYTES } from './small-host.js';

/** What the guest's thread has to know. */
export interface GuestUnmapping {
  readonly viommuId: number;
  /** Linear offset of the leaf, and PA of the page it leads to. */
  readonly leaf: number;
  readonly data: number;
  /** User address of its TLBI_NH_VA. */
  readonly command: string;
}

/** The core's part: the command, in user memory. */
export function prepareUnmapping(machine: Machine, { viommuId, leaf, data }: SmallGuest): GuestUnmapping {
  const command = machine.user.alloc(PAGE_BYTES);
  const words = new Uint32Array(COMMAND_WORDS);
  encodeTlbiAddress(words, 0, CMD_TLBI_NH_VA, 0, ASID, 0, true);
  machine.user.copyOut(command, new Uint8Array(words.buffer));
  return { viommuId, leaf, data, command: `${command}` };
}

/**
 * The guest's part.
 * @param fdIndex  of its iommufd
 * @param gate     opened when the invalidation is through
 */
export function unmapInGuest(
  ctx: ThreadContext,
  thread: MachineThread,
  { viommuId, leaf, data, command }: GuestUnmapping,
  { ramBase, fdIndex, gate }: { readonly ramBase: number; readonly fdIndex: number; readonly gate: number },
): () => void {
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
}
