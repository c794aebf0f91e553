/**
 * HW queue: a queue in guest memory that the hardware reads by itself, by physical address. struct
 * iommufd_hw_queue.
 *
 * The guest could otherwise take the memory away under the hardware's hands (IOAS_UNMAP), so its pages stay
 * pinned and mapped as long as the queue lives (guest-queue-pages.ts), and they have to be contiguous.
 *
 * @source drivers/iommu/iommufd/viommu.c iommufd_hw_queue_alloc_ioctl, iommufd_hw_queue_destroy
 */
import { bug } from '../../hw/memory/bug.js';
import { EINVAL, ENOENT, EOPNOTSUPP, EOVERFLOW } from '../../uapi/abi/errno.js';
import { type HwQueueAlloc, IOMMU_HW_QUEUE_TYPE_DEFAULT } from '../../uapi/iommufd/hw-queue.js';
import { IommufdObject } from '../core/iommufd-object.js';
import { OBJ_HW_QUEUE, OBJ_VIOMMU } from '../core/objects-layout.js';
import type { UcmdOf } from '../core/ucmd.js';
import type { DriverHwQueue, DriverHwQueues } from '../drivers/contract.js';
import { U64_MAX } from '../iova/area.js';
import { GuestQueuePages } from './guest-queue-pages.js';
import type { Viommu } from './viommu.js';

export class HwQueue extends IommufdObject {
  readonly viommu: Viommu;
  readonly #pages: GuestQueuePages;
  #driver: DriverHwQueue | null = null;

  /** @param pages  of the guest's queue; they move in here */
  constructor(id: number, viommu: Viommu, pages: GuestQueuePages) {
    super(viommu.ctx, id, OBJ_HW_QUEUE);
    this.viommu = viommu;
    this.#pages = pages;
    viommu.addUser();
  }

  adopt(driver: DriverHwQueue): void {
    this.#driver = driver;
    this.viommu.hwQueues.set(driver, this);
    this.#before()?.addUser();
  }

  override destroy(): void {
    const driver = this.#driver;
    if (driver !== null) {
      driver.destroy();
      this.#before()?.dropUser();
      this.viommu.hwQueues.delete(driver);
    }
    this.#pages.release();
    this.viommu.dropUser();
  }

  /** The queue that has to outlive this one. */
  #before(): HwQueue | null {
    const on = this.#driver?.dependsOn ?? null;
    if (on === null) return null;
    return this.viommu.hwQueues.get(on) ?? bug('a HW queue depends on one of another vIOMMU');
  }
}

/** @source viommu.c iommufd_hw_queue_alloc_ioctl */
export function hwQueueAlloc(ucmd: UcmdOf<typeof HwQueueAlloc>): number {
  const { ctx, cmd } = ucmd;
  if (cmd.flags !== 0 || cmd.type === IOMMU_HW_QUEUE_TYPE_DEFAULT) return -EOPNOTSUPP;
  if (cmd.length === 0n) return -EINVAL;
  if (cmd.nestingParentIova + cmd.length - 1n > U64_MAX) return -EOVERFLOW;
  const viommu = ctx.get<Viommu>(cmd.viommuId, OBJ_VIOMMU);
  if (viommu === undefined) return -ENOENT;
  const queues = viommu.driver.hwQueues;
  const status = queues?.supports(cmd.type) ? allocOn(ucmd, viommu, queues) : -EOPNOTSUPP;
  ctx.put(viommu);
  return status;
}

function allocOn(ucmd: UcmdOf<typeof HwQueueAlloc>, viommu: Viommu, queues: DriverHwQueues): number {
  const { ctx, cmd } = ucmd;
  const id = ctx.reserve(OBJ_HW_QUEUE);
  if (id < 0) return id;
  const pages = GuestQueuePages.pin(ctx, viommu.parent.ioas, cmd.nestingParentIova, cmd.length);
  if (typeof pages === 'number') {
    ctx.objects.free(id);
    return pages;
  }
  const queue = new HwQueue(id, viommu, pages);
  ucmd.newObject = queue;
  const { type, index, length, nestingParentIova: iova } = cmd;
  const driver = queues.init({ type, index, basePa: pages.basePa, iova, lengthBytes: length });
  if (typeof driver === 'number') return driver;
  queue.adopt(driver);
  cmd.outHwQueueId = id;
  return ucmd.respond();
}
