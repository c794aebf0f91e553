/**
 * The IOVA to page map behind one IOAS: areas of IOVA over pinned user pages, mirrored into every domain that
 * is attached. struct io_pagetable.
 *
 *   IOVA   |--area--|      |----area----|          iova-space.ts
 *              |                 |
 *   pages  [ IoptPages ]    [ IoptPages ]          pages.ts, shared by IOAS_COPY
 *              |                 |
 *   domains  every area is mapped in all of them   domain-fill.ts
 *
 * Core thread only. What Linux guards with domains_rwsem and iova_rwsem runs here undisturbed, but an area
 * is still taken out of use (pages = null) before its domains are cleared, because a SYNC may run others.
 *
 * @source drivers/iommu/iommufd/io_pagetable.c
 */
import { bug } from '../../hw/memory/bug.js';
import {
  EADDRINUSE,
  EBUSY,
  EDEADLOCK,
  EEXIST,
  EINVAL,
  ENOENT,
  ENOMEM,
  EOVERFLOW,
  EPERM,
} from '../../uapi/abi/errno.js';
import { IOMMU_WRITE, type PagingDomain } from '../drivers/contract.js';
import { AccessList, type IoptAccess } from './access-list.js';
import {
  addressOf,
  firstIova,
  type IoptArea,
  lastIova,
  offsetOf,
  PAGE_LG2,
  PAGE_SIZE,
  type PagesSlice,
  pageOf,
  pagesIn,
  sliceAt,
  U64_MAX,
} from './area.js';
import { type DirtyRequest, readAndClearDirty, setDirtyTracking } from './dirty.js';
import { type AreaOwner, DmabufPages } from './dmabuf-pages.js';
import {
  announce,
  type FillContext,
  fillDomains,
  letGo,
  mapArea,
  newGather,
  syncDomain,
  trackFails,
  unfillDomains,
  unmapArea,
} from './domain-fill.js';
import { IovaSpace } from './iova-space.js';
import { IoptPages, type PagesHost } from './pages.js';
import { splitArea } from './split-area.js';
import type { BitmapMemory } from './user-bitmap.js';

/** SIZE_MAX - PAGE_SIZE: the longest mapping whose page count can be computed. */
const MAX_LENGTH = U64_MAX - BigInt(PAGE_SIZE);
/** How often accesses are told to let go of an area before they count as stuck. */
const UNMAP_TRIES = 100;

export class IoPagetable implements AreaOwner {
  readonly space: IovaSpace;
  /** In-kernel users of the IOAS. */
  readonly accesses = new AccessList();
  readonly #domains: PagingDomain[] = [];
  readonly #context: FillContext;
  readonly #host: PagesHost;

  /** @param host  who maps, and pays */
  constructor(context: FillContext, host: PagesHost) {
    this.#context = context;
    this.#host = host;
    this.space = new IovaSpace((site) => context.allocFails(site));
  }

  get domains(): readonly PagingDomain[] {
    return this.#domains;
  }

  /**
   * Map user memory.
   * @param iova  where, or null to choose
   * @param prot  IOMMU_READ | IOMMU_WRITE
   * @returns the IOVA, or -EINVAL | -EOVERFLOW | -EEXIST | -ENOSPC | -EFAULT | -ENOMEM as a negative bigint
   * @source iopt_map_user_pages
   */
  mapUserPages(userVa: bigint, length: bigint, iova: bigint | null, prot: number): bigint {
    if (userVa + length > U64_MAX) return BigInt(-EOVERFLOW);
    if (length === 0n || length > MAX_LENGTH) return BigInt(-EINVAL);
    const startOffset = offsetOf(userVa);
    if (this.#context.allocFails('iopt_pages')) return BigInt(-ENOMEM);
    const pages = this.#userPages(pageOf(userVa), pagesIn(startOffset, length), prot);
    const where = this.mapPages([{ pages, startPage: 0, startOffset, length }], length, iova, prot);
    pages.put();
    return where;
  }

  /**
   * mapUserPages() of whole pages at a given place, without bigints: what a device driver's map comes to.
   * @param count  more than 0; neither range may reach the end of a 64-bit address space
   * @returns 0 | -EINVAL reserved | -EEXIST | -EFAULT | -ENOMEM
   */
  mapWholePages(vaPage: number, count: number, iovaPage: number, prot: number): number {
    const lastPage = iovaPage + count - 1;
    if (this.#context.allocFails('iopt_pages') || this.#context.allocFails('iopt_area')) return -ENOMEM;
    const free = this.space.checkPages(iovaPage, lastPage);
    if (free < 0) return free;
    const pages = this.#userPages(vaPage, count, prot);
    const area: IoptArea = {
      firstPage: iovaPage,
      firstOffset: 0,
      lastPage,
      lastOffset: PAGE_SIZE - 1,
      pageOffset: 0,
      pagesFirst: 0,
      pagesLast: count - 1,
      prot,
      pages: null,
      numAccesses: 0,
      numLocks: 0,
      preventAccess: false,
    };
    this.space.insertArea(area);
    const status = fillDomains(this.#context, area, pages, this.#domains);
    if (status < 0) {
      this.space.removeArea(area);
      pages.put();
      return status;
    }
    area.pages = pages;
    return 0;
  }

  /**
   * unmap() of exactly one area of whole pages.
   * @returns 0 | 1 that is not what is there: unmap() has to look
   */
  unmapWholePages(iovaPage: number, count: number): number {
    const lastPage = iovaPage + count - 1;
    const area = this.space.areas.firstIn(iovaPage, 0, lastPage, PAGE_SIZE - 1);
    if (area === undefined || area.pages === null || area.numAccesses > 0) return 1;
    if (area.firstPage !== iovaPage || area.firstOffset !== 0) return 1;
    if (area.lastPage !== lastPage || area.lastOffset !== PAGE_SIZE - 1) return 1;
    this.#unmapArea(area, area.pages);
    return 0;
  }

  /**
   * Map slices of pages one after the other; the areas take references of their own.
   * @returns as mapUserPages, and -EPERM write access to read-only pages
   * @source iopt_map_pages
   */
  mapPages(slices: readonly PagesSlice[], length: bigint, iova: bigint | null, prot: number): bigint {
    const { space } = this;
    for (const _ of slices) if (this.#context.allocFails('iopt_area')) return BigInt(-ENOMEM);
    if ((length & BigInt(space.alignment - 1)) !== 0n || length === 0n) return BigInt(-EINVAL);
    let where: bigint;
    if (iova === null) {
      const first = slices[0]!;
      const address = addressOf(first.pages.startPage + first.startPage, first.startOffset);
      where = space.allocate(address, length);
      if (where < 0n) return where;
    } else {
      const status = space.check(iova, length);
      if (status < 0) return BigInt(status);
      where = iova;
    }
    const areas: IoptArea[] = [];
    let status = this.#insertAreas(slices, where, prot, areas);
    let filled = 0;
    while (status === 0 && filled < areas.length) {
      status = fillDomains(this.#context, areas[filled]!, slices[filled]!.pages, this.#domains);
      if (status === 0) filled++;
    }
    if (status < 0) {
      if (this.#domains.length > 0)
        for (let i = 0; i < filled; i++)
          unfillDomains(this.#context, areas[i]!, slices[i]!.pages, this.#domains);
      for (const area of areas) space.removeArea(area);
      return BigInt(status);
    }
    areas.forEach((area, i) => {
      const { pages } = slices[i]!;
      area.pages = pages.get();
      if (pages instanceof DmabufPages) pages.track(area, this);
    });
    return where;
  }

  /**
   * The pages behind a range without holes, referenced.
   * @returns slices, each of which the caller puts | -EINVAL | -EOVERFLOW | -ENOENT a hole | -ENOMEM
   * @source iopt_get_pages
   */
  getPages(iova: bigint, length: bigint): PagesSlice[] | number {
    if (length === 0n) return -EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return -EOVERFLOW;
    const slices: PagesSlice[] = [];
    let at = iova;
    let area = this.#areaIn(at, at);
    let status = -ENOENT;
    while (area?.pages && firstIova(area) <= at) {
      if (this.#context.allocFails('iopt_pages_list')) {
        status = -ENOMEM;
        break;
      }
      const end = lastIova(area) < last ? lastIova(area) : last;
      slices.push(sliceAt(area, area.pages.get(), at, end - at + 1n));
      if (end === last) return slices;
      at = end + 1n;
      area = this.#areaIn(at, at);
    }
    for (const { pages } of slices) pages.put();
    return status;
  }

  /** @returns status and bytes unmapped; on failure some may have been. @source iopt_unmap_iova */
  unmap(iova: bigint, length: bigint): { status: number; bytes: bigint } {
    if (length === 0n) return { status: -EINVAL, bytes: 0n };
    const last = iova + length - 1n;
    if (last > U64_MAX) return { status: -EOVERFLOW, bytes: 0n };
    return this.#unmapRange(iova, last);
  }

  unmapAll(): { status: number; bytes: bigint } {
    return this.#unmapRange(0n, U64_MAX);
  }

  /**
   * Mirror everything into one more domain. Nothing changes on failure.
   * @returns 0 | -EADDRINUSE a mapping lies outside its aperture or between its pages | -EINVAL its pages are
   *   larger than the CPU's | -EFAULT | -ENOMEM
   * @source iopt_table_add_domain
   */
  addDomain(domain: PagingDomain): number {
    const { space } = this;
    if (this.#domains.includes(domain)) return -EEXIST;
    const alignment = Math.max(2 ** (domain.pageSizesLg2[0] ?? PAGE_LG2), space.alignment);
    if (alignment > PAGE_SIZE) return -EINVAL;
    if (alignment !== space.alignment && !this.#fitsAlignment(alignment)) return -EADDRINUSE;
    const unit = BigInt(2 ** domain.unitLg2);
    const first = BigInt(domain.aperture.firstUnit) * unit;
    const last = (BigInt(domain.aperture.lastUnit) + 1n) * unit - 1n;
    let status = 0;
    if (first !== 0n) status = space.reserveBytes(0n, first - 1n, domain);
    if (status === 0 && last < U64_MAX) status = space.reserveBytes(last + 1n, U64_MAX, domain);
    if (status === 0 && this.#context.allocFails('domains')) status = -ENOMEM;
    if (status === 0) status = this.#fillDomain(domain);
    if (status < 0) {
      space.unreserve(domain);
      return status;
    }
    space.alignment = alignment;
    this.#domains.push(domain);
    return 0;
  }

  /** @source iopt_table_remove_domain */
  removeDomain(domain: PagingDomain): void {
    const index = this.#domains.indexOf(domain);
    if (index < 0) bug('removing a domain that is not in the io_pagetable');
    this.#domains.splice(index, 1);
    this.#unfillDomain(domain, undefined);
    this.space.unreserve(domain);
    if (this.#updateAlignment() < 0) bug('fewer domains asked for more alignment');
  }

  /** @returns 0 | -EADDRINUSE a mapping lies between its pages | -ENOMEM. @source iopt_add_access */
  addAccess(access: IoptAccess): number {
    if (this.#host.core.allocFails('access_list')) return -ENOMEM;
    this.accesses.add(access);
    const status = this.#updateAlignment();
    if (status < 0) this.accesses.remove(access);
    return status;
  }

  /** @source iopt_remove_access */
  removeAccess(access: IoptAccess): void {
    this.accesses.remove(access);
    if (this.#updateAlignment() < 0) bug('fewer accesses asked for more alignment');
  }

  /** Whether neighbouring pages may share a large IO page. */
  get largePages(): boolean {
    return this.#context.largePages;
  }

  /** @source iopt_enable_large_pages */
  enableLargePages(): void {
    this.#context.largePages = true;
    if (this.#updateAlignment() < 0) bug('large pages asked for more alignment');
  }

  /**
   * From here on every page has an IO page of its own, so that areas can be cut.
   * @returns 0 | -EINVAL something is mapped in a domain | -EADDRINUSE an area is not whole pages
   * @source iopt_disable_large_pages
   */
  disableLargePages(): number {
    const context = this.#context;
    if (!context.largePages) return 0;
    if (this.#domains.length > 0 && this.space.areas.size > 0) return -EINVAL;
    context.largePages = false;
    const status = this.#updateAlignment();
    if (status < 0) context.largePages = true;
    return status;
  }

  /**
   * Make areas end at each of some IOVAs, where there are any; on failure some may.
   * @returns 0 | -EBUSY | -EINVAL alignment, or there may be large pages | -ENOMEM
   * @source iopt_cut_iova
   */
  cutIova(iovas: readonly bigint[]): number {
    for (const iova of iovas) {
      const area = this.#areaIn(iova, iova);
      if (area === undefined) continue;
      const status = splitArea(this.#context, this.space, area, iova, this.#domains.length > 0);
      if (status < 0) return status;
    }
    return 0;
  }

  /** See dirty.ts. @param domain  one of this table's */
  setDirtyTracking(domain: PagingDomain, enable: boolean): number {
    return setDirtyTracking(this.#context, this.space, domain, enable);
  }

  /** See dirty.ts. @param memory  of the program whose bitmap it is */
  readAndClearDirty(domain: PagingDomain, request: DirtyRequest, memory: BitmapMemory): number {
    return readAndClearDirty(this.#context, this.space, domain, request, memory);
  }

  /**
   * What domains, accesses and single pages ask for now.
   * @returns 0 | -EADDRINUSE
   * @source iopt_calculate_iova_alignment
   */
  #updateAlignment(): number {
    let alignment = Math.max(this.accesses.alignment, this.#context.largePages ? 1 : PAGE_SIZE);
    for (const { pageSizesLg2 } of this.#domains)
      alignment = Math.max(alignment, 2 ** (pageSizesLg2[0] ?? PAGE_LG2));
    if (alignment > this.space.alignment && !this.#fitsAlignment(alignment)) return -EADDRINUSE;
    this.space.alignment = alignment;
    return 0;
  }

  #userPages(vaPage: number, npages: number, prot: number): IoptPages {
    const { mm } = this.#host.core.current;
    return new IoptPages(this.#host, mm, vaPage, npages, (prot & IOMMU_WRITE) !== 0);
  }

  /** @source iopt_unmap_iova_range */
  #unmapRange(start: bigint, last: bigint): { status: number; bytes: bigint } {
    let bytes = 0n;
    let from = start;
    let tries = 0;
    for (;;) {
      const area = this.#areaIn(from, last);
      if (area === undefined) return { status: 0, bytes };
      const { pages } = area;
      // Being mapped or unmapped by somebody else, or held by an object that has to be destroyed first.
      if (pages === null || area.numLocks > 0) return { status: -EBUSY, bytes };
      const areaFirst = firstIova(area);
      const areaLast = lastIova(area);
      if (areaFirst < from || areaLast > last) return { status: -ENOENT, bytes };
      if (areaFirst !== from) tries = 0;
      if (area.numAccesses > 0) {
        from = areaFirst;
        area.preventAccess = true;
        this.accesses.notifyUnmap(areaFirst, areaLast - areaFirst + 1n);
        if (++tries <= UNMAP_TRIES) continue;
        this.#context.log(`iommufd: an access does not let go of IOVA ${areaFirst}`);
        return { status: -EDEADLOCK, bytes };
      }
      this.#unmapArea(area, pages);
      bytes += areaLast - areaFirst + 1n;
      // What is mapped behind the cursor from now on is not ours to unmap.
      if (areaLast >= last) return { status: 0, bytes };
      from = this.#context.zoo['unmap-eats-concurrent-map'] ? start : areaLast + 1n;
    }
  }

  revokeArea(area: IoptArea, pages: IoptPages): void {
    if (this.#context.zoo['revoked-dmabuf-still-mapped'])
      for (const domain of this.#domains) unmapArea(area, domain, newGather(false));
    else if (this.#domains.length > 0) unfillDomains(this.#context, area, pages, this.#domains);
  }

  #unmapArea(area: IoptArea, pages: IoptPages): void {
    area.pages = null;
    if (pages instanceof DmabufPages) pages.untrack(area);
    if (this.#domains.length > 0) unfillDomains(this.#context, area, pages, this.#domains);
    this.space.removeArea(area);
    pages.put();
  }

  /** Areas without pages, so that the IOVA is taken. @returns 0 | -EPERM | -EINVAL | -EOVERFLOW, with some inserted */
  #insertAreas(slices: readonly PagesSlice[], iova: bigint, prot: number, areas: IoptArea[]): number {
    let at = iova;
    for (const { pages, startPage, startOffset, length } of slices) {
      if ((prot & IOMMU_WRITE) !== 0 && !pages.writable) return -EPERM;
      if ((startOffset & (this.space.alignment - 1)) !== 0) return -EINVAL;
      const pagesLast = startPage + pageOf(BigInt(startOffset) + length - 1n);
      if (pagesLast >= pages.npages) return -EOVERFLOW;
      const last = at + length - 1n;
      const area: IoptArea = {
        firstPage: pageOf(at),
        firstOffset: offsetOf(at),
        lastPage: pageOf(last),
        lastOffset: offsetOf(last),
        pageOffset: startOffset,
        pagesFirst: startPage,
        pagesLast,
        prot,
        pages: null,
        numAccesses: 0,
        numLocks: 0,
        preventAccess: false,
      };
      this.space.insertArea(area);
      areas.push(area);
      at = last + 1n;
    }
    return 0;
  }

  /** Every existing area into a domain that is not in the list yet. */
  #fillDomain(domain: PagingDomain): number {
    const first = this.#domains.length === 0;
    for (const area of this.space.areas) {
      const { pages } = area;
      if (pages === null) continue;
      let status = trackFails(this.#context, pages, 1);
      if (status === 0 && first) status = pages.acquire(area.pagesFirst, area.pagesLast);
      else if (status === 0 && !pages.revoked && this.#context.allocFails('pfn_batch')) status = -ENOMEM;
      if (status === 0) {
        if (first) announce(this.#context, area, pages);
        status = mapArea(this.#context, area, pages, domain);
        if (status < 0 && first) letGo(this.#context, area, pages, []);
      }
      if (status < 0) {
        this.#unfillDomain(domain, area);
        return status;
      }
    }
    return 0;
  }

  /** Areas before `end` (all without it) out of a domain that is not in the list; the last domain unpins. */
  #unfillDomain(domain: PagingDomain, end: IoptArea | undefined): void {
    const lastOne = this.#domains.length === 0;
    const gather = newGather(lastOne && this.#context.observer !== undefined);
    const cleared: IoptArea[] = [];
    for (const area of this.space.areas) {
      if (area === end) break;
      if (area.pages === null) continue;
      if (!area.pages.revoked) unmapArea(area, domain, gather);
      cleared.push(area);
    }
    if (cleared.length === 0) return;
    if (this.#context.bugs.earlyFree && lastOne)
      for (const area of cleared) letGo(this.#context, area, area.pages!, [gather]);
    const status = syncDomain(this.#context, domain, gather);
    if (this.#context.bugs.earlyFree || !lastOne) return;
    for (const area of cleared)
      if (area.pages!.mayRelease(status)) letGo(this.#context, area, area.pages!, [gather]);
      else area.pages!.withhold();
  }

  #fitsAlignment(alignment: number): boolean {
    const mask = alignment - 1;
    for (const area of this.space.areas)
      if (
        (area.firstOffset & mask) !== 0 ||
        ((area.lastOffset + 1) & mask) !== 0 ||
        (area.pageOffset & mask) !== 0
      )
        return false;
    return true;
  }

  #areaIn(first: bigint, last: bigint): IoptArea | undefined {
    return this.space.areas.firstIn(pageOf(first), offsetOf(first), pageOf(last), offsetOf(last));
  }
}
