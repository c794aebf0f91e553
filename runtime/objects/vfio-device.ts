/**
 * An open VFIO device file (`/dev/vfio/devices/vfioN`), as far as it concerns an iommufd: bind, attach,
 * detach. Closing it detaches and unbinds.
 *
 * Not modelled: regions, interrupts, reset, migration, PASIDs, tokens.
 *
 * @source drivers/vfio/device_cdev.c, drivers/vfio/iommufd.c
 */
import { EBADF, EBADFD, EFAULT, EINVAL, ENOENT, ENOTTY, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import { IommufdError } from '../../uapi/abi/iommufd-error.js';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_ATTACH_PASID,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_PASID,
  VfioDeviceAttachIommufdPt,
  VfioDeviceBindIommufd,
  VfioDeviceDetachIommufdPt,
} from '../../uapi/vfio/cdev.js';
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
   * @param ptId  an IOAS or a page table
   * @returns the page table in use
   * @throws IommufdError | TypeError
   */
  attach(ptId: number): { ptId: number } {
    if (typeof ptId !== 'number') throw new TypeError('attach takes the ID of an IOAS or page table');
    const bytes = VfioDeviceAttachIommufdPt.toBytes({ argsz: VfioDeviceAttachIommufdPt.size, ptId });
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

  detach(): void {
    const bytes = VfioDeviceDetachIommufdPt.toBytes({ argsz: VfioDeviceDetachIommufdPt.size });
    this.#call('VFIO_DEVICE_DETACH_IOMMUFD_PT', VFIO_DEVICE_DETACH_IOMMUFD_PT, bytes, () => this.#unbound());
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    const device = this.#device;
    if (device === null) return;
    this.#device = null;
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
    return -ENOTTY;
  }

  #bind(bytes: Uint8Array): number {
    if (bytes.byteLength < 4) return -EFAULT;
    const bind = copyStructIn(VfioDeviceBindIommufd, bytes, structSize(bytes));
    if (typeof bind === 'number') return bind;
    // A token is refused as by a driver that knows none.
    if (bind.iommufd < 0 || bind.flags !== 0) return -EINVAL;
    if (this.#device !== null) return -EINVAL;
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

  #attach(device: Device, bytes: Uint8Array): number {
    const { minSize } = VfioDeviceAttachIommufdPt;
    if (bytes.byteLength < minSize) return -EFAULT;
    if (structSize(bytes) < minSize) return -EINVAL;
    const status = pasidFlag(VfioDeviceAttachIommufdPt.getField(bytes, 'flags'), VFIO_DEVICE_ATTACH_PASID);
    if (status < 0) return status;
    const ptId = VfioDeviceAttachIommufdPt.getField(bytes, 'ptId');
    const used = this.#attached ? device.replace(ptId) : device.attach(ptId);
    if (used < 0) return used;
    this.#attached = true;
    VfioDeviceAttachIommufdPt.put(bytes, 'ptId', used);
    return 0;
  }

  #detach(device: Device, bytes: Uint8Array): number {
    const { minSize } = VfioDeviceDetachIommufdPt;
    if (bytes.byteLength < minSize) return -EFAULT;
    if (structSize(bytes) < minSize) return -EINVAL;
    const status = pasidFlag(VfioDeviceDetachIommufdPt.getField(bytes, 'flags'), VFIO_DEVICE_DETACH_PASID);
    if (status < 0) return status;
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

/** The one flag of attach and detach asks for what no device here has. @returns 0 | -EINVAL | -EOPNOTSUPP */
function pasidFlag(flags: number, pasid: number): number {
  if ((flags & ~pasid) !== 0) return -EINVAL;
  return (flags & pasid) !== 0 ? -EOPNOTSUPP : 0;
}
