/**
 * Operations that look into page tables, and at the pages behind user addresses: ADD_RESERVED, MD_CHECK_MAP,
 * MD_CHECK_REFS, MD_CHECK_IOTLB, DEV_CHECK_CACHE, DIRTY.
 *
 * @source drivers/iommu/iommufd/selftest.c iommufd_test_add_reserved, iommufd_test_md_check_pa,
 *   iommufd_test_md_check_refs, iommufd_test_md_check_iotlb, iommufd_test_dev_check_cache, iommufd_test_dirty
 */
import { EFAULT, EINVAL, EIO, ENOENT, ENOMEM, EOVERFLOW } from '../../uapi/abi/errno.js';
import {
  TestAddReserved,
  TestCheckDevCache,
  TestCheckIotlb,
  TestCheckMap,
  TestCheckRefs,
  TestDirty,
} from '../../uapi/iommufd/test.js';
import { OBJ_DEVICE, OBJ_HWPT_NESTED, OBJ_HWPT_PAGING, OBJ_IOAS } from '../core/objects-layout.js';
import { MockDevice } from '../drivers/mock/device.js';
import { MockDomain } from '../drivers/mock/domain.js';
import { MockNested } from '../drivers/mock/nested.js';
import type { Device } from '../objects/device.js';
import type { HwptNested, HwptPaging } from '../objects/hwpt.js';
import type { Ioas } from '../objects/ioas.js';
import { PagesAt } from './pages-at.js';
import type { TestCall } from './test-call.js';

const U64_END = 2n ** 64n;
const PAGE = 1n << 12n;
/** A bit for every 2 KiB that the mock can map. */
const MAX_BITMAP_BYTES = 2n ** 24n;

/** IOVAs that nobody can map any more, for as long as the IOAS lives. */
export function addReserved(call: TestCall): number {
  const { start, length } = call.read(TestAddReserved);
  if (length === 0n) return -EINVAL;
  if (start + length > U64_END) return -EOVERFLOW;
  const ioas = call.ctx.get<Ioas>(call.id, OBJ_IOAS);
  if (ioas === undefined) return -ENOENT;
  const status = ioas.iopt.space.reserveBytes(start, start + length - 1n, ioas);
  call.ctx.put(ioas);
  return status;
}

/** Whether the domain maps every page to the one behind the user address. @returns 0 | -EINVAL not | -EFAULT */
export function checkMap(call: TestCall): number {
  return withMockDomain(call, (domain) => {
    const { iova, length, uptr } = call.read(TestCheckMap);
    const unit = 1n << BigInt(domain.unitLg2);
    if (((iova | length | uptr) & (unit - 1n)) !== 0n || uptr + length >= U64_END) return -EINVAL;
    const pages = new PagesAt(call);
    for (let at = 0n; at < length; at += unit) {
      const pfn = pages.pfnAt(uptr + at);
      if (pfn < 0) return pfn;
      const expected = pfn * Number(PAGE / unit) + Number(((uptr + at) & (PAGE - 1n)) / unit);
      if (iova + at >= U64_END) return -EINVAL;
      if (domain.lookup(Number((iova + at) >> BigInt(domain.unitLg2))) !== expected) return -EINVAL;
    }
    return 0;
  });
}

/** Whether every page behind a user range is pinned so often; pages of a larger page are not looked at. @returns 0 | -EIO not */
export function checkRefs(call: TestCall): number {
  const { length, uptr, refs } = call.read(TestCheckRefs);
  if (((length | uptr) & (PAGE - 1n)) !== 0n || uptr + length >= U64_END) return -EINVAL;
  const pages = new PagesAt(call);
  const { mm } = call.core.current;
  for (let at = 0n; at < length; at += PAGE) {
    const pfn = pages.pfnAt(uptr + at);
    if (pfn < 0) return pfn;
    const pins = mm.pinsOf(pfn);
    if (pins >= 0 && pins !== refs) return -EIO;
  }
  return 0;
}

export function checkIotlb(call: TestCall): number {
  const hwpt = call.ctx.get<HwptNested>(call.id, OBJ_HWPT_NESTED);
  if (hwpt === undefined) return -ENOENT;
  const { id, iotlb } = call.read(TestCheckIotlb);
  const { domain } = hwpt;
  const matches = domain instanceof MockNested && domain.iotlb[id] === iotlb;
  call.ctx.put(hwpt);
  return matches ? 0 : -EINVAL;
}

export function checkDevCache(call: TestCall): number {
  const device = call.ctx.get<Device>(call.id, OBJ_DEVICE);
  if (device === undefined) return -ENOENT;
  const { id, cache } = call.read(TestCheckDevCache);
  const { host } = device;
  const matches = host instanceof MockDevice && host.cache[id] === cache;
  call.ctx.put(device);
  return matches ? 0 : -EINVAL;
}

/** A device writes to the pages whose bits are set. */
export function makeDirty(call: TestCall): number {
  const { iova, length, pageSize, uptr } = call.read(TestDirty);
  if (pageSize === 0n || length === 0n || uptr === 0n) return -EINVAL;
  if (iova % pageSize !== 0n || length % pageSize !== 0n) return -EINVAL;
  return withMockDomain(call, (domain) => {
    if (!domain.tracking) return -EINVAL;
    const bitmapBytes = (length / pageSize + 7n) / 8n;
    if (bitmapBytes > MAX_BITMAP_BYTES || call.core.allocFails('dirty bitmap')) return -ENOMEM;
    const bitmap = new Uint8Array(Number(bitmapBytes));
    if (call.core.current.mm.copyIn(uptr, bitmap) < 0) return -EFAULT;
    let count = 0;
    for (let i = 0; i < Number(length / pageSize); i++) {
      if (((bitmap[i >> 3]! >> (i & 7)) & 1) === 0) continue;
      domain.setDirty(iova + BigInt(i) * pageSize);
      count++;
    }
    return call.respond(TestDirty, { outNrDirty: BigInt(count) });
  });
}

/** @returns what `act` says of the mock's page table that the call is about | -ENOENT | -EINVAL of another IOMMU */
function withMockDomain(call: TestCall, act: (domain: MockDomain) => number): number {
  const hwpt = call.ctx.get<HwptPaging>(call.id, OBJ_HWPT_PAGING);
  if (hwpt === undefined) return -ENOENT;
  const { domain } = hwpt;
  const status = domain instanceof MockDomain ? act(domain) : -EINVAL;
  call.ctx.put(hwpt);
  return status;
}
