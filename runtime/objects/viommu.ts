/**
 * vIOMMU: one VM's slice of one physical IOMMU, over a nest parent. struct iommufd_viommu.
 *
 * The driver's half lies in shared memory, so the object's payload there says where: that is all another
 * thread needs for an invalidation.
 *
 * Not modelled: vendor data at allocation (Tegra241), HW queues.
 *
 * @source drivers/iommu/iommufd/viommu.c, driver.c
 */
import { EINVAL, ENOENT, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import { IOMMU_VIOMMU_TYPE_DEFAULT, type ViommuAlloc } from '../../uapi/iommufd/viommu.js';
import type { IommufdCtx } from '../core/ctx.js';
import { IommufdObject } from '../core/iommufd-object.js';
import {
  driverKey,
  OBJ_DEVICE,
  OBJ_HWPT_PAGING,
  OBJ_VIOMMU,
  VIOMMU_DRIVER,
  VIOMMU_SHARED_BASE,
} from '../core/objects-layout.js';
import type { UcmdOf } from '../core/ucmd.js';
import type { DriverViommu, IommuInstance } from '../drivers/contract.js';
import type { Device } from './device.js';
import type { HwptPaging } from './hwpt.js';
import type { Vdevice } from './vdevice.js';
import type { Veventq } from './veventq.js';

export class Viommu extends IommufdObject {
  readonly parent: HwptPaging;
  readonly driver: DriverViommu;
  /** By virtual ID. */
  readonly vdevices = new Map<bigint, Vdevice>();
  /** By type. */
  readonly veventqs = new Map<number, Veventq>();

  constructor(ctx: IommufdCtx, id: number, parent: HwptPaging, driver: DriverViommu) {
    super(ctx, id, OBJ_VIOMMU);
    this.parent = parent;
    this.driver = driver;
    parent.addUser();
    ctx.objects.setPayload(id, VIOMMU_SHARED_BASE, driver.sharedBase);
    ctx.objects.setPayload(id, VIOMMU_DRIVER, driverKey(driver.iommu.driver));
    ctx.core.viommus.set(driver, this);
  }

  get iommu(): IommuInstance {
    return this.driver.iommu;
  }

  /** An event from the hardware, with virtual IDs. Without a queue of its type nobody wants it. */
  reportEvent(type: number, data: Uint8Array): void {
    this.veventqs.get(type)?.report(data);
  }

  override destroy(): void {
    this.ctx.core.viommus.delete(this.driver);
    this.driver.destroy();
    this.parent.dropUser();
  }
}

/** @source viommu.c iommufd_viommu_alloc_ioctl */
export function viommuAlloc(ucmd: UcmdOf<typeof ViommuAlloc>): number {
  const { ctx, cmd } = ucmd;
  if (cmd.flags !== 0 || cmd.type === IOMMU_VIOMMU_TYPE_DEFAULT) return -EOPNOTSUPP;
  const device = ctx.get<Device>(cmd.devId, OBJ_DEVICE);
  if (device === undefined) return -ENOENT;
  const parent = ctx.get<HwptPaging>(cmd.hwptId, OBJ_HWPT_PAGING);
  if (parent === undefined) {
    ctx.put(device);
    return -ENOENT;
  }
  const viommu = allocOn(ctx, device, parent, cmd.type);
  ctx.put(parent);
  ctx.put(device);
  if (typeof viommu === 'number') return viommu;
  ucmd.newObject = viommu;
  cmd.outViommuId = viommu.id;
  return ucmd.respond();
}

function allocOn(ctx: IommufdCtx, device: Device, parent: HwptPaging, type: number): Viommu | number {
  if (!parent.nestParent) return -EINVAL;
  const id = ctx.objects.reserve(OBJ_VIOMMU);
  if (id < 0) return id;
  const driver = device.iommu.allocViommu(device.host, parent.domain, type);
  if (typeof driver === 'number') {
    ctx.objects.free(id);
    return driver;
  }
  return new Viommu(ctx, id, parent, driver);
}
