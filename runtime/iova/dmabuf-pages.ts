/**
 * The pages of a dma-buf: one physical range, which its exporter can take back. They are neither pinned nor charged,
 * and no in-kernel access can have them.
 *
 * When the range is revoked, every area over it is cleared from every page table, and SYNCed, before the exporter
 * goes on. The areas stay; they lead nowhere from then on, also in page tables that come later.
 *
 * @source drivers/iommu/iommufd/pages.c iopt_alloc_dmabuf_pages, iopt_revoke_notify, iopt_dmabuf_track_domain
 */
import { EFAULT, EINVAL, ENOMEM, EPERM } from '../../uapi/abi/errno.js';
import type { DmaBuf, DmaBufImporter } from '../core/dmabuf.js';
import type { IoptArea } from './area.js';
import { ACCESS_RW_WRITE, IoptPages, type PagesHost } from './pages.js';
import type { PinnableMemory } from './pinnable-memory.js';

/** Whoever has an area over the pages in page tables. */
export interface AreaOwner {
  /** Out of every page table, with the SYNCs. */
  revokeArea(area: IoptArea, pages: IoptPages): void;
}

/** Longest range that one entry of Linux's pfn_batch can say, pages. */
const MAX_NPFNS = 0xffff_ffff;

const NO_SOURCE: PinnableMemory = { runAt: () => -EFAULT, pin: () => undefined, unpin: () => undefined };

export class DmabufPages extends IoptPages implements DmaBufImporter {
  readonly #dmabuf: DmaBuf;
  /** Frame of index 0; -1 until attached. */
  #firstPfn = -1;
  readonly #areas = new Map<IoptArea, AreaOwner>();

  private constructor(host: PagesHost, dmabuf: DmaBuf, startPage: number, npages: number, writable: boolean) {
    super(host, NO_SOURCE, startPage, npages, writable, 'dmabuf');
    this.#dmabuf = dmabuf;
  }

  /**
   * @param startPage  of the buffer
   * @param length     bytes that will be mapped, from a byte of that page on
   * @returns pages that hold the buffer | -ENODEV it was taken back | -EOPNOTSUPP its exporter has no such range |
   *   -EINVAL longer than 2^32 - 2 pages | -ENOMEM
   */
  static import(
    host: PagesHost,
    dmabuf: DmaBuf,
    startPage: number,
    npages: number,
    length: bigint,
    writable: boolean,
  ): DmabufPages | number {
    if (length >> 12n >= BigInt(MAX_NPFNS)) return -EINVAL;
    const { core } = host;
    if (core.allocFails('iopt_pages') || core.allocFails('dma_buf_attachment')) return -ENOMEM;
    const pages = new DmabufPages(host, dmabuf, startPage, npages, writable);
    const range = dmabuf.attach(pages);
    if (typeof range === 'number') return range;
    pages.#firstPfn = range.pfn + startPage;
    dmabuf.get();
    return pages;
  }

  /** An area over these pages is mapped. */
  track(area: IoptArea, owner: AreaOwner): void {
    this.#areas.set(area, owner);
  }

  untrack(area: IoptArea): void {
    this.#areas.delete(area);
  }

  invalidateMappings(): void {
    if (this.revoked) return;
    for (const [area, owner] of this.#areas) owner.revokeArea(area, this);
    this.revoked = true;
  }

  override acquire(_first: number, _last: number): number {
    return !this.revoked && this.host.core.allocFails('pfn_batch') ? -ENOMEM : 0;
  }

  override release(_first: number, _last: number): void {
    // Nothing is pinned: the attachment keeps the memory.
  }

  override forEachRun(
    first: number,
    last: number,
    visit: (index: number, pfn: number, pages: number) => number,
  ): number {
    return this.revoked ? 0 : Math.min(visit(first, this.#firstPfn + first, last - first + 1), 0);
  }

  override soleRun(first: number, _last: number): number {
    return this.revoked ? -1 : this.#firstPfn + first;
  }

  /** 7.0 takes its own bookkeeping for a user address, and finds nothing there. */
  override addAccess(_first: number, _last: number, _out: number[], flags: number): number {
    if ((flags & ACCESS_RW_WRITE) !== 0 && !this.writable) return -EPERM;
    return this.host.core.compat === '7.0' ? -EFAULT : -EINVAL;
  }

  override rw(_index: number, _offset: number, _data: Uint8Array, flags: number): number {
    return (flags & ACCESS_RW_WRITE) !== 0 && !this.writable ? -EPERM : -EINVAL;
  }

  protected override released(): void {
    this.#dmabuf.detach(this);
    this.#dmabuf.put();
  }
}
