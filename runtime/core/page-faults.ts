/**
 * Page faults of devices on their way from a driver to whoever handles them, and the answers back. Linux: io-pgfault.c.
 *
 *   driver --report--> partial faults of a group wait ... the last one --> handler of the attach handle
 *   driver <--respond(code)-- group, exactly once: by its handler, or when the device stops (removeDevice)
 *
 * Here a group that its device's end has answered also leaves its handler's lists. 7.0 frees it under them, which is
 * nothing that can be repeated.
 *
 * @source drivers/iommu/io-pgfault.c
 */
import { EBUSY, EINVAL, ENOMEM } from '../../uapi/abi/errno.js';
import {
  type HostDevice,
  PAGE_RESP_FAILURE,
  PAGE_RESP_INVALID,
  type PageFault,
  type PageFaults,
} from '../drivers/contract.js';
import type { AttachHandle } from '../objects/group.js';
import type { IommufdCore } from './core.js';

/** What a device that may report faults has waiting. struct iommu_fault_param. */
class FaultParam {
  /** Of groups whose last fault has not come. */
  partial: PageFault[] = [];
  /** Reported and not answered. */
  readonly pending = new Set<FaultGroup>();
}

/** All faults that one answer is for. struct iopf_group. */
export class FaultGroup {
  readonly handle: AttachHandle;
  /** In the order in which they came; the last one is the one to answer. */
  readonly faults: readonly PageFault[];
  /** The handler's name for it, 0 until it has one. */
  cookie = 0;
  readonly #param: FaultParam;

  constructor(handle: AttachHandle, faults: readonly PageFault[], param: FaultParam) {
    this.handle = handle;
    this.faults = faults;
    this.#param = param;
    param.pending.add(this);
  }

  /** iopf_group_response: does nothing when it has been answered. @param code  PAGE_RESP_* */
  respond(code: number): void {
    if (this.#param.pending.delete(this)) this.faults.at(-1)!.respond(code);
  }
}

export class CorePageFaults implements PageFaults {
  readonly #core: IommufdCore;
  readonly #params = new Map<HostDevice, FaultParam>();

  constructor(core: IommufdCore) {
    this.#core = core;
  }

  addDevice(device: HostDevice): number {
    if (this.#params.has(device)) return -EBUSY;
    if (this.#core.allocFails('iopf_param')) return -ENOMEM;
    this.#params.set(device, new FaultParam());
    return 0;
  }

  removeDevice(device: HostDevice): void {
    const param = this.#params.get(device);
    if (param === undefined) return;
    this.#params.delete(device);
    for (const group of [...param.pending]) {
      group.respond(PAGE_RESP_INVALID);
      group.handle.hwpt.fault?.forget(group);
    }
  }

  report(device: HostDevice, fault: PageFault): number {
    const handle = this.#handler(device, fault);
    const param = this.#params.get(device);
    if (handle === null || param === undefined) {
      fault.respond(PAGE_RESP_INVALID);
      return -EINVAL;
    }
    if (!fault.last) {
      if (this.#core.allocFails('iopf_fault')) return -ENOMEM;
      param.partial.push(fault);
      return 0;
    }
    const earlier = param.partial.filter(({ grpid }) => grpid === fault.grpid);
    param.partial = param.partial.filter(({ grpid }) => grpid !== fault.grpid);
    const group = new FaultGroup(handle, [...earlier, fault], param);
    if (this.#core.allocFails('iopf_group')) group.respond(PAGE_RESP_FAILURE);
    else handle.hwpt.fault?.deliver(group);
    return 0;
  }

  /** @source io-pgfault.c find_fault_handler */
  #handler(device: HostDevice, { pasid }: PageFault): AttachHandle | null {
    const group = this.#core.groupOf(device);
    if (group === undefined) return null;
    let handle = group.handle(Math.max(pasid, 0));
    if (handle === null && pasid >= 0 && device.iommu.userPasidTable === true) {
      handle = group.handle(0);
      if (handle?.hwpt.domain.kind !== 'nested') return null;
    }
    return handle?.hwpt.fault ? handle : null;
  }
}
