import test from 'ava';
import { HwptGetDirtyBitmap, HwptSetDirtyTracking } from '../../../uapi/iommufd/hwpt-dirty.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';

const [ENOENT, EIO, ENOMEM, EINVAL, EOVERFLOW, EOPNOTSUPP] = [2, 5, 12, 22, 75, 95];
const [SET, GET] = [0x3b8b, 0x3b8c];
const TRACK = 2;
const CAP_DIRTY = 1n;
const U64_MAX = (1n << 64n) - 1n;
const BASE = 0x10_0000n;
const PAGES = 32;

/** 32 pages mapped at BASE, in a page table that tracks dirty pages. */
function scene(options: { pageSizesLg2?: number[] } = {}) {
  const bench = new CoreBench({ iommus: [{ capabilities: CAP_DIRTY, ...options }] });
  const { fd, user } = bench;
  const { ioasId } = fd.ioasAlloc();
  const { vfio, devId } = bench.bind();
  const { hwptId } = fd.hwptAlloc({ devId, ptId: ioasId, flags: TRACK });
  vfio.attach(hwptId);
  const domain = bench.iommus[0]!.attached.get(0) as FakeDomain;
  fd.ioasMap({ ioasId, userVa: user.alloc(PAGES * 4096), length: BigInt(PAGES) * 4096n, iova: BASE });
  const mark = (...pages: number[]) => {
    for (const page of pages) domain.dirty!.marked.add(Number(BASE >> BigInt(domain.unitLg2)) + page);
  };
  const read = (fields: { iova?: bigint; length?: bigint; pageSize?: bigint; noClear?: boolean } = {}) => [
    ...fd.hwptGetDirtyBitmap({ hwptId, iova: BASE, length: BigInt(PAGES) * 4096n, ...fields }),
  ];
  /** The raw call on a bitmap of the caller. */
  const get = (fields: object) =>
    fd.ioctl(
      GET,
      HwptGetDirtyBitmap.toBytes({
        size: 48,
        hwptId,
        iova: BASE,
        length: 0x2_0000n,
        pageSize: 4096n,
        ...fields,
      }),
    );
  return { bench, fd, user, ioasId, hwptId, vfio, devId, domain, dirty: domain.dirty!, mark, read, get };
}

test('dirty: a page table can be switched if it was made for it; flags, IDs', (t) => {
  const { fd, hwptId, devId, ioasId, dirty } = scene();
  const plain = fd.hwptAlloc({ devId, ptId: ioasId }).hwptId;
  const set = (fields: object) =>
    fd.ioctl(SET, HwptSetDirtyTracking.toBytes({ size: 16, hwptId, ...fields }));
  t.is(set({ flags: 2 }), -EOPNOTSUPP);
  t.is(set({ flags: 2, hwptId: 99 }), -EOPNOTSUPP);
  t.is(set({ hwptId: 99 }), -ENOENT);
  t.is(set({ hwptId: ioasId }), -ENOENT, 'an IOAS is none');
  t.is(set({ hwptId: plain }), -EOPNOTSUPP);
  t.is(set({ hwptId: plain, flags: 1 }), -EOPNOTSUPP);
  t.is(set({ flags: 1, reserved: 7 }), 0, 'Linux does not look at reserved');
  t.true(dirty.enabled);
  t.is(set({ flags: 0 }), 0);
  t.false(dirty.enabled);
});

test('dirty: an IOMMU that cannot has no such page tables', (t) => {
  const bench = new CoreBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const { devId } = bench.bind();
  t.is(
    errnoOf(() => bench.fd.hwptAlloc({ devId, ptId: ioasId, flags: TRACK })),
    EOPNOTSUPP,
  );
});

test('dirty: switching on clears all marks first, and waits for one SYNC', (t) => {
  const { fd, hwptId, dirty, mark, domain, ioasId, user } = scene();
  fd.ioasMap({ ioasId, userVa: user.alloc(0x1000), length: 0x1000n, iova: 0x50_0000n });
  mark(3, 4);
  dirty.marked.add(0x500);
  const syncs = domain.syncs;
  fd.hwptSetDirtyTracking(hwptId, true);
  t.is(dirty.marked.size, 0);
  t.is(domain.syncs, syncs + 1);
  t.deepEqual(dirty.asked, [
    [0x100, 32],
    [0x500, 1],
  ]);
  mark(5);
  fd.hwptSetDirtyTracking(hwptId, false);
  t.is(dirty.marked.size, 1, 'switching off leaves them');
});

test('dirty: a driver that fails to clear is not switched on', (t) => {
  const { fd, hwptId, dirty } = scene();
  dirty.status = -EIO;
  t.is(
    errnoOf(() => fd.hwptSetDirtyTracking(hwptId, true)),
    EIO,
  );
  t.false(dirty.enabled);
});

test('bitmap: a bit a page from iova on, cleared by the read unless NO_CLEAR, one SYNC when cleared', (t) => {
  const { mark, read, domain, dirty } = scene();
  mark(0, 7, 8, 31);
  const syncs = domain.syncs;
  t.deepEqual(read({ noClear: true }), [0x81, 0x01, 0x00, 0x80]);
  t.is(domain.syncs, syncs);
  t.deepEqual(read(), [0x81, 0x01, 0x00, 0x80]);
  t.is(domain.syncs, syncs + 1);
  t.is(dirty.marked.size, 0);
  t.deepEqual(read(), [0, 0, 0, 0]);
  mark(9, 10);
  t.deepEqual(read({ iova: BASE + 0x9000n, length: 0x1000n }), [1], 'a part of an area');
  t.deepEqual(read(), [0, 4, 0, 0], 'the rest is still marked');
});

test('bitmap: larger pages share a bit, smaller ones have one each', (t) => {
  const { mark, read } = scene();
  mark(0, 1, 5, 6);
  t.deepEqual(read({ pageSize: 0x4000n, noClear: true }), [0b11]);
  t.deepEqual(read({ pageSize: 0x800n, noClear: true, length: 0x8000n }), [0x0f, 0x3c]);
  // Two bits of it are set: the lower one counts, as for __ffs.
  t.deepEqual(read({ pageSize: 0x3000n, noClear: true, length: 0x1_0000n }), [0b0110_0011]);
});

test('bitmap: bits are ored into the caller’s memory, at any byte address and across pages', (t) => {
  const { mark, get, user } = scene();
  const data = user.alloc(0x2000, { chunkLg2: 12 });
  const before = new Uint8Array(0x2000).fill(0x10);
  user.copyOut(data, before);
  mark(0, 8, 16, 17, 18, 31);
  t.is(get({ data: data + 0xffen }), 0);
  const after = new Uint8Array(0x2000);
  user.copyIn(data, after);
  t.deepEqual([...after.subarray(0xffd, 0x1003)], [0x10, 0x11, 0x11, 0x17, 0x90, 0x10]);
  t.is(after.filter((byte, i) => byte !== before[i]).length, 4);
});

test('bitmap: without memory there the call succeeds, the bits are lost and the marks cleared', (t) => {
  const { mark, get, user, dirty } = scene();
  mark(1);
  t.is(get({ data: 0n }), 0);
  t.is(dirty.marked.size, 0);
  const data = user.alloc(0x1000);
  mark(7, 8, 9);
  t.is(get({ data: data + 0xfffn }), 0, 'the first byte is there, the next is not');
  const byte = new Uint8Array(1);
  user.copyIn(data + 0xfffn, byte);
  t.is(byte[0], 0x80);
  t.is(get({ data: U64_MAX }), 0, 'an address that wraps');
});

test('bitmap: arguments', (t) => {
  const { get, user, fd, ioasId, devId } = scene();
  const data = user.alloc(0x1000);
  t.is(get({ data, flags: 2 }), -EOPNOTSUPP);
  t.is(get({ data, reserved: 1 }), -EOPNOTSUPP);
  t.is(get({ data, hwptId: 99 }), -ENOENT);
  t.is(get({ data, hwptId: ioasId }), -ENOENT);
  t.is(get({ data, pageSize: 0n }), -EINVAL);
  t.is(get({ data, iova: BASE + 0x800n }), -EINVAL, 'alignment of the IOAS');
  t.is(get({ data, length: 0x800n }), -EINVAL);
  t.is(get({ data, iova: BASE + 0x1000n, pageSize: 0x2000n }), -EINVAL, 'and of a bit');
  t.is(get({ data, length: 0x3000n, pageSize: 0x2000n }), -EINVAL);
  t.is(get({ data, length: 0n }), -EOVERFLOW, 'iova + length - 1 wraps');
  t.is(get({ data, iova: U64_MAX - 0xfffn, length: 0x2000n }), -EOVERFLOW);
  const plain = fd.hwptAlloc({ devId, ptId: ioasId }).hwptId;
  t.is(get({ data, hwptId: plain, pageSize: 0n }), -EINVAL, 'the range comes first');
  t.is(get({ data, hwptId: plain }), -EOPNOTSUPP);
  t.is(get({ data }), 0);
});

test('bitmap: a range that leads into a hole is read up to it, and succeeds', (t) => {
  const { mark, read, fd, ioasId, user, dirty } = scene();
  fd.ioasMap({ ioasId, userVa: user.alloc(0x1000), length: 0x1000n, iova: BASE + 0x2_0000n });
  fd.ioasMap({ ioasId, userVa: user.alloc(0x1000), length: 0x1000n, iova: BASE + 0x2_2000n });
  mark(31, 32, 34);
  t.deepEqual(read({ length: 0x3_0000n }), [0, 0, 0, 0x80, 1, 0]);
  t.deepEqual([...dirty.marked], [0x100 + 34], 'beyond the hole nothing was looked at');
  t.deepEqual(read({ iova: BASE - 0x1000n, length: 0x1000n }), [0], 'nothing mapped at all');
  t.deepEqual(read({ iova: 0n, length: 0x1000n }), [0]);
});

test('bitmap: a driver that fails ends the read, which succeeds all the same', (t) => {
  const { mark, read, dirty } = scene();
  mark(1);
  dirty.status = -EIO;
  t.deepEqual(read(), [0, 0, 0, 0]);
});

test('bitmap: halves of pages are told apart where the IO pages are that small', (t) => {
  const { read, domain, dirty } = scene({ pageSizesLg2: [11] });
  t.is(domain.unitLg2, 11);
  const first = Number(BASE / 0x800n);
  dirty.marked
    .add(first + 1)
    .add(first + 4)
    .add(first + 5);
  t.deepEqual(read({ pageSize: 0x800n, length: 0x4000n, noClear: true }), [0x32]);
  t.deepEqual(read({ pageSize: 0x1000n, length: 0x4000n, noClear: true }), [0x05]);
  t.deepEqual(read({ iova: BASE + 0x800n, pageSize: 0x800n, length: 0x800n }), [1]);
  t.deepEqual(read({ pageSize: 0x800n, length: 0x4000n }), [0x30]);
});

test('bitmap: the last page of the address space is in reach', (t) => {
  const bench = new CoreBench({
    iommus: [{ capabilities: CAP_DIRTY, aperture: { firstUnit: 0, lastUnit: 2 ** 52 - 1 } }],
  });
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  const { vfio, devId } = bench.bind();
  const { hwptId } = fd.hwptAlloc({ devId, ptId: ioasId, flags: TRACK });
  vfio.attach(hwptId);
  const iova = U64_MAX - 0xfffn;
  fd.ioasMap({ ioasId, userVa: bench.user.alloc(0x1000), length: 0x1000n, iova });
  const domain = bench.iommus[0]!.attached.get(0) as FakeDomain;
  domain.dirty!.marked.add(2 ** 52 - 1);
  t.deepEqual([...fd.hwptGetDirtyBitmap({ hwptId, iova, length: 0x1000n })], [1]);
});

test('bitmap: ENOMEM before anything is read', (t) => {
  const { bench, mark, get, dirty, user } = scene();
  const data = user.alloc(0x1000);
  mark(1);
  let failed = 0;
  for (let nth = 1; ; nth++) {
    bench.core.own.failNth.arm(nth);
    const status = get({ data });
    if (bench.core.own.failNth.failedAt === null) break;
    t.true(status === -ENOMEM || status === -ENOENT, `${status}`);
    t.is(dirty.marked.size, 1);
    failed++;
  }
  bench.core.own.failNth.arm(0);
  t.true(failed >= 2);
  t.is(dirty.marked.size, 0);
});
