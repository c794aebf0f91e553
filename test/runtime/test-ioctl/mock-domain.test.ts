import test from 'ava';
import { createMachine } from '../../../runtime/machine.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import { IOMMU_TEST_CMD, TestBench } from '../../kit/test-ioctl.js';

const [ENOENT, EFAULT, EBUSY, EINVAL, ENOTTY, E2BIG] = [2, 14, 16, 22, 25, 7];
const [EIO, EOVERFLOW, EADDRINUSE, EOPNOTSUPP] = [5, 75, 98, 95];
const [ADD_RESERVED, MOCK_DOMAIN, REPLACE, DIRTY, CHECK_IOTLB, CHECK_CACHE] = [1, 2, 10, 13, 14, 16];
const [NO_DIRTY, PASID] = [1, 4];
const APERTURE = 0x100_0000n;
const PAGE = 4096n;

test('without the option there is no test ioctl and no mock IOMMU', (t) => {
  const bench = new CoreBench();
  t.is(bench.fd.ioctl(IOMMU_TEST_CMD, new Uint8Array(72)), -ENOTTY);
  const config = { iommus: [{ name: 's', model: 'smmuv3' as const }], devices: [] };
  const plain = createMachine(config);
  t.is(plain.openIommufd().ioctl(IOMMU_TEST_CMD, new Uint8Array(72)), -ENOTTY);
  const testing = createMachine(config, { testIoctl: true });
  t.is(testing.openIommufd().ioctl(IOMMU_TEST_CMD, new Uint8Array(72)), -EINVAL, 'size 0');
});

test('the struct is checked as every other: from 68 bytes on, with a zero tail', (t) => {
  const bench = new TestBench();
  const cmd = (size: number, bytes = size) => {
    const struct = new Uint8Array(bytes);
    new DataView(struct.buffer).setUint32(0, size, true);
    return struct;
  };
  t.is(bench.fd.ioctl(IOMMU_TEST_CMD, cmd(67)), -EINVAL);
  t.is(bench.fd.ioctl(IOMMU_TEST_CMD, cmd(68)), -EOPNOTSUPP, 'operation 0');
  t.is(bench.fd.ioctl(IOMMU_TEST_CMD, cmd(72, 70)), -EFAULT);
  t.is(bench.fd.ioctl(IOMMU_TEST_CMD, cmd(80)), -EOPNOTSUPP);
  t.is(bench.fd.ioctl(IOMMU_TEST_CMD, cmd(80).fill(1, 79)), -E2BIG);
  t.is(bench.run(24, 0).status, -EOPNOTSUPP);
});

test('MOCK_DOMAIN: a device is bound and attached, and goes with its stdev', (t) => {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const first = bench.run(MOCK_DOMAIN, ioasId);
  t.is(first.status, 0);
  const [stdevId, hwptId, idevId] = [first.u32(0), first.u32(4), first.u32(8)];
  t.is(new Set([ioasId, stdevId, hwptId, idevId, 0]).size, 5);
  const second = bench.mockDomain(ioasId);
  t.is(second.hwptId, hwptId, 'one automatic page table serves both');
  t.is(bench.mock?.deviceCount, 2);
  t.is(
    errnoOf(() => bench.fd.destroy(idevId)),
    EBUSY,
  );
  t.is(
    errnoOf(() => bench.fd.destroy(ioasId)),
    EBUSY,
  );
  bench.fd.destroy(stdevId);
  bench.fd.destroy(second.stdevId);
  t.is(bench.mock?.deviceCount, 0);
  bench.fd.destroy(ioasId);
  t.is(bench.fd.ctx.objectCount, 0);
});

test('MOCK_DOMAIN: what fails leaves nothing', (t) => {
  const bench = new TestBench();
  t.is(bench.mockDomain(77).status, -ENOENT);
  const { ioasId } = bench.fd.ioasAlloc();
  t.is(bench.mockDomain(ioasId, 2).status, -EINVAL, 'an unknown flag');
  const { stdevId } = bench.mockDomain(ioasId, NO_DIRTY | PASID);
  t.is(bench.mockDomain(stdevId).status, -EINVAL, 'neither an IOAS nor a page table');
  t.is(bench.mock?.deviceCount, 1);
  bench.fd.destroy(stdevId);
  for (let nth = 1; ; nth++) {
    bench.core.own.failNth.arm(nth);
    const { status, stdevId: made } = bench.mockDomain(ioasId);
    const fired = bench.core.own.failNth.left === 0;
    bench.core.own.failNth.arm(0);
    if (status === 0) bench.fd.destroy(made);
    t.is(bench.mock?.deviceCount, 0, `failure ${nth}`);
    t.is(bench.fd.ctx.objectCount, 1, `failure ${nth}`);
    if (!fired) break;
    t.true(status < 0, `failure ${nth} at ${bench.core.own.failNth.failedAt}`);
  }
  bench.fd.close();
  t.deepEqual(bench.logged, []);
});

test('closing the iommufd destroys stdevs and their devices, which do not keep it open', (t) => {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  t.is(bench.mockDomain(ioasId).status, 0);
  t.is(bench.mockDomain(ioasId).status, 0);
  bench.fd.close();
  t.is(bench.mock?.deviceCount, 0);
  t.is(bench.fd.ctx.objectCount, 0);
});

test('MOCK_DOMAIN_REPLACE moves the device', (t) => {
  const bench = new TestBench();
  const [a, b] = [bench.fd.ioasAlloc().ioasId, bench.fd.ioasAlloc().ioasId];
  const { stdevId, hwptId, idevId } = bench.mockDomain(a);
  const moved = bench.run(REPLACE, stdevId, [[0, 4, b]]);
  t.is(moved.status, 0);
  t.not(moved.u32(0), hwptId);
  const own = bench.fd.hwptAlloc({ devId: idevId, ptId: a }).hwptId;
  t.is(bench.run(REPLACE, stdevId, [[0, 4, own]]).u32(0), own);
  t.is(bench.run(REPLACE, stdevId, [[0, 4, 99]]).status, -ENOENT);
  t.is(bench.run(REPLACE, idevId, [[0, 4, a]]).status, -ENOENT, 'the ID is a stdev');
});

test('MD_CHECK_MAP compares every unit of 2 KiB with the page behind the user address', (t) => {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const { hwptId } = bench.mockDomain(ioasId);
  const va = bench.user.alloc(Number(16n * PAGE), { chunkLg2: 12 });
  bench.fd.ioasMap({ ioasId, userVa: va, length: 8n * PAGE, iova: APERTURE });
  t.is(bench.checkMap(hwptId, APERTURE, 8n * PAGE, va), 0);
  t.is(bench.checkMap(hwptId, APERTURE + 2048n, 2048n, va + 2048n), 0);
  t.is(bench.checkMap(hwptId, APERTURE, PAGE, va + PAGE), -EINVAL, 'another page');
  t.is(bench.checkMap(hwptId, APERTURE, 2048n, va + 2048n), -EINVAL, 'another half');
  t.is(bench.checkMap(hwptId, APERTURE, 9n * PAGE, va), -EINVAL, 'beyond what is mapped');
  t.is(bench.checkMap(hwptId, APERTURE + 1n, PAGE, va), -EINVAL);
  t.is(bench.checkMap(hwptId, APERTURE, PAGE, 0n), -EFAULT);
  t.is(bench.checkMap(hwptId, APERTURE, PAGE, 2n ** 64n - PAGE), -EINVAL, 'the end overflows');
  t.is(bench.checkMap(ioasId, APERTURE, PAGE, va), -ENOENT);
  t.is(bench.checkMap(hwptId, APERTURE, 0n, va), 0);
});

test('an area that begins and ends inside pages reaches the domain to the half', (t) => {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const { hwptId } = bench.mockDomain(ioasId);
  const va = bench.user.alloc(Number(4n * PAGE), { chunkLg2: 12 }) + 2048n;
  bench.fd.ioasMap({ ioasId, userVa: va, length: 2n * PAGE, iova: APERTURE });
  t.is(bench.checkMap(hwptId, APERTURE, 2n * PAGE, va), 0);
  t.is(bench.checkMap(hwptId, APERTURE, 2n * PAGE, va + 2048n), -EINVAL);
  t.is(
    errnoOf(() => bench.fd.ioasMap({ ioasId, userVa: va, length: 1024n, iova: APERTURE * 2n })),
    EINVAL,
  );
});

test('MD_CHECK_REFS counts pins', (t) => {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  bench.mockDomain(ioasId);
  const va = bench.user.alloc(Number(4n * PAGE));
  t.is(bench.checkRefs(va, 4n * PAGE, 0), 0);
  bench.fd.ioasMap({ ioasId, userVa: va, length: 2n * PAGE });
  t.is(bench.checkRefs(va, 2n * PAGE, 1), 0);
  t.is(bench.checkRefs(va, 4n * PAGE, 1), -EIO, 'two of the four are not pinned');
  bench.fd.ioasMap({ ioasId, userVa: va, length: 2n * PAGE });
  t.is(bench.checkRefs(va, 2n * PAGE, 2), 0);
  bench.fd.ioasUnmap({ ioasId, iova: 0n, length: 2n ** 64n - 1n });
  t.is(bench.checkRefs(va, 4n * PAGE, 0), 0);
  t.is(bench.checkRefs(va + 1n, PAGE, 0), -EINVAL);
  t.is(bench.checkRefs(va, PAGE - 1n, 0), -EINVAL);
  t.is(bench.checkRefs(0n, PAGE, 0), -EFAULT);
  t.is(bench.checkRefs(2n ** 64n - PAGE, PAGE, 0), -EINVAL);
});

test('the mock maps from 16 MiB to 2 GiB', (t) => {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  bench.mockDomain(ioasId);
  t.deepEqual(bench.fd.ioasIovaRanges(ioasId), {
    ranges: [{ start: APERTURE, last: 0x7fff_ffffn }],
    alignment: 2048n,
  });
  const va = bench.user.alloc(4096);
  const map = (iova: bigint) => errnoOf(() => bench.fd.ioasMap({ ioasId, userVa: va, length: PAGE, iova }));
  t.is(map(APERTURE - PAGE), EINVAL);
  t.is(map(0x8000_0000n), EINVAL);
  t.is(map(0x7fff_f000n), 0);
  t.is(map(APERTURE), 0);
});

test('ADD_RESERVED: nobody maps there any more', (t) => {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const reserve = (id: number, start: bigint, length: bigint) =>
    bench.run(ADD_RESERVED, id, [
      [0, 8, start],
      [8, 8, length],
    ]).status;
  t.is(reserve(ioasId, 0n, 0n), -EINVAL);
  t.is(reserve(ioasId, 2n ** 64n - 1n, 2n), -EOVERFLOW);
  t.is(reserve(99, 0n, PAGE), -ENOENT);
  t.is(reserve(ioasId, 0x10_0800n, 0x800n), 0);
  t.is(reserve(ioasId, 2n ** 64n - 1n, 1n), 0);
  t.deepEqual(bench.fd.ioasIovaRanges(ioasId).ranges, [
    { start: 0n, last: 0x10_07ffn },
    { start: 0x10_1000n, last: 2n ** 64n - 2n },
  ]);
  const va = bench.user.alloc(4096);
  const map = (iova: bigint) => bench.fd.ioasMap({ ioasId, userVa: va, length: PAGE, iova });
  t.is(
    errnoOf(() => map(0x10_0000n)),
    EINVAL,
  );
  map(0x20_0000n);
  t.is(reserve(ioasId, 0x20_0000n, 1n), -EADDRINUSE);
});

test('GET_HW_INFO has the type and the register of the mock', (t) => {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const plain = bench.mockDomain(ioasId);
  const info = bench.fd.getHwInfo({ devId: plain.idevId });
  t.is(info.dataType, 0xfeedbeef);
  t.deepEqual([...info.data], [0, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde]);
  t.is(info.capabilities, 9n, 'dirty tracking, no ATS');
  t.is(info.maxPasidLog2, 0);
  const other = bench.mockDomain(ioasId, NO_DIRTY | PASID);
  t.is(bench.fd.getHwInfo({ devId: other.idevId }).capabilities, 8n);
  t.is(bench.fd.getHwInfo({ devId: other.idevId }).maxPasidLog2, 20);
  t.is(bench.fd.getHwInfo({ devId: plain.idevId, dataType: 0xfeedbeef }).data.length, 8);
  t.is(
    errnoOf(() => bench.fd.getHwInfo({ devId: plain.idevId, dataType: 2 })),
    EOPNOTSUPP,
  );
});

test('a page table that tracks dirty pages does not suit a device that cannot', (t) => {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const able = bench.mockDomain(ioasId);
  const unable = bench.mockDomain(ioasId, NO_DIRTY);
  const { hwptId } = bench.fd.hwptAlloc({ devId: able.idevId, ptId: ioasId, flags: 2 });
  t.is(bench.run(REPLACE, unable.stdevId, [[0, 4, hwptId]]).status, -EINVAL);
  t.is(bench.run(REPLACE, able.stdevId, [[0, 4, hwptId]]).status, 0);
  t.is(
    errnoOf(() => bench.fd.hwptAlloc({ devId: unable.idevId, ptId: ioasId, flags: 2 })),
    EOPNOTSUPP,
  );
});

test('DIRTY needs a page table that tracks', (t) => {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const { hwptId } = bench.mockDomain(ioasId);
  const bits = bench.user.alloc(4096);
  const dirty = ([iova, length, pageSize, uptr]: readonly bigint[]) =>
    bench.run(DIRTY, hwptId, [
      [8, 8, iova!],
      [16, 8, length!],
      [24, 8, pageSize!],
      [32, 8, uptr!],
    ]).status;
  for (const args of [
    [0n, PAGE, 0n, bits],
    [0n, 0n, PAGE, bits],
    [1n, PAGE, PAGE, bits],
    [0n, PAGE + 1n, PAGE, bits],
    [0n, PAGE, PAGE, 0n],
    [0n, PAGE, PAGE, bits],
  ])
    t.is(dirty(args), -EINVAL);
});

test('nested page tables have four words, devices too', (t) => {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const { idevId } = bench.mockDomain(ioasId);
  const parent = bench.fd.hwptAlloc({ devId: idevId, ptId: ioasId, flags: 1 }).hwptId;
  const data = Uint8Array.from([0xef, 0xbe, 0xad, 0x0b]);
  const alloc = (dataType: number, bytes = data) =>
    bench.fd.hwptAlloc({ devId: idevId, ptId: parent, dataType, data: bytes }).hwptId;
  const nested = alloc(0xdead);
  t.is(
    errnoOf(() => alloc(2)),
    EOPNOTSUPP,
  );
  t.is(
    errnoOf(() => alloc(0xdead, new Uint8Array(3))),
    EINVAL,
  );
  const check = (op: number, id: number, word: number, value: number) =>
    bench.run(op, id, [
      [0, 4, word],
      [4, 4, value],
    ]).status;
  for (const word of [0, 1, 2, 3]) {
    t.is(check(CHECK_IOTLB, nested, word, 0x0badbeef), 0);
    t.is(check(CHECK_CACHE, idevId, word, 0xbaddad), 0);
  }
  t.is(check(CHECK_IOTLB, nested, 4, 0x0badbeef), -EINVAL);
  t.is(check(CHECK_IOTLB, nested, 0, 0), -EINVAL);
  t.is(check(CHECK_IOTLB, parent, 0, 0x0badbeef), -ENOENT);
  t.is(check(CHECK_CACHE, idevId, 4, 0xbaddad), -EINVAL);
  t.is(check(CHECK_CACHE, nested, 0, 0xbaddad), -ENOENT);
});
