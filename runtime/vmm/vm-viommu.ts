/**
 * A vIOMMU as the VMM keeps it: the object, two nested tables for devices that the guest has not configured
 * (bypass: IPAs untranslated by the guest; abort), the queue of its events and the batch of its invalidations.
 *
 *   IOAS <- nest parent (stage 2) <- vIOMMU <- bypass, abort, one nested table per configured stream
 *                                       ^---- vDEVICE per device, vEVENTQ (held by its file)
 */

import { getQuad } from '../../hw/smmuv3/bitfield.js';
import { CONFIG_ABORT, CONFIG_BYPASS, STE, STE_BYTES } from '../../hw/smmuv3/ste.js';
import { ENOMEM, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import { InvalidationBatch } from './invalidation-batch.js';
import type { CmdqvViommu, IommufdCalls } from './iommufd-calls.js';
import type { Scratch } from './scratch.js';
import type { ScratchArea, VmmTransport } from './transport.js';

/** A stage 2 that one or several vIOMMUs stand on. */
export interface NestParent {
  readonly hwptId: number;
}

/** What the pieces of one VM share. */
export interface VmServices {
  readonly transport: VmmTransport;
  readonly calls: IommufdCalls;
  readonly scratch: Scratch;
}

const steOf = (config: number): [bigint, bigint] => {
  const words = new Uint32Array(STE_BYTES / 4);
  STE.V.put(words, 1);
  STE.Config.put(words, config);
  return [getQuad(words, 0), getQuad(words, 2)];
};
const BYPASS_STE = steOf(CONFIG_BYPASS);
const ABORT_STE = steOf(CONFIG_ABORT);

export class VmViommu {
  readonly id: number;
  readonly parent: NestParent;
  readonly batch: InvalidationBatch;
  /** Its page of registers, to be mapped; null for one without command queues of its own. */
  readonly vintf: CmdqvViommu['vintf'] | null;
  bypassHwptId = 0;
  abortHwptId = 0;
  veventqId = 0;
  veventqFd = -1;
  readonly #vm: VmServices;
  readonly #area: ScratchArea;

  private constructor(
    vm: VmServices,
    { id, vintf }: { readonly id: number; readonly vintf: CmdqvViommu['vintf'] | null },
    parent: NestParent,
    area: ScratchArea,
  ) {
    this.#vm = vm;
    this.vintf = vintf;
    this.#area = area;
    this.id = id;
    this.parent = parent;
    this.batch = new InvalidationBatch(vm.transport, id, area);
  }

  /**
   * A vIOMMU for the SMMU in front of a device, with what belongs to it.
   * @returns it | -EINVAL the parent is of another SMMU | -ENOMEM | -errno, with nothing left behind
   */
  static allocate(
    vm: VmServices,
    devId: number,
    parent: NestParent,
    { eventDepth, cmdqv }: { readonly eventDepth: number; readonly cmdqv: boolean },
  ): VmViommu | number {
    const made = allocViommu(vm.calls, devId, parent, cmdqv);
    if (typeof made === 'number') return made;
    const { id } = made;
    const area = vm.scratch.takeBatch();
    if (area === null) {
      vm.calls.destroy(id);
      return -ENOMEM;
    }
    const viommu = new VmViommu(vm, made, parent, area);
    const status = viommu.#furnish(devId, eventDepth);
    if (status < 0) viommu.destroy();
    return status < 0 ? status : viommu;
  }

  #furnish(devId: number, eventDepth: number): number {
    const { calls } = this.#vm;
    const bypass = calls.nestedAlloc(devId, this.id, BYPASS_STE);
    if (bypass < 0) return bypass;
    this.bypassHwptId = bypass;
    const abort = calls.nestedAlloc(devId, this.id, ABORT_STE);
    if (abort < 0) return abort;
    this.abortHwptId = abort;
    const queue = calls.veventqAlloc(this.id, eventDepth);
    if (typeof queue === 'number') return queue;
    this.veventqId = queue.id;
    this.veventqFd = queue.fd;
    return 0;
  }

  /** Destroys all of it; its devices must be gone. @returns 0 | -EBUSY something still stands on it */
  destroy(): number {
    const { calls, transport, scratch } = this.#vm;
    // The open file holds the queue: closed first, or its destroy is EBUSY.
    if (this.veventqFd >= 0) transport.close(this.veventqFd);
    this.veventqFd = -1;
    let status = 0;
    for (const id of [this.veventqId, this.abortHwptId, this.bypassHwptId, this.id])
      if (id !== 0) status = Math.min(status, calls.destroy(id));
    scratch.giveBatch(this.#area);
    return status;
  }
}

/** With command queues of its own if they are wanted and there are any, else without. */
function allocViommu(calls: IommufdCalls, devId: number, { hwptId }: NestParent, cmdqv: boolean) {
  const own = cmdqv ? calls.viommuAllocCmdqv(devId, hwptId) : -EOPNOTSUPP;
  if (own !== -EOPNOTSUPP) return own;
  const id = calls.viommuAlloc(devId, hwptId);
  return id < 0 ? id : { id, vintf: null };
}
