/**
 * An open VFIO device file (`/dev/vfio/devices/vfioN`), as far as it concerns an iommufd: bind, attach,
 * detach. Closing it detaches and unbinds.
 *
 * A PASID is attached, moved and detached as the device itself is. PASID 0 is the device itself, as in Linux, which keeps
 * two books on it.
 *
 * Not modelled: regions, interrupts, reset, migration; nor virtual functions, so that no token is right.
 *
 * @source drivers/vfio/device_cdev.c, drivers/vfio/iommufd.c
 */
import {
  EBADF,
  EBADFD,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  ENOSPC,
  ENOTTY,
  EOPNOTSUPP,
} from '../../uapi/abi/errno.js';
import { IommufdError } from '../../uapi/abi/iommufd-error.js';
import { u32At } from '../../uapi/abi/struct.js';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_ATTACH_PASID,
  VFIO_DEVICE_BIND_FLAG_TOKEN,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_PASID,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_PLATFORM,
  VFIO_DEVICE_GET_INFO,
  VfioDeviceAttachIommufdPt,
  VfioDeviceBindIommufd,
  VfioDeviceDetachIommufdPt,
  VfioDeviceInfo,
} from '../../uapi/vfio/cdev.js';
import { checkKeys } from '../core/call-check.js';
import type { IommufdCore, IommufdFile } from '../core/core.js';
import type { IommufdFd } from '../core/fd.js';
import { OBJ_ANY, OBJ_HWPT_NESTED } from '../core/objects-layout.js';
import { copyStructIn, structSize } from '../core/struct-copy.js';
import type { HostDevice } from '../drivers/contract.js';
import { Device } from './device.js';

export class VfioDevice {
  readonly host: HostDevice;
  readonly #core: IommufdCore;
  #device: Device | null = null;
  #attached = false;
  /** Attached by number. */
  readonly #pasids = new Set<number>();
  #open = true;

  /** Made by `IommufdCore.openVfio`. */
  constructor(core: IommufdCore, host: HostDevice) {
    this.#core = core;
    this.host = host;
  }

  /** Its object ID while bound, else 0. */
  get devId(): number {
    return this.#device?.id ?? 0;
  }

  /** @throws IommufdError EINVAL bound already, here or by another open file | EPERM group owned elsewhere */
  bindIommufd(fd: IommufdFd): { devId: number } {
    const bytes = VfioDeviceBindIommufd.toBytes({ argsz: VfioDeviceBindIommufd.size, iommufd: fd.fd });
    this.#call('VFIO_DEVICE_BIND_IOMMUFD', VFIO_DEVICE_BIND_IOMMUFD, bytes, (errno) => {
      if (errno !== EINVAL) return undefined;
      if (this.#device !== null) return 'it is bound already';
      return this.#core.openDevices.has(this.host.index) ? 'another open file has it bound' : undefined;
    });
    return { devId: VfioDeviceBindIommufd.getField(bytes, 'outDevid') };
  }

  /**
   * Attach, or move without a gap when attached already.
   * @param ptId  an IOAS or a page table; for a PASID a page table with ALLOC_PASID
   * @param options.pasid  one address space of the device, instead of the device itself
   * @returns the page table in use
   * @throws IommufdError | TypeError
   */
  attach(ptId: number, options: PasidOption = {}): { ptId: number } {
    if (typeof ptId !== 'number') throw new TypeError('attach takes the ID of an IOAS or page table');
    const { flags, pasid } = pasidFields('attach', options, VFIO_DEVICE_ATTACH_PASID);
    const argsz = VfioDeviceAttachIommufdPt.size;
    const bytes = VfioDeviceAttachIommufdPt.toBytes({ argsz, ptId, flags, pasid });
    this.#call('VFIO_DEVICE_ATTACH_IOMMUFD_PT', VFIO_DEVICE_ATTACH_IOMMUFD_PT, bytes, (errno) => {
      if (errno !== ENOENT || this.#device === null) return this.#unbound();
      const { ctx } = this.#device;
      const target = ctx.get(ptId, OBJ_ANY);
      if (target === undefined) return `no IOAS or page table has the ID ${ptId}`;
      ctx.put(target);
      return target.type === OBJ_HWPT_NESTED
        ? 'a nested page table needs a vDEVICE of the device'
        : undefined;
    });
    return { ptId: VfioDeviceAttachIommufdPt.getField(bytes, 'ptId') };
  }

  /** @throws IommufdError | TypeError */
  detach(options: PasidOption = {}): void {
    const { flags, pasid } = pasidFields('detach', options, VFIO_DEVICE_DETACH_PASID);
    const argsz = VfioDeviceDetachIommufdPt.size;
    const bytes = VfioDeviceDetachIommufdPt.toBytes({ argsz, flags, pasid });
    this.#call('VFIO_DEVICE_DETACH_IOMMUFD_PT', VFIO_DEVICE_DETACH_IOMMUFD_PT, bytes, () => this.#unbound());
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    const device = this.#device;
    if (device === null) return;
    this.#device = null;
    for (const pasid of [...this.#pasids].sort((a, b) => a - b)) device.detach(pasid);
    this.#pasids.clear();
    if (this.#attached) device.detach();
    this.#attached = false;
    this.#core.openDevices.delete(this.host.index);
    device.unbind();
  }

  /** @returns 0 | -errno */
  ioctl(cmd: number, bytes: Uint8Array): number {
    if (!this.#open) return -EBADF;
    if (cmd === VFIO_DEVICE_BIND_IOMMUFD) return this.#bind(bytes);
    // Nothing else works before the device is bound.
    if (this.#device === null) return -EINVAL;
    if (cmd === VFIO_DEVICE_ATTACH_IOMMUFD_PT) return this.#attach(this.#device, bytes);
    if (cmd === VFIO_DEVICE_DETACH_IOMMUFD_PT) return this.#detach(this.#device, bytes);
    if (cmd === VFIO_DEVICE_GET_INFO) return this.#getInfo(bytes);
    return -ENOTTY;
  }

  #bind(bytes: Uint8Array): number {
    if (bytes.byteLength < 4) return -EFAULT;
    const bind = copyStructIn(VfioDeviceBindIommufd, bytes, structSize(bytes));
    if (typeof bind === 'number') return bind;
    if (bind.iommufd < 0 || (bind.flags & ~VFIO_DEVICE_BIND_FLAG_TOKEN) !== 0) return -EINVAL;
    if (this.#device !== null) return -EINVAL;
    if (bind.flags !== 0) return this.#refuseToken(bind.tokenUuidPtr);
    const file = this.#core.current.files.get(bind.iommufd);
    if (file === undefined) return -EBADF;
    if (file.kind !== 'iommufd') return -EBADFD;
    if (this.#core.openDevices.has(this.host.index)) return -EINVAL;
    const device = Device.bindTo((file as IommufdFile).ctx, this.host);
    if (typeof device === 'number') return device;
    this.#device = device;
    this.#core.openDevices.add(this.host.index);
    VfioDeviceBindIommufd.put(bytes, 'outDevid', device.id);
    return 0;
  }

  /** Tokens are for virtual functions and their owners: any other device's is wrong, once it can be read. */
  #refuseToken(tokenUuidPtr: bigint): number {
    const uuid = new Uint8Array(UUID_BYTES);
    if (this.host.pci !== false && this.#core.current.mm.copyIn(tokenUuidPtr, uuid) < 0) return -EFAULT;
    return -EINVAL;
  }

  #getInfo(bytes: Uint8Array): number {
    const { minSize, size } = VfioDeviceInfo;
    if (bytes.byteLength < minSize) return -EFAULT;
    const argsz = structSize(bytes);
    if (argsz < minSize) return -EINVAL;
    const flags = this.host.pci === false ? VFIO_DEVICE_FLAGS_PLATFORM : VFIO_DEVICE_FLAGS_PCI;
    const length = Math.min(argsz, size);
    if (bytes.byteLength < length) return -EFAULT;
    bytes.set(VfioDeviceInfo.toBytes({ argsz, flags }).subarray(0, length));
    return 0;
  }

  #attach(device: Device, bytes: Uint8Array): number {
    const pasid = pasidOf(VfioDeviceAttachIommufdPt, bytes, VFIO_DEVICE_ATTACH_PASID, this.host.pci);
    if (pasid < NONE) return pasid;
    const ptId = VfioDeviceAttachIommufdPt.getField(bytes, 'ptId');
    const used = pasid === NONE ? this.#attachRid(device, ptId) : this.#attachPasid(device, ptId, pasid);
    if (used < 0) return used;
    VfioDeviceAttachIommufdPt.put(bytes, 'ptId', used);
    return 0;
  }

  #attachRid(device: Device, ptId: number): number {
    const used = this.#attached ? device.replace(ptId) : device.attach(ptId);
    if (used >= 0) this.#attached = true;
    return used;
  }

  /** @source vfio_iommufd_physical_pasid_attach_ioas */
  #attachPasid(device: Device, ptId: number, pasid: number): number {
    if (this.#pasids.has(pasid)) return device.replace(ptId, pasid);
    // An IDA has no place for it.
    if (pasid > INT_MAX) return -ENOSPC;
    if (this.#core.allocFails('vfio_pasid')) return -ENOMEM;
    const used = device.attach(ptId, pasid);
    if (used >= 0) this.#pasids.add(pasid);
    return used;
  }

  #detach(device: Device, bytes: Uint8Array): number {
    const pasid = pasidOf(VfioDeviceDetachIommufdPt, bytes, VFIO_DEVICE_DETACH_PASID, this.host.pci);
    if (pasid < NONE) return pasid;
    if (pasid !== NONE) {
      if (this.#pasids.delete(pasid)) device.detach(pasid);
      return 0;
    }
    if (this.#attached) device.detach();
    this.#attached = false;
    return 0;
  }

  #unbound(): string | undefined {
    return this.#open && this.#device === null ? 'not bound yet, bindIommufd comes first' : undefined;
  }

  /** @param why  what the arguments and this file prove about an error, if anything */
  #call(name: string, cmd: number, bytes: Uint8Array, why: (errno: number) => string | undefined): void {
    const status = this.ioctl(cmd, bytes);
    if (status >= 0) return;
    const reason = why(-status);
    const detail = reason === undefined ? this.host.name : `${this.host.name}: ${reason}`;
    throw new IommufdError(-status, name, { detail });
  }
}

const INT_MAX = 0x7fff_ffff;
const UUID_BYTES = 16;
/** The device itself, and no PASID of it. */
const NONE = -1;

/**
 * Whom an attach or a detach is about.
 * @param flag  that says that there is a PASID
 * @param pci   whether the device is one; others' drivers know no PASIDs
 * @returns the PASID | NONE | -EFAULT | -EINVAL | -EOPNOTSUPP, which are below NONE
 */
function pasidOf(
  struct: typeof VfioDeviceAttachIommufdPt | typeof VfioDeviceDetachIommufdPt,
  bytes: Uint8Array,
  flag: number,
  pci = true,
): number {
  if (bytes.byteLength < struct.minSize) return -EFAULT;
  if (structSize(bytes) < struct.minSize) return -EINVAL;
  const flags = u32At(bytes, 4);
  if ((flags & ~flag) !== 0) return -EINVAL;
  if ((flags & flag) === 0) return NONE;
  if (!pci) return -EOPNOTSUPP;
  if (structSize(bytes) < struct.size) return -EINVAL;
  return bytes.byteLength < struct.size ? -EFAULT : u32At(bytes, struct.size - 4);
}

/** Which address space of a device. */
export interface PasidOption {
  readonly pasid?: number;
}

/** @throws TypeError */
function pasidFields(call: string, options: PasidOption, flag: number): { flags: number; pasid: number } {
  checkKeys(call, options, ['pasid']);
  const { pasid } = options;
  if (pasid === undefined) return { flags: 0, pasid: 0 };
  if (!(Number.isInteger(pasid) && pasid >= 0 && pasid < 2 ** 32))
    throw new TypeError(`${call}: pasid is ${pasid}, no 32-bit number`);
  return { flags: flag, pasid };
}
