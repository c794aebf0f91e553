/**
 * Which pages of an IOAS devices wrote to, as one of its domains knows it.
 *
 *   read: domain's marks  -> cleared, unless NO_CLEAR -> bits in the program's bitmap -> one SYNC
 *
 * A mark that is cleared while a translation with write permission is cached would not come back; hence the SYNC
 * before the call returns: what is written after it is found by the next read.
 *
 * @source drivers/iommu/iommufd/io_pagetable.c iopt_set_dirty_tracking, iopt_read_and_clear_dirty_data
 */
import { EINVAL, ENOMEM, EOPNOTSUPP, EOVERFLOW } from '../../uapi/abi/errno.js';
import { IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR } from '../../uapi/iommufd/hwpt-dirty.js';
import type { DirtyTracking, PagingDomain } from '../drivers/contract.js';
import {
  firstIova,
  firstUnitOf,
  type IoptArea,
  lastIova,
  offsetOf,
  pageOf,
  U64_MAX,
  unitsOf,
} from './area.js';
import { type FillContext, newGather, syncDomain } from './domain-fill.js';
import type { IovaSpace } from './iova-space.js';
import { type BitmapMemory, UserBitmap } from './user-bitmap.js';

/** What IOMMU_HWPT_GET_DIRTY_BITMAP asks for, as its struct says it. */
export interface DirtyRequest {
  readonly flags: number;
  readonly iova: bigint;
  readonly length: bigint;
  readonly pageSize: bigint;
  readonly data: bigint;
}

const toldToNobody = (): void => undefined;

/**
 * Switch it on, from all clean, or off.
 * @returns 0 | -EOPNOTSUPP the domain cannot | what its driver said
 */
export function setDirtyTracking(
  context: FillContext,
  space: IovaSpace,
  domain: PagingDomain,
  enable: boolean,
): number {
  const { dirty } = domain;
  if (dirty === undefined) return -EOPNOTSUPP;
  if (enable) {
    const status = clearAll(context, space, domain, dirty);
    if (status < 0) return status;
  }
  return dirty.setTracking(enable);
}

function clearAll(
  context: FillContext,
  space: IovaSpace,
  domain: PagingDomain,
  dirty: DirtyTracking,
): number {
  const { unitLg2 } = domain;
  const gather = newGather(false);
  let status = 0;
  for (const area of space.areas) {
    if (area.pages === null) continue;
    const first = firstUnitOf(area, unitLg2);
    if (dirty.holesFail && area.pages.revoked) status = -EINVAL;
    else status = dirty.readAndClear(first, unitsOf(area, unitLg2), true, toldToNobody, gather);
    if (status < 0) break;
  }
  syncDomain(context, domain, gather);
  return status;
}

/**
 * Or what is dirty in a range into a bitmap.
 * @returns 0, also when the range leads beyond what is mapped: it is read as far as the first hole, and Linux does
 *   not say so | -EOVERFLOW | -EINVAL alignment, page size | -EOPNOTSUPP the domain cannot | -ENOMEM
 */
export function readAndClearDirty(
  context: FillContext,
  space: IovaSpace,
  domain: PagingDomain,
  request: DirtyRequest,
  memory: BitmapMemory,
): number {
  const status = checkRange(request, BigInt(space.alignment));
  if (status < 0) return status;
  const { dirty } = domain;
  if (dirty === undefined) return -EOPNOTSUPP;
  if (context.allocFails('iova_bitmap') || context.allocFails('iova_bitmap pages')) return -ENOMEM;
  const { iova, pageSize, data } = request;
  const last = (iova + request.length - 1n) & U64_MAX;
  const clear = (request.flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) === 0;
  const bitmap = new UserBitmap(memory, iova, last, pageSize, data);
  const shift = BigInt(domain.unitLg2);
  const report = (unit: number, units: number): void =>
    bitmap.set(BigInt(unit) << shift, (BigInt(unit + units) << shift) - 1n);
  const gather = newGather(false);
  for (const [first, end, revoked] of contiguous(space, iova, last)) {
    if (revoked && dirty.holesFail) break;
    const unit = Number(first >> shift);
    if (dirty.readAndClear(unit, Number((end + 1n) >> shift) - unit, clear, report, gather) < 0) break;
  }
  bitmap.flush();
  if (clear) syncDomain(context, domain, gather);
  return 0;
}

/** @source iommufd_check_iova_range */
function checkRange({ iova, length, pageSize }: DirtyRequest, alignment: bigint): number {
  const last = iova + ((length - 1n) & U64_MAX);
  if (last > U64_MAX) return -EOVERFLOW;
  const unaligned = (size: bigint): boolean => ((iova | (last + 1n)) & (size - 1n)) !== 0n;
  return unaligned(alignment) || pageSize === 0n || unaligned(pageSize) ? -EINVAL : 0;
}

/** The parts of [iova, last] that areas cover, up to the first hole: first and last byte, whether revoked. */
function* contiguous(
  space: IovaSpace,
  iova: bigint,
  last: bigint,
): Generator<readonly [bigint, bigint, boolean]> {
  let at = iova;
  let area: IoptArea | undefined = space.areas.firstIn(pageOf(at), offsetOf(at), pageOf(at), offsetOf(at));
  while (area?.pages && firstIova(area) <= at) {
    const end = lastIova(area);
    yield [at, end < last ? end : last, area.pages.revoked];
    if (end >= last) return;
    at = end + 1n;
    area = space.areas.next(area);
  }
}
