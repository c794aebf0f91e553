/**
 * What an in-kernel access does to an IOVA range: hold its pages, let go of them, copy. The range must be mapped
 * without holes; each area is treated by itself.
 *
 *   range        |-----------------|
 *   areas    |-------|-------|---------|
 *   parts        |---|-------|-----|
 *
 * @source drivers/iommu/iommufd/device.c iommufd_access_pin_pages, _unpin_pages, _rw
 */
import { bug } from '../../hw/memory/bug.js';
import { EINVAL, ENOENT, EPERM } from '../../uapi/abi/errno.js';
import { IOMMU_READ, IOMMU_WRITE } from '../drivers/contract.js';
import { firstIova, type IoptArea, lastIova, offsetOf, PAGE_SIZE, pageOf } from './area.js';
import type { IovaSpace } from './iova-space.js';
import { ACCESS_RW_WRITE, type IoptPages } from './pages.js';

/** The part of a range that lies in one area. */
interface Part {
  readonly area: IoptArea;
  readonly pages: IoptPages;
  /** Position of its first byte in `pages`. */
  readonly index: number;
  readonly offset: number;
  /** Position of its last byte. */
  readonly lastIndex: number;
  readonly lastOffset: number;
  readonly iova: bigint;
  readonly last: bigint;
}

/**
 * Pin the pages behind [iova, last], which stay mapped until unpinRange().
 * @param out    their frames, one for each page, are appended
 * @param flags  ACCESS_RW_*
 * @param lock   nobody lets go when told, so an unmap is -EBUSY
 * @returns 0 | -ENOENT a hole | -EINVAL an unmap is under way, or a page would be shared with a neighbour | -EPERM |
 *   -EFAULT | -ENOMEM; nothing is pinned then
 */
export function pinRange(
  space: IovaSpace,
  iova: bigint,
  last: bigint,
  out: number[],
  flags: number,
  lock: boolean,
): number {
  const before = out.length;
  let at = iova;
  const status = eachPart(space, iova, last, (part) => {
    at = part.iova;
    const { area, pages } = part;
    if (area.preventAccess || !pageAligned(part, last)) return -EINVAL;
    if (!allows(area, flags)) return -EPERM;
    const held = pages.addAccess(part.index, part.lastIndex, out, flags);
    if (held < 0) return held;
    area.numAccesses++;
    if (lock) area.numLocks++;
    at = part.last + 1n;
    return 0;
  });
  if (status === 0) return 0;
  out.length = before;
  if (at > iova && unpinRange(space, iova, at - 1n, lock) < 0) bug('what was just pinned is not');
  return status;
}

/** Undo pinRange() of exactly this range. @returns 0 | -EINVAL it is not pinned so; nothing happens then */
export function unpinRange(space: IovaSpace, iova: bigint, last: bigint, lock: boolean): number {
  const holds = eachPart(space, iova, last, ({ area, pages, index, lastIndex }) =>
    area.numAccesses > 0 && (!lock || area.numLocks > 0) && pages.hasAccess(index, lastIndex) ? 0 : -EINVAL,
  );
  if (holds < 0) return -EINVAL;
  return eachPart(space, iova, last, ({ area, pages, index, lastIndex }) => {
    pages.removeAccess(index, lastIndex);
    area.numAccesses--;
    if (lock) area.numLocks--;
    return 0;
  });
}

/**
 * Copy between `data` and the IOVAs from `iova` on.
 * @param flags  ACCESS_RW_*
 * @returns 0 | -ENOENT a hole | -EINVAL an unmap is under way, or the pages cannot be copied | -EPERM | -EFAULT;
 *   areas before the one that failed are copied
 */
export function rwRange(space: IovaSpace, iova: bigint, data: Uint8Array, flags: number): number {
  let at = 0;
  return eachPart(space, iova, iova + BigInt(data.byteLength) - 1n, (part) => {
    if (part.area.preventAccess) return -EINVAL;
    if (!allows(part.area, flags)) return -EPERM;
    const bytes = Number(part.last - part.iova) + 1;
    const status = part.pages.rw(part.index, part.offset, data.subarray(at, at + bytes), flags);
    at += bytes;
    return status;
  });
}

/** @returns 0 | -ENOENT the areas do not reach `last` | the first negative result of `visit` */
function eachPart(space: IovaSpace, iova: bigint, last: bigint, visit: (part: Part) => number): number {
  let at = iova;
  for (;;) {
    const area = space.areas.firstIn(pageOf(at), offsetOf(at), pageOf(at), offsetOf(at));
    if (area === undefined || area.pages === null) return -ENOENT;
    const end = lastIova(area) < last ? lastIova(area) : last;
    const status = visit(partOf(area, area.pages, at, end));
    if (status < 0) return status;
    if (end === last) return 0;
    at = end + 1n;
  }
}

function partOf(area: IoptArea, pages: IoptPages, iova: bigint, last: bigint): Part {
  const start = iova - firstIova(area) + BigInt(area.pageOffset);
  const end = last - firstIova(area) + BigInt(area.pageOffset);
  return {
    area,
    pages,
    index: area.pagesFirst + pageOf(start),
    offset: offsetOf(start),
    lastIndex: area.pagesFirst + pageOf(end),
    lastOffset: offsetOf(end),
    iova,
    last,
  };
}

/** Whether no page is shared with bytes outside, but for the end of the whole range. */
function pageAligned(part: Part, last: bigint): boolean {
  return part.offset === 0 && (part.last === last || part.lastOffset === PAGE_SIZE - 1);
}

function allows(area: IoptArea, flags: number): boolean {
  return (area.prot & ((flags & ACCESS_RW_WRITE) !== 0 ? IOMMU_WRITE : IOMMU_READ)) !== 0;
}
