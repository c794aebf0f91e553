/**
 * The memory of a guest's queue, held for hardware that reads it by physical address: pinned by an access that locks
 * it, so that an unmap is -EBUSY, and contiguous, because the hardware has nothing but its first address.
 *
 * @source drivers/iommu/iommufd/viommu.c iommufd_hw_queue_alloc_phys, iommufd_hw_queue_destroy_access
 */
import { EFAULT, ENOMEM, ERANGE } from '../../uapi/abi/errno.js';
import type { IommufdCtx } from '../core/ctx.js';
import { Access } from './access.js';
import type { Ioas } from './ioas.js';

const PAGE = 4096n;
const SIZE_MAX = 0xffff_ffff_ffff_ffffn;
/** Linux lists the pages one by one, up to INT_MAX bytes of pointers; no hardware's queue comes near this. */
const MAX_LIST_PAGES = 2n ** 22n;

export class GuestQueuePages {
  /** Byte PA of the queue. */
  readonly basePa: number;
  readonly #access: Access;
  readonly #iova: bigint;
  readonly #length: bigint;

  private constructor(access: Access, iova: bigint, length: bigint, basePa: number) {
    this.#access = access;
    this.#iova = iova;
    this.#length = length;
    this.basePa = basePa;
  }

  /**
   * @returns it | -ERANGE the page count overflows | -ENOMEM | -ENOENT not all mapped | -EINVAL pages that are
   *   mapped in parts | -EPERM not readable | -EADDRINUSE mappings of less than a page | -EFAULT not contiguous
   */
  static pin(ctx: IommufdCtx, ioas: Ioas, iova: bigint, length: bigint): GuestQueuePages | number {
    const offset = iova % PAGE;
    if (offset + length + PAGE - 1n > SIZE_MAX) return -ERANGE;
    const count = (offset + length + PAGE - 1n) / PAGE;
    if (count > MAX_LIST_PAGES || ctx.core.allocFails('queue page list')) return -ENOMEM;
    const access = Access.createInternal(ctx);
    if (typeof access === 'number') return access;
    const first = iova - offset;
    const frames: number[] = [];
    let status = access.attachInternal(ioas);
    if (status === 0) status = access.pinPages(first, count * PAGE, frames);
    if (status < 0) {
      access.destroyAccess();
      return status;
    }
    const basePa = frames[0]! * Number(PAGE) + Number(offset);
    const pinned = new GuestQueuePages(access, first, count * PAGE, basePa);
    if (frames.some((frame, i) => frame !== frames[0]! + i)) {
      pinned.release();
      return -EFAULT;
    }
    return pinned;
  }

  release(): void {
    this.#access.unpinPages(this.#iova, this.#length);
    this.#access.detach();
    this.#access.destroyAccess();
  }
}
