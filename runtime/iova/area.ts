/**
 * A mapping: a range of IOVA and the slice of user pages behind it. struct iopt_area.
 *
 * IOVA and pages have offsets of their own, so an area may begin and end inside pages; a domain maps it in units, its
 * smallest IO pages where those are smaller than 4 KiB. With units of 2 KiB:
 *
 *   IOVA    |      page 7     |      page 8     |        firstPage 7, firstOffset 2048, lastPage 8
 *           |        #########|########         |
 *                    \\\\\\\\\\\\\\\\\              pageOffset 0: two units, one frame
 *   pages            |     pfn 100    |
 *
 * What no domain could map exactly never gets in: offsets and lengths are multiples of the IOAS's alignment.
 */

import type { IoptPages } from './pages.js';
import type { Span } from './span-chunk.js';

export interface IoptArea extends Span {
  /** Bytes into the first page of the slice. */
  readonly pageOffset: number;
  /** The slice, as page indexes in `pages`. */
  readonly pagesFirst: number;
  /** Inclusive. */
  readonly pagesLast: number;
  /** IOMMU_READ | IOMMU_WRITE. */
  readonly prot: number;
  /** Null while the area only reserves its IOVA: being mapped, or being unmapped. */
  pages: IoptPages | null;
  /** Pins of in-kernel accesses that touch it. */
  numAccesses: number;
  /** Those of them whose owner cannot let go: the area stays mapped. */
  numLocks: number;
  /** An unmap waits for the accesses to let go; there must not be new ones. */
  preventAccess: boolean;
}

/** Whole user pages, as inserted in a list of what to map: `lengthBytes` from (page, offset) of `pages` on. */
export interface PagesSlice {
  readonly pages: IoptPages;
  readonly startPage: number;
  readonly startOffset: number;
  readonly length: bigint;
}

export const PAGE_LG2 = 12;
export const PAGE_SIZE = 2 ** PAGE_LG2;
export const U64_MAX = 0xffff_ffff_ffff_ffffn;

export const pageOf = (address: bigint): number => Number(address >> 12n);
export const offsetOf = (address: bigint): number => Number(address & 0xfffn);
export const addressOf = (page: number, offset: number): bigint => (BigInt(page) << 12n) | BigInt(offset);

/**
 * How many pages a range touches that begins `offset` bytes into one. In 64 bits, as in Linux: what ends in the last
 * page that there can be has none, and cannot be mapped.
 */
export const pagesIn = (offset: number, length: bigint): number =>
  pageOf(BigInt.asUintN(64, length + BigInt(offset) + BigInt(PAGE_SIZE - 1)));

export const unitsPerPage = (unitLg2: number): number => 1 << (PAGE_LG2 - unitLg2);

/** Where an area begins, in units of 2^unitLg2 bytes. */
export const firstUnitOf = (area: Span, unitLg2: number): number =>
  area.firstPage * unitsPerPage(unitLg2) + (area.firstOffset >>> unitLg2);

/** How many units an area has. */
export const unitsOf = (area: Span, unitLg2: number): number =>
  (area.lastPage - area.firstPage) * unitsPerPage(unitLg2) +
  ((area.lastOffset + 1 - area.firstOffset) >> unitLg2);

export const firstIova = (area: Span): bigint => addressOf(area.firstPage, area.firstOffset);
export const lastIova = (area: Span): bigint => addressOf(area.lastPage, area.lastOffset);

/** The slice of `pages` that backs [iova, iova + length) of an area. */
export function sliceAt(area: IoptArea, pages: IoptPages, iova: bigint, length: bigint): PagesSlice {
  const bytes = area.pageOffset + Number((iova - firstIova(area)) & 0xfffn);
  const startPage = area.pagesFirst + Number((iova - firstIova(area)) >> 12n) + (bytes >= PAGE_SIZE ? 1 : 0);
  return { pages, startPage, startOffset: bytes % PAGE_SIZE, length };
}
