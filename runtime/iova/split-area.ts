/**
 * Splitting areas, so that what VFIO's first type 1 mapped as one can be unmapped in parts. iopt_cut_iova.
 *
 * Only what is mapped page by page in its domains can be split, which is why large pages have to be off.
 *
 * @source drivers/iommu/iommufd/io_pagetable.c iopt_area_split
 */
import { EBUSY, EINVAL, ENOMEM, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import { firstIova, type IoptArea, lastIova, offsetOf, pageOf } from './area.js';
import type { FillContext } from './domain-fill.js';
import type { IovaSpace } from './iova-space.js';

/**
 * Make an area end at an IOVA, and another begin behind it; nothing is mapped or unmapped.
 * @param filled  whether domains hold the area
 * @returns 0, also when the area ends or begins there | -EBUSY it is being mapped or unmapped | -EOPNOTSUPP it is of a
 *   dma-buf | -EINVAL alignment, accesses, or there may be large pages | -ENOMEM
 */
export function splitArea(
  context: FillContext,
  space: IovaSpace,
  area: IoptArea,
  iova: bigint,
  filled: boolean,
): number {
  if (iova === firstIova(area) || iova === lastIova(area)) return 0;
  const { pages } = area;
  if (pages === null || area.preventAccess) return -EBUSY;
  if (pages.type === 'dmabuf') return -EOPNOTSUPP;
  const start = iova + 1n;
  /** From the start of the area's first page. */
  const bytes = BigInt(area.pageOffset) + start - firstIova(area);
  const mask = BigInt(space.alignment - 1);
  if (((start | bytes) & mask) !== 0n) return -EINVAL;
  if (context.allocFails('iopt_area') || context.allocFails('iopt_area')) return -ENOMEM;
  // Which of their pages belong to which part is not known of accesses.
  if (area.numAccesses > 0 || (filled && context.largePages)) return -EINVAL;
  const left: IoptArea = {
    ...area,
    lastPage: pageOf(iova),
    lastOffset: offsetOf(iova),
    pagesLast: area.pagesFirst + pageOf(bytes - 1n),
  };
  const right: IoptArea = {
    ...area,
    firstPage: pageOf(start),
    firstOffset: offsetOf(start),
    pageOffset: offsetOf(bytes),
    pagesFirst: area.pagesFirst + pageOf(bytes),
  };
  pages.get();
  space.replaceArea(area, left, right);
  return 0;
}
