/**
 * A guest's invalidations, on whatever thread makes them: each command is checked, gets the vIOMMU's VMID or
 * the device's physical StreamID, and goes on that SMMU's queue, in batches with a SYNC behind the last.
 *
 *   guest                        becomes
 *   TLBI_NSNH_ALL                TLBI_NH_ALL of the VMID
 *   TLBI_NH_ALL, _ASID, _VA, _VAA  the same, VMID overwritten
 *   ATC_INV, CFGI_CD, CFGI_CD_ALL  the same, vSID replaced by the pSID
 *   anything else                -EIO
 *
 * When a command is refused, those before it are issued first, as hardware would have; `handled` counts what
 * completed, no more. One batch in four has a SYNC, and the last. Linux 7.0 has one behind each, and counts wrongly
 * (`compat`): with a refused command those of its batch that came before, which it does not issue; of a batch that did
 * not complete all but one.
 *
 * A deliberate defect leaves ATC_INV out on one SMMU: the guest is told that it was done.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3-iommufd.c arm_vsmmu_cache_invalidate
 */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import {
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA,
  CMD_TLBI_NSNH_ALL,
  COMMAND_BYTES,
  COMMAND_WORDS,
  encodeTlbi,
} from '../../../hw/smmuv3/command.js';
import type { Log } from '../../../hw/smmuv3/mmio.js';
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { EINVAL, EIO } from '../../../uapi/abi/errno.js';
import { IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 } from '../../../uapi/iommufd/hwpt-invalidate.js';
import type { Compat } from '../../core/context.js';
import type { SharedInvalidator } from '../contract.js';
import { BATCH_ENTRIES } from './batch.js';
import { CommandQueue, type CommandQueueOptions } from './cmdq.js';
import { smmuAccess } from './queue-host.js';
import { ViommuTable } from './viommu-record.js';

/** Commands of one trip to the queue: one less than a batch, to leave room for a SYNC. */
const PER_TRIP = BATCH_ENTRIES - 1;
/** Commands after which one is awaited all the same: a guest must not fill the host's queue with a single call. */
const PER_SYNC = 4 * PER_TRIP;

export class Smmuv3Invalidator implements SharedInvalidator {
  readonly dataType = IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3;
  readonly entryBytes = COMMAND_BYTES;
  readonly #memory: MachineMemory;
  readonly #env: SyncEnv;
  readonly #log: Log;
  readonly #options: CommandQueueOptions;
  readonly #atcBlind: number;
  readonly #asLinux70: boolean;
  readonly #queues = new Map<number, CommandQueue>();
  readonly #cmds = new Uint32Array(PER_TRIP * COMMAND_WORDS);

  constructor(
    memory: MachineMemory,
    env: SyncEnv,
    options: CommandQueueOptions & {
      readonly log?: Log;
      /** The SMMU (its index) whose devices' ATCs are not invalidated: RuntimeBugs.skipAtcInv. */
      readonly skipAtcInvOn?: number;
      /** Default 'fixed'. */
      readonly compat?: Compat;
    } = {},
  ) {
    this.#memory = memory;
    this.#env = env;
    this.#log = options.log ?? (() => undefined);
    this.#options = options;
    this.#atcBlind = options.skipAtcInvOn ?? -1;
    this.#asLinux70 = options.compat === '7.0';
  }

  cacheInvalidate(
    viommuBase: number,
    entries: Uint8Array,
    stride: number,
    count: number,
    handled: Uint32Array,
  ): number {
    handled[0] = 0;
    if (count === 0) return 0;
    if (stride < COMMAND_BYTES || entries.byteLength < stride * (count - 1) + COMMAND_BYTES) return -EINVAL;
    const table = new ViommuTable(this.#env, viommuBase);
    if (!table.live) return -EIO;
    const queue = this.#queue(table.iommu);
    const vmid = table.vmid;
    const view = new DataView(entries.buffer, entries.byteOffset, entries.byteLength);
    const atcBlind = table.iommu === this.#atcBlind || this.#env.bugs?.['atc-inv-skipped'] === true;
    const untagged = this.#env.bugs?.['tlbi-nh-va-without-vmid'] === true;
    for (let next = 0; next < count; ) {
      // The table stays as it is from the look-up of a StreamID until the command is on the queue.
      let status = table.enter();
      if (status < 0) return status;
      let n = 0;
      while (status === 0 && n < PER_TRIP && next < count) {
        for (let i = 0; i < COMMAND_WORDS; i++)
          this.#cmds[n * COMMAND_WORDS + i] = view.getUint32(next * stride + i * 4, true);
        status = convert(this.#cmds, n * COMMAND_WORDS, vmid, table, untagged);
        if (status < 0) break;
        next++;
        if (!(atcBlind && (this.#cmds[n * COMMAND_WORDS]! & 0xff) === CMD_ATC_INV)) n++;
      }
      const early = this.#env.bugs?.['vsid-used-after-reuse'] === true;
      if (early) table.leave();
      if (status < 0 && (this.#asLinux70 || this.#env.bugs?.['invalidate-reports-unissued'])) {
        if (!early) table.leave();
        handled[0] = next;
        return status;
      }
      const last = next === count || status < 0 || this.#asLinux70;
      const sync = last || next - handled[0]! >= PER_SYNC;
      const ticket = next > handled[0]! ? queue.submit(this.#cmds, n, sync) : 0;
      if (!early) table.leave();
      const done = ticket >= 0 && sync && next > handled[0]! ? queue.wait(ticket) : Math.min(ticket, 0);
      if (done < 0) {
        if (this.#asLinux70) handled[0] = next - 1;
        return done;
      }
      if (!sync) continue;
      handled[0] = next;
      if (status < 0) return status;
    }
    return 0;
  }

  #queue(iommu: number): CommandQueue {
    let queue = this.#queues.get(iommu);
    if (queue === undefined) {
      const access = smmuAccess(this.#memory, this.#env, iommu, this.#log);
      queue = CommandQueue.attach(this.#memory, this.#env, iommu, access, this.#options);
      this.#queues.set(iommu, queue);
    }
    return queue;
  }
}

/**
 * Turns the guest's command at `at` into the host's, in place.
 * @param untagged  known bug: TLBI_NH_VA goes out with VMID 0, the host's own
 * @returns 0 | -EIO
 */
export function convert(
  cmds: Uint32Array,
  at: number,
  vmid: number,
  table: { find(vsid: number): number },
  untagged = false,
): number {
  const opcode = cmds[at]! & 0xff;
  switch (opcode) {
    case CMD_TLBI_NSNH_ALL:
      encodeTlbi(cmds, at, CMD_TLBI_NH_ALL, vmid, 0);
      return 0;
    case CMD_TLBI_NH_ALL:
    case CMD_TLBI_NH_ASID:
    case CMD_TLBI_NH_VA:
    case CMD_TLBI_NH_VAA:
      // VMID is the low half of word 1, ASID the high one.
      cmds[at + 1] =
        ((cmds[at + 1]! & 0xffff_0000) | (untagged && opcode === CMD_TLBI_NH_VA ? 0 : vmid)) >>> 0;
      return 0;
    case CMD_ATC_INV:
    case CMD_CFGI_CD:
    case CMD_CFGI_CD_ALL: {
      const psid = table.find(cmds[at + 1]!);
      if (psid < 0) return -EIO;
      cmds[at + 1] = psid;
      return 0;
    }
    default:
      return -EIO;
  }
}
