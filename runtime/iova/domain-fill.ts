/**
 * Moving an area's pages into hardware page tables and out of them: iopt_area_fill_domains and its kin.
 *
 *   fill    pin -> tell the observer -> map into every domain      any failure undoes all of it
 *   unfill  clear in every domain -> SYNC every domain -> tell the observer -> unpin
 *
 * An area reaches a domain to the unit: one that begins or ends inside a page is mapped in part there. Observers are
 * told of whole pages, those in which the frames begin.
 *
 * The order of unfill is what makes DMA safe: frames are released only when no cache can hold the
 * translation. `RuntimeBugs.earlyFree` turns it round on purpose. Frames whose SYNC failed stay pinned for good.
 *
 * @source drivers/iommu/iommufd/pages.c
 */
import type { BugSwitches } from '../../hw/bugs/bug-switches.js';
import { EINVAL, ENOMEM } from '../../uapi/abi/errno.js';
import type { Gather, IoasObserver, PagingDomain, RuntimeBugs } from '../drivers/contract.js';
import { firstUnitOf, type IoptArea, PAGE_LG2, PAGE_SIZE, unitsOf, unitsPerPage } from './area.js';
import type { IoptPages } from './pages.js';

/** What filling needs to know of its surroundings. */
export interface FillContext {
  readonly ioasId: number;
  readonly observer: IoasObserver | undefined;
  readonly bugs: RuntimeBugs;
  readonly zoo: BugSwitches;
  /** Whether neighbouring pages may share a large IO page; without, an area can be cut: see split-area.ts. */
  largePages: boolean;
  log(message: string): void;
  /** Whether an allocation is to fail. */
  allocFails(site: string): boolean;
}

export function newGather(wantNotes: boolean): Gather {
  return {
    firstUnit: Number.MAX_SAFE_INTEGER,
    lastUnit: -1,
    freedTables: [],
    notes: [],
    wantNotes,
  };
}

/**
 * Pin an area's pages and map them into all the domains; none of it stays on failure.
 * @returns 0 | -EFAULT no user memory there | -ENOMEM | what a domain's map() said
 */
export function fillDomains(
  context: FillContext,
  area: IoptArea,
  pages: IoptPages,
  domains: readonly PagingDomain[],
): number {
  if (domains.length === 0) return 0;
  const tracked = trackFails(context, pages, domains.length);
  if (tracked < 0) return tracked;
  const status = pages.acquire(area.pagesFirst, area.pagesLast);
  if (status < 0) return status;
  announce(context, area, pages);
  for (let i = 0; i < domains.length; i++) {
    const mapped = mapArea(context, area, pages, domains[i]!);
    if (mapped < 0) {
      unfillDomains(context, area, pages, domains.slice(0, i));
      return mapped;
    }
  }
  return 0;
}

/** Linux notes each domain that an area of a dma-buf is in. @returns 0 | -ENOMEM. @source iopt_dmabuf_track_domain */
export function trackFails(context: FillContext, pages: IoptPages, domains: number): number {
  if (pages.type !== 'dmabuf') return 0;
  for (let i = 0; i < domains; i++) if (context.allocFails('dmabuf_track')) return -ENOMEM;
  return 0;
}

/** Clear an area in all the domains, wait for the SYNCs, unpin. Also ends a fill that reached none of them. */
export function unfillDomains(
  context: FillContext,
  area: IoptArea,
  pages: IoptPages,
  domains: readonly PagingDomain[],
): void {
  if (domains.length === 1 && context.observer === undefined && !context.bugs.earlyFree) {
    unfillOne(context, area, pages, domains[0]!);
    return;
  }
  const gathers: Gather[] = [];
  for (const domain of domains) {
    const gather = newGather(context.observer !== undefined);
    // A revoked dma-buf is out of the tables already.
    if (!pages.revoked) unmapArea(area, domain, gather);
    gathers.push(gather);
  }
  if (context.bugs.earlyFree) letGo(context, area, pages, gathers);
  let status = 0;
  for (let i = 0; i < domains.length; i++)
    status = Math.min(status, syncDomain(context, domains[i]!, gathers[i]!));
  if (context.bugs.earlyFree) return;
  if (pages.mayRelease(status)) letGo(context, area, pages, gathers);
  else pages.withhold();
}

/** Gathers that are empty and nobody's: a SYNC may run others, who unmap as well. */
const spare: Gather[] = [];

/** unfillDomains() as it mostly is. */
function unfillOne(context: FillContext, area: IoptArea, pages: IoptPages, domain: PagingDomain): void {
  const gather = spare.pop() ?? newGather(false);
  if (!pages.revoked) unmapArea(area, domain, gather);
  if (pages.mayRelease(syncDomain(context, domain, gather))) pages.release(area.pagesFirst, area.pagesLast);
  else pages.withhold();
  // Tables of a SYNC that failed stay out of use, and so does what lists them.
  if (gather.freedTables.length > 0) return;
  gather.firstUnit = Number.MAX_SAFE_INTEGER;
  gather.lastUnit = -1;
  spare.push(gather);
}

/**
 * Map an area whose pages are pinned into one domain.
 * @returns 0 | -EINVAL it begins or ends inside an IO page | what the domain said; then nothing is mapped
 */
export function mapArea(
  context: FillContext,
  area: IoptArea,
  pages: IoptPages,
  domain: PagingDomain,
): number {
  const { unitLg2 } = domain;
  // A copy of several areas is checked as a whole when it is placed: here each has to fit (iommu_map).
  const within = context.largePages ? 2 ** unitLg2 - 1 : PAGE_SIZE - 1;
  if (((area.firstOffset | area.pageOffset | (area.lastOffset + 1)) & within) !== 0) return -EINVAL;
  if (unitLg2 === PAGE_LG2 && context.largePages) {
    const pfn = pages.soleRun(area.pagesFirst, area.pagesLast);
    if (pfn >= 0) return domain.map(area.firstPage, pfn, area.pagesLast - area.pagesFirst + 1, area.prot);
  }
  const perPage = unitsPerPage(unitLg2);
  const firstUnit = firstUnitOf(area, unitLg2);
  const skipped = area.pageOffset >>> unitLg2;
  const units = unitsOf(area, unitLg2);
  let done = 0;
  const status = pages.forEachRun(area.pagesFirst, area.pagesLast, (index, pfn, count) => {
    // Units of the area, counted from the start of its first page; that page and the last may be there in part.
    const runStart = (index - area.pagesFirst) * perPage - skipped;
    const start = Math.max(runStart, 0);
    const end = Math.min(runStart + count * perPage, units);
    const step = context.largePages ? end - start : perPage;
    for (let at = start; at < end; at += step) {
      const mapped = domain.map(firstUnit + at, pfn * perPage + (at - runStart), step, area.prot);
      if (mapped < 0) return mapped;
      done = at + step;
    }
    return 0;
  });
  if (status < 0 && done > 0) {
    const gather = newGather(false);
    domain.unmap(firstUnit, done, gather);
    syncDomain(context, domain, gather);
  }
  return status;
}

/** Clear an area in one domain, which holds all of it. */
export function unmapArea(area: IoptArea, domain: PagingDomain, gather: Gather): void {
  const { unitLg2 } = domain;
  if (unitLg2 === PAGE_LG2) domain.unmap(area.firstPage, area.lastPage - area.firstPage + 1, gather);
  else domain.unmap(firstUnitOf(area, unitLg2), unitsOf(area, unitLg2), gather);
}

/** A SYNC that timed out is told, not undone: the entries are gone from the tables. @returns 0 | -ETIMEDOUT */
export function syncDomain(context: FillContext, domain: PagingDomain, gather: Gather): number {
  const status = domain.sync(gather);
  if (status < 0) context.log(`iommufd: SYNC of a ${domain.driver} domain failed (${status})`);
  return status;
}

/** Before the first entry of a freshly pinned area is written. */
export function announce(context: FillContext, area: IoptArea, pages: IoptPages): void {
  const { observer, ioasId } = context;
  if (observer === undefined) return;
  pages.forEachRun(area.pagesFirst, area.pagesLast, (index, pfn, count) => {
    observer.mapping(ioasId, area.firstPage + (index - area.pagesFirst), pfn, count);
    return 0;
  });
}

/** After the last SYNC: the frames may be reused. */
export function letGo(
  context: FillContext,
  area: IoptArea,
  pages: IoptPages,
  gathers: readonly Gather[],
): void {
  const { observer, ioasId } = context;
  if (observer !== undefined) {
    const notes = gathers.length === 1 ? gathers[0]!.notes : gathers.flatMap((gather) => gather.notes);
    pages.forEachRun(area.pagesFirst, area.pagesLast, (index, pfn, count) => {
      observer.unmapped(ioasId, area.firstPage + (index - area.pagesFirst), pfn, count, notes);
      return 0;
    });
  }
  pages.release(area.pagesFirst, area.pagesLast);
}
