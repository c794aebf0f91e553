/**
 * vIOMMU: one VM's slice of one physical IOMMU, over a nest parent. struct iommufd_viommu.
 *
 * The driver's half lies in shared memory, so the object's payload there says where: that is all another
 * thread needs for an invalidation.
 *
 * @source drivers/iommu/iommufd/viommu.c, driver.c
 */
import { bug } from '../../hw/memory/bug.js';
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
import type { DriverHwQueue, DriverViommu, IommuInstance, ViommuOwner } from '../drivers/contract.js';
import { userData } from '../drivers/user-data.js';
import type { Device } from './device.js';
import type { HwQueue } from './hw-queue.js';
import type { HwptPaging } from './hwpt.js';
import type { Vdevice } from './vdevice.js';
import type { Veventq } from './veventq.js';

export class Viommu extends IommufdObject implements ViommuOwner {
  readonly parent: HwptPaging;
  /** By virtual ID. */
  readonly vdevices = new Map<bigint, Vdevice>();
  /** By type. */
  readonly veventqs = new Map<number, Veventq>();
  /** By the driver's half. */
  readonly hwQueues = new Map<DriverHwQueue, HwQueue>();
  /** Null while it is being made: what the driver did not finish it has undone. */
  #driver: DriverViommu | null = null;

  constructor(ctx: IommufdCtx, id: number, parent: HwptPaging) {
    super(ctx, id, OBJ_VIOMMU);
    this.parent = parent;
    parent.addUser();
  }

  /** The driver's half is made; before the object is published. */
  adopt(driver: DriverViommu): void {
    const { ctx, id } = this;
    this.#driver = driver;
    ctx.objects.setPayload(id, VIOMMU_SHARED_BASE, driver.sharedBase);
    ctx.objects.setPayload(id, VIOMMU_DRIVER, driverKey(driver.iommu.driver));
    ctx.core.viommus.set(driver, this);
  }

  get driver(): DriverViommu {
    return this.#driver ?? bug(`vIOMMU ${this.id} has no driver yet`);
  }

  get iommu(): IommuInstance {
    return this.driver.iommu;
  }

  override get invalidator(): DriverViommu {
    return this.driver;
  }

  allocMmap(linear: number, bytes: number): number {
    return this.ctx.mmaps.alloc(this, linear, bytes);
  }

  freeMmap(offset: number): void {
    this.ctx.mmaps.free(this, offset);
  }

  allocFails(site: string): boolean {
    return this.ctx.core.allocFails(site);
  }

  /**
   * An event from the hardware, with virtual IDs.
   * @returns 0 | -EOPNOTSUPP nobody has a queue for its type | -ENOMEM it is lost, which the queue says
   * @source driver.c iommufd_viommu_report_event
   */
  reportEvent(type: number, data: Uint8Array): number {
    return this.veventqs.get(type)?.report(data) ?? -EOPNOTSUPP;
  }

  override destroy(): void {
    if (this.#driver !== null) {
      this.ctx.core.viommus.delete(this.#driver);
      this.#driver.destroy();
    }
    this.parent.dropUser();
  }
}

/** @source viommu.c iommufd_viommu_alloc_ioctl */
export function viommuAlloc(ucmd: UcmdOf<typeof ViommuAlloc>): number {
  const { ctx, cmd } = ucmd;
  if (cmd.flags !== 0 || cmd.type === IOMMU_VIOMMU_TYPE_DEFAULT) return -EOPNOTSUPP;
  const device = ctx.get<Device>(cmd.devId, OBJ_DEVICE);
  if (device === undefined) return -ENOENT;
  let status = -EOPNOTSUPP;
  if (device.iommu.supportsViommu(device.host, cmd.type)) {
    const parent = ctx.get<HwptPaging>(cmd.hwptId, OBJ_HWPT_PAGING);
    status = parent === undefined ? -ENOENT : allocOn(ucmd, device, parent);
    if (parent !== undefined) ctx.put(parent);
  }
  ctx.put(device);
  return status;
}

function allocOn(ucmd: UcmdOf<typeof ViommuAlloc>, device: Device, parent: HwptPaging): number {
  const { ctx, cmd } = ucmd;
  if (!parent.nestParent) return -EINVAL;
  const id = ctx.reserve(OBJ_VIOMMU);
  if (id < 0) return id;
  const viommu = new Viommu(ctx, id, parent);
  ucmd.newObject = viommu;
  const data = userData(ctx.core.current.mm, cmd.type, cmd.dataUptr, cmd.dataLen);
  const driver = device.iommu.allocViommu(device.host, parent.domain, cmd.type, data, viommu);
  if (typeof driver === 'number') return driver;
  viommu.adopt(driver);
  cmd.outViommuId = id;
  return ucmd.respond();
}
