/**
 * The memory of a guest's queue, held for hardware that reads it by physical address: pinned, so that it cannot be
 * anybody else's, and contiguous, because the hardware has nothing but its first address.
 *
 * @source drivers/iommu/iommufd/viommu.c iommufd_hw_queue_alloc_phys, iommufd_hw_queue_destroy_access
 */
import { EFAULT, ENOMEM, ERANGE } from '../../uapi/abi/errno.js';
import type { IommufdCtx } from '../core/ctx.js';
import type { PagesSlice } from '../iova/area.js';
import type { Ioas } from './ioas.js';

const PAGE = 4096n;
const SIZE_MAX = 0xffff_ffff_ffff_ffffn;
/** KMALLOC_MAX_SIZE of pointers: Linux lists the pages one by one, and fails above INT_MAX bytes of list. */
const MAX_LIST_PAGES = 0x7fff_ffffn / 8n;

export class GuestQueuePages {
  /** Byte PA of the queue. */
  readonly basePa: number;
  readonly #ioas: Ioas;
  readonly #slices: readonly PagesSlice[];

  private constructor(ioas: Ioas, slices: readonly PagesSlice[], basePa: number) {
    this.#ioas = ioas;
    this.#slices = slices;
    this.basePa = basePa;
  }

  /**
   * @returns it | -ERANGE the page count overflows | -ENOMEM | -ENOENT not all mapped | -EFAULT not contiguous
   */
  static pin(ctx: IommufdCtx, ioas: Ioas, iova: bigint, length: bigint): GuestQueuePages | number {
    const offset = iova % PAGE;
    if (offset + length + PAGE - 1n > SIZE_MAX) return -ERANGE;
    const count = (offset + length + PAGE - 1n) / PAGE;
    if (count > MAX_LIST_PAGES || ctx.core.allocFails('queue page list')) return -ENOMEM;
    const slices = ioas.iopt.getPages(iova - offset, count * PAGE);
    if (typeof slices === 'number') return slices;
    const held = hold(slices);
    if (held < 0) {
      for (const { pages } of slices) pages.put();
      return held;
    }
    ioas.addUser();
    const pinned = new GuestQueuePages(ioas, slices, held * Number(PAGE) + Number(offset));
    if (!contiguous(slices)) {
      pinned.release();
      return -EFAULT;
    }
    return pinned;
  }

  release(): void {
    for (const slice of this.#slices) {
      slice.pages.release(slice.startPage, lastPageOf(slice));
      slice.pages.put();
    }
    this.#ioas.dropUser();
  }
}

const lastPageOf = ({ startPage, startOffset, length }: PagesSlice): number =>
  startPage + Number((BigInt(startOffset) + length - 1n) / PAGE);

/** Pins all of the slices, or none. @returns the frame number of the first page | -EFAULT */
function hold(slices: readonly PagesSlice[]): number {
  for (const [i, slice] of slices.entries()) {
    const status = slice.pages.acquire(slice.startPage, lastPageOf(slice));
    if (status === 0) continue;
    for (const held of slices.slice(0, i)) held.pages.release(held.startPage, lastPageOf(held));
    return status;
  }
  let first = -EFAULT;
  const { pages, startPage } = slices[0]!;
  pages.forEachRun(startPage, startPage, (_, pfn) => {
    first = pfn;
    return 0;
  });
  return first;
}

function contiguous(slices: readonly PagesSlice[]): boolean {
  let next = -1;
  let whole = true;
  for (const slice of slices)
    slice.pages.forEachRun(slice.startPage, lastPageOf(slice), (_, pfn, pages) => {
      if (next >= 0 && pfn !== next) whole = false;
      next = pfn + pages;
      return 0;
    });
  return whole;
}
