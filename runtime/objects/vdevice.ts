/**
 * vDEVICE: a bound device under the ID that its VM's IOMMU knows it by. struct iommufd_vdevice.
 *
 * It holds a short reference on its device all its life. Unbind takes the vDEVICE away by force and leaves its
 * ID reserved (a tombstone), so that a late IOMMU_DESTROY of it cannot hit another object: it is -ENOENT.
 *
 * @source drivers/iommu/iommufd/viommu.c iommufd_vdevice_alloc_ioctl
 */
import { EEXIST, EINVAL, ENOENT, ENOMEM } from '../../uapi/abi/errno.js';
import type { VdeviceAlloc } from '../../uapi/iommufd/vdevice.js';
import { IommufdObject } from '../core/iommufd-object.js';
import { OBJ_DEVICE, OBJ_VDEVICE, OBJ_VIOMMU } from '../core/objects-layout.js';
import type { UcmdOf } from '../core/ucmd.js';
import type { Device } from './device.js';
import type { Viommu } from './viommu.js';

export class Vdevice extends IommufdObject {
  readonly viommu: Viommu;
  readonly device: Device;
  readonly virtId: bigint;

  /** @param device  with a short reference, which moves in here */
  constructor(id: number, viommu: Viommu, device: Device, virtId: bigint) {
    super(viommu.ctx, id, OBJ_VDEVICE);
    this.viommu = viommu;
    this.device = device;
    this.virtId = virtId;
    viommu.addUser();
    viommu.vdevices.set(virtId, this);
    device.vdevice = this;
  }

  override destroy(): void {
    const { viommu, device } = this;
    viommu.driver.vdeviceDestroy(device.host, this.virtId);
    viommu.vdevices.delete(this.virtId);
    viommu.dropUser();
    device.vdevice = null;
    this.ctx.put(device);
  }
}

/** @source viommu.c iommufd_vdevice_alloc_ioctl */
export function vdeviceAlloc(ucmd: UcmdOf<typeof VdeviceAlloc>): number {
  const { ctx, cmd } = ucmd;
  const viommu = ctx.get<Viommu>(cmd.viommuId, OBJ_VIOMMU);
  if (viommu === undefined) return -ENOENT;
  const device = ctx.get<Device>(cmd.devId, OBJ_DEVICE);
  if (device === undefined) {
    ctx.put(viommu);
    return -ENOENT;
  }
  const vdevice = allocOn(viommu, device, cmd.virtId);
  ctx.put(viommu);
  if (typeof vdevice === 'number') {
    ctx.put(device);
    return vdevice;
  }
  ucmd.newObject = vdevice;
  cmd.outVdeviceId = vdevice.id;
  return ucmd.respond();
}

function allocOn(viommu: Viommu, device: Device, virtId: bigint): Vdevice | number {
  const { ctx } = viommu;
  if (viommu.iommu !== device.iommu) return -EINVAL;
  if (device.destroying) return -ENOENT;
  if (device.vdevice !== null) return -EEXIST;
  const id = ctx.reserve(OBJ_VDEVICE);
  if (id < 0) return id;
  let status = 0;
  if (viommu.vdevices.has(virtId)) status = -EEXIST;
  else if (ctx.core.allocFails('vdevs slot')) status = -ENOMEM;
  else status = viommu.driver.vdeviceInit(device.host, virtId);
  if (status < 0) {
    ctx.objects.free(id);
    return status;
  }
  return new Vdevice(id, viommu, device, virtId);
}
