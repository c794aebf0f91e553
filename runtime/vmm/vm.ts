/**
 * A virtual machine's hold on the iommufd: its guest-physical IOAS, the vIOMMUs it needed so far, its devices.
 *
 *   IOAS (GPA) <- nest parent s2 <- vIOMMU a (VMID x) / SMMU 0 <- vDEVICE, nested tables
 *                             \---- vIOMMU b (VMID y) / SMMU 1 <- vDEVICE, nested tables
 *
 * Nothing says how many SMMUs there are or which one a device is behind; the kernel's answers do. At an attach
 * every existing vIOMMU is tried (VDEVICE_ALLOC: EINVAL is "another SMMU"); only when all refuse is one
 * allocated, on an existing stage 2 if the kernel shares it between SMMUs (VIOMMU_ALLOC: EINVAL is "no"), else
 * on a new one. A vIOMMU stays until the VM goes.
 *
 * Single-owner rule: a Vm and all it hands out belong to one thread. A transport that lets others of that thread in
 * while it waits does not let a second attach begin (-EBUSY), which would not find the vIOMMU that the first is about
 * to have: there is exactly one per SMMU. VMs of one machine, on any number of threads, share nothing here.
 */
import { type BugSwitches, NO_BUGS } from '../../hw/bugs/bug-switches.js';
import { EBUSY, EEXIST, EINVAL, ENOENT } from '../../uapi/abi/errno.js';
import { createDispatch, type VsmmuDispatch, type VsmmuStrategy } from './dispatch.js';
import { GpaSpace } from './gpa-space.js';
import type { GuestRam } from './guest-ram.js';
import { IommufdCalls } from './iommufd-calls.js';
import { Scratch } from './scratch.js';
import type { VmmTransport } from './transport.js';
import { featuresOf } from './virtual-idr.js';
import type { VirtualSmmu } from './virtual-smmu.js';
import { VmDevice } from './vm-device.js';
import { type NestParent, type VmServices, VmViommu } from './vm-viommu.js';

export interface VmOptions {
  /** How many virtual SMMUs the guest sees. */
  readonly vsmmu?: VsmmuStrategy;
  /**
   * shared: one stage 2 for all vIOMMUs, as far as the kernel lets them share. per-psmmu: one each, whatever
   * the kernel would allow.
   */
  readonly s2Sharing?: 'shared' | 'per-psmmu';
  /** RAM is mapped in pieces of this many bytes, the unit of ballooning; all of it at once unless told. */
  readonly sliceBytes?: number;
  /** Events that a vEVENTQ keeps unread. */
  readonly eventDepth?: number;
  /** Offer ATS to the guest where the hardware has it. */
  readonly ats?: boolean;
  /** vIOMMUs with command queues of their own, behind SMMUs that have them (VirtualCmdqv). */
  readonly cmdqv?: boolean;
  /** Known bugs that are on. */
  readonly bugs?: BugSwitches | undefined;
}

const DEFAULTS = {
  vsmmu: 'one',
  s2Sharing: 'shared',
  eventDepth: 256,
  ats: false,
  cmdqv: false,
  bugs: NO_BUGS,
} as const;

const LAST_SID = 0xffff_ffff;
/** What a VINTF's slots have room for. */
const LAST_CMDQV_SID = 0x7fff_ffff;

interface Placed {
  readonly device: VmDevice;
  readonly smmu: VirtualSmmu;
}

export class Vm {
  readonly ram: GuestRam;
  readonly gpa: GpaSpace;
  readonly #vm: VmServices;
  readonly #options: Required<Omit<VmOptions, 'sliceBytes'>>;
  readonly #dispatch: VsmmuDispatch;
  readonly #viommus: VmViommu[] = [];
  readonly #parents: NestParent[] = [];
  readonly #devices = new Map<number, Placed>();
  #attaching = false;

  private constructor(vm: VmServices, ram: GuestRam, gpa: GpaSpace, options: VmOptions) {
    this.#vm = vm;
    this.ram = ram;
    this.gpa = gpa;
    this.#options = { ...DEFAULTS, ...options };
    this.#dispatch = createDispatch(this.#options.vsmmu, vm.transport, ram);
  }

  /**
   * An IOAS with the guest's RAM mapped in it.
   * @returns the VM | -errno, with nothing left behind
   * @throws RangeError when the transport's scratch memory is unusable
   */
  static create(transport: VmmTransport, ram: GuestRam, options: VmOptions = {}): Vm | number {
    const scratch = new Scratch(transport);
    const calls = new IommufdCalls(transport, scratch);
    const gpa = GpaSpace.create(calls, ram, options.sliceBytes ?? ram.bytes);
    return typeof gpa === 'number' ? gpa : new Vm({ transport, calls, scratch }, ram, gpa, options);
  }

  /** What the guest programs; grows with the attaches when there is one per physical SMMU. */
  get smmus(): readonly VirtualSmmu[] {
    return this.#dispatch.smmus;
  }

  get viommus(): readonly VmViommu[] {
    return this.#viommus;
  }

  /** Stage-2 tables allocated so far. */
  get nestParents(): readonly NestParent[] {
    return this.#parents;
  }

  device(deviceIndex: number): VmDevice | undefined {
    return this.#devices.get(deviceIndex)?.device;
  }

  /** The virtual SMMU a device appears behind. */
  smmuOf(deviceIndex: number): VirtualSmmu | undefined {
    return this.#devices.get(deviceIndex)?.smmu;
  }

  /**
   * Assigns a device to the guest, under a StreamID of the guest's.
   * @returns 0 | -EEXIST the device is here, or the vSID is taken | -EINVAL no such vSID can be, or its SMMU
   *   lacks what the guest was promised | -EBUSY called from within another attach | -errno of a step, with nothing
   *   left behind but a vIOMMU
   */
  attachDevice(deviceIndex: number, vSid: number): number {
    if (this.#attaching && this.#options.bugs?.['concurrent-first-attach'] !== true) return -EBUSY;
    this.#attaching = true;
    const status = this.#attach(deviceIndex, vSid);
    this.#attaching = false;
    return status;
  }

  #attach(deviceIndex: number, vSid: number): number {
    if (this.#devices.has(deviceIndex)) return -EEXIST;
    // Checked here, because the kernel's EINVAL for it would read as "another SMMU" and bring a second vIOMMU.
    const last = this.#options.cmdqv ? LAST_CMDQV_SID : LAST_SID;
    if (!Number.isInteger(vSid) || vSid < 0 || vSid > last) return -EINVAL;
    const { calls, transport } = this.#vm;
    const devId = calls.bind(deviceIndex);
    if (devId < 0) return devId;
    const place = this.#place(devId, vSid);
    if (typeof place === 'number') {
      transport.vfioClose(deviceIndex);
      return place;
    }
    const device = new VmDevice(this.#vm, { index: deviceIndex, devId, vSid, ...place });
    const smmu = this.#dispatch.smmuFor(place.viommu);
    const status = this.#show(device, smmu);
    if (status < 0) device.remove();
    else this.#devices.set(deviceIndex, { device, smmu });
    return status;
  }

  /** Takes a device away: no DMA of it reaches the guest's RAM on return. @returns 0 | -ENOENT | -errno */
  detachDevice(deviceIndex: number): number {
    const placed = this.#devices.get(deviceIndex);
    if (placed === undefined) return -ENOENT;
    placed.smmu.removeStream(placed.device.vSid);
    this.#devices.delete(deviceIndex);
    return placed.device.remove();
  }

  /** Moves what the hardware reported to the guest's event queues. @returns records taken */
  pollEvents(): number {
    let taken = 0;
    for (const smmu of this.#dispatch.smmus) taken += smmu.pollEvents();
    return taken;
  }

  /** Ends the VM: devices, then vIOMMUs, then stage 2, then the IOAS. @returns 0 | first -errno met */
  destroy(): number {
    let status = 0;
    const note = (result: number): void => {
      if (status === 0 && result < 0) status = result;
    };
    for (const deviceIndex of [...this.#devices.keys()]) note(this.detachDevice(deviceIndex));
    for (const viommu of this.#viommus.splice(0)) note(viommu.destroy());
    for (const parent of this.#parents.splice(0)) note(this.#vm.calls.destroy(parent.hwptId));
    note(this.gpa.destroy());
    return status;
  }

  #show(device: VmDevice, smmu: VirtualSmmu): number {
    const info = this.#vm.calls.hwInfo(device.devId);
    if (typeof info === 'number') return info;
    const admitted = smmu.admit(featuresOf(info, this.#options.ats), info);
    return admitted < 0 ? admitted : smmu.addStream(device);
  }

  /** Finds or makes the vIOMMU of the SMMU in front of a device, and its vDEVICE there. */
  #place(devId: number, vSid: number): { viommu: VmViommu; vdeviceId: number } | number {
    for (const viommu of this.#viommus) {
      const vdeviceId = this.#vm.calls.vdeviceAlloc(viommu.id, devId, vSid);
      if (vdeviceId >= 0) return { viommu, vdeviceId };
      if (vdeviceId !== -EINVAL) return vdeviceId;
    }
    const viommu = this.#newViommu(devId);
    if (typeof viommu === 'number') return viommu;
    this.#viommus.push(viommu);
    const vdeviceId = this.#vm.calls.vdeviceAlloc(viommu.id, devId, vSid);
    return vdeviceId < 0 ? vdeviceId : { viommu, vdeviceId };
  }

  #newViommu(devId: number): VmViommu | number {
    const { calls } = this.#vm;
    const { s2Sharing } = this.#options;
    for (const parent of s2Sharing === 'shared' ? this.#parents : []) {
      const viommu = VmViommu.allocate(this.#vm, devId, parent, this.#options);
      if (viommu !== -EINVAL) return viommu;
    }
    const hwptId = calls.nestParentAlloc(devId, this.gpa.ioasId);
    if (hwptId < 0) return hwptId;
    const parent = { hwptId };
    const viommu = VmViommu.allocate(this.#vm, devId, parent, this.#options);
    if (typeof viommu === 'number') calls.destroy(hwptId);
    else this.#parents.push(parent);
    return viommu;
  }
}
