/**
 * Moving an area's pages into hardware page tables and out of them: iopt_area_fill_domains and its kin.
 *
 *   fill    pin -> tell the observer -> map into every domain      any failure undoes all of it
 *   unfill  clear in every domain -> SYNC every domain -> tell the observer -> unpin
 *
 * The order of unfill is what makes DMA safe: frames are released only when no cache can hold the
 * translation. `RuntimeBugs.earlyFree` turns it round on purpose.
 *
 * @source drivers/iommu/iommufd/pages.c
 */
import type { Gather, IoasObserver, PagingDomain, RuntimeBugs } from '../drivers/contract.js';
import type { IoptArea } from './area.js';
import type { IoptPages } from './pages.js';

/** What filling needs to know of its surroundings. */
export interface FillContext {
  readonly ioasId: number;
  readonly observer: IoasObserver | undefined;
  readonly bugs: RuntimeBugs;
  log(message: string): void;
}

export function newGather(wantNotes: boolean): Gather {
  return {
    firstPage: Number.MAX_SAFE_INTEGER,
    lastPage: -1,
    freedTables: [],
    notes: [],
    wantNotes,
  };
}

/**
 * Pin an area's pages and map them into all the domains; none of it stays on failure.
 * @returns 0 | -EFAULT no user memory there | what a domain's map() said
 */
export function fillDomains(
  context: FillContext,
  area: IoptArea,
  pages: IoptPages,
  domains: readonly PagingDomain[],
): number {
  if (domains.length === 0) return 0;
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

/** Clear an area in all the domains, wait for the SYNCs, unpin. Also ends a fill that reached none of them. */
export function unfillDomains(
  context: FillContext,
  area: IoptArea,
  pages: IoptPages,
  domains: readonly PagingDomain[],
): void {
  const count = area.lastPage - area.firstPage + 1;
  const gathers: Gather[] = [];
  for (const domain of domains) {
    const gather = newGather(context.observer !== undefined);
    domain.unmap(area.firstPage, count, gather);
    gathers.push(gather);
  }
  if (context.bugs.earlyFree) letGo(context, area, pages, gathers);
  for (let i = 0; i < domains.length; i++) syncDomain(context, domains[i]!, gathers[i]!);
  if (!context.bugs.earlyFree) letGo(context, area, pages, gathers);
}

/** Map an area whose pages are pinned into one domain. @returns 0 | -errno with nothing mapped */
export function mapArea(
  context: FillContext,
  area: IoptArea,
  pages: IoptPages,
  domain: PagingDomain,
): number {
  const pfn = pages.soleRun(area.pagesFirst, area.pagesLast);
  if (pfn >= 0) return domain.map(area.firstPage, pfn, area.pagesLast - area.pagesFirst + 1, area.prot);
  let done = 0;
  const status = pages.forEachRun(area.pagesFirst, area.pagesLast, (index, pfn, count) => {
    const mapped = domain.map(area.firstPage + (index - area.pagesFirst), pfn, count, area.prot);
    if (mapped === 0) done += count;
    return mapped;
  });
  if (status < 0 && done > 0) {
    const gather = newGather(false);
    domain.unmap(area.firstPage, done, gather);
    syncDomain(context, domain, gather);
  }
  return status;
}

/** A SYNC that timed out is told, not undone: the entries are gone from the tables. */
export function syncDomain(context: FillContext, domain: PagingDomain, gather: Gather): void {
  const status = domain.sync(gather);
  if (status < 0) context.log(`iommufd: SYNC of a ${domain.driver} domain failed (${status})`);
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
