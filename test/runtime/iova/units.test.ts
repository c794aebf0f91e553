/** Areas that begin and end inside a page, over a domain whose pages are smaller than the CPU's. */
import test from 'ava';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';

const [EINVAL, EADDRINUSE] = [22, 98];
const HALF = 0x800n;

/** IOMMU 0 has pages of 2 KiB, IOMMU 1 of 4 KiB; the device is behind IOMMU 0. */
function scene(options: { attach?: boolean } = {}) {
  const bench = new CoreBench({
    iommus: [{ driver: 'small', pageSizesLg2: [11, 20] }, {}],
    devices: [{ iommu: 0 }, { iommu: 1 }],
  });
  const { ioasId } = bench.fd.ioasAlloc();
  const { vfio } = bench.bind();
  const attach = () => {
    vfio.attach(ioasId);
    return bench.iommus[0]!.attached.get(0) as FakeDomain;
  };
  const domain = options.attach === false ? undefined : attach();
  const map = (userVa: bigint, length: bigint, iova: bigint) =>
    errnoOf(() => bench.fd.ioasMap({ ioasId, userVa, length, iova }));
  /** What a 2 KiB IO page of the given IOVA leads to, as a physical address. */
  const physical = (at: bigint) => {
    const unit = (bench.iommus[0]!.attached.get(0) as FakeDomain).lookup(Number(at / HALF));
    return unit < 0 ? undefined : BigInt(unit) * HALF;
  };
  /** Physical address of a user address. */
  const pa = (va: bigint) => BigInt(bench.pfnOf(va)) * 0x1000n + (va & 0xfffn);
  return { bench, fd: bench.fd, user: bench.user, ioasId, vfio, attach, domain: domain!, map, physical, pa };
}

test('2 KiB IO pages: IOVA, length and offset in the page are multiples of 2 KiB', (t) => {
  const { fd, user, ioasId, map } = scene();
  const userVa = user.alloc(0x4000);
  t.is(fd.ioasIovaRanges(ioasId).alignment, 2048n);
  t.is(map(userVa, 0x400n, 0x1000n), EINVAL);
  t.is(map(userVa + 0x400n, 0x800n, 0x1000n), EINVAL);
  t.is(map(userVa, 0x800n, 0x1400n), EINVAL);
  t.is(map(userVa + HALF, 0x800n, 0x1800n), 0);
});

test('2 KiB IO pages: halves of pages reach the domain, and only those', (t) => {
  const { user, map, physical, pa, domain, fd, ioasId, bench } = scene();
  const userVa = user.alloc(0x4000, { chunkLg2: 12 });
  const before = bench.frameRefs();
  // Second half of page 0, all of pages 1 and 2, first half of page 3, half a page out of step with the IOVA.
  t.is(map(userVa + HALF, 0x3000n, 0x1_0000n), 0);
  t.is(bench.frameRefs(), before + 4, 'four frames are pinned');
  for (let at = 0n; at < 0x3000n; at += HALF)
    t.is(physical(0x1_0000n + at), pa(userVa + HALF + at), `at ${at}`);
  t.is(domain.entries.size, 6);
  t.is(physical(0x1_0000n - HALF), undefined);
  t.is(fd.ioasUnmap({ ioasId, iova: 0x1_0000n, length: 0x3000n }).length, 0x3000n);
  t.is(domain.entries.size, 0);
  t.is(bench.frameRefs(), before);
});

test('2 KiB IO pages: areas that share a page and a frame come and go one by one', (t) => {
  const { user, map, physical, pa, domain, fd, ioasId, bench } = scene();
  const userVa = user.alloc(0x1000);
  const before = bench.frameRefs();
  t.is(map(userVa + HALF, HALF, 0x5000n), 0);
  t.is(map(userVa, HALF, 0x5800n), 0);
  t.is(bench.frameRefs(), before + 2);
  t.is(physical(0x5000n), pa(userVa + HALF));
  t.is(physical(0x5800n), pa(userVa));
  fd.ioasUnmap({ ioasId, iova: 0x5000n, length: HALF });
  t.deepEqual([...domain.entries.keys()], [0x5800 / 0x800]);
  t.is(bench.frameRefs(), before + 1);
});

test('2 KiB IO pages: contiguous frames arrive as one run, cut at both ends', (t) => {
  const { user, map, domain } = scene();
  const userVa = user.alloc(2 ** 21, { contiguous: true });
  t.is(map(userVa + HALF, 0x1000n * 16n, 0x10_0000n), 0);
  t.deepEqual(domain.runs, [32]);
});

test('2 KiB IO pages: what was mapped before the attach arrives with it, and goes with the detach', (t) => {
  const { user, map, physical, pa, attach, vfio, bench } = scene({ attach: false });
  const userVa = user.alloc(0x4000, { chunkLg2: 12 });
  const before = bench.frameRefs();
  t.is(map(userVa + HALF, 0x2800n, 0x9000n), 0);
  const domain = attach();
  t.is(physical(0x9000n), pa(userVa + HALF));
  t.is(physical(0xb000n), pa(userVa + HALF + 0x2000n));
  t.is(domain.entries.size, 5);
  vfio.detach();
  t.is(bench.frameRefs(), before);
});

test('2 KiB IO pages: a second domain with 4 KiB pages is EADDRINUSE while an area is odd', (t) => {
  const { user, map, fd, ioasId, bench } = scene();
  const userVa = user.alloc(0x2000);
  t.is(map(userVa, HALF, 0x9000n), 0);
  const { vfio } = bench.bind(1);
  t.is(
    errnoOf(() => vfio.attach(ioasId)),
    EADDRINUSE,
  );
  fd.ioasUnmap({ ioasId, iova: 0x9000n, length: HALF });
  t.is(map(userVa, 0x1000n, 0xa000n), 0);
  vfio.attach(ioasId);
  t.is(fd.ioasIovaRanges(ioasId).alignment, 4096n);
  const [small, large] = bench.iommus.map((iommu, i) => iommu.attached.get(i) as FakeDomain);
  t.is(small!.entries.size, 2);
  t.is(large!.entries.size, 1);
  t.is(map(userVa + HALF, 0x1000n, 0x1_0000n), EINVAL);
});

test('2 KiB IO pages: a map that fails part of the way leaves nothing behind', (t) => {
  const { user, map, domain, bench } = scene();
  const userVa = user.alloc(0x4000, { chunkLg2: 12 });
  const before = bench.frameRefs();
  for (let nth = 1; ; nth++) {
    bench.failures.arm(nth);
    const errno = map(userVa + HALF, 0x3000n, 0x1_0000n);
    bench.failures.arm(0);
    if (errno === 0) break;
    t.is(errno, 12);
    t.is(domain.entries.size, 0);
    t.is(bench.frameRefs(), before);
  }
  t.is(domain.entries.size, 6);
});

test('2 KiB IO pages: the aperture and the last address are exact to the unit', (t) => {
  const bench = new CoreBench({
    iommus: [{ pageSizesLg2: [11], aperture: { firstUnit: 3, lastUnit: 2 ** 53 - 1 } }],
  });
  const { ioasId } = bench.fd.ioasAlloc();
  bench.bind().vfio.attach(ioasId);
  const last = (1n << 64n) - 1n;
  t.deepEqual(bench.fd.ioasIovaRanges(ioasId).ranges, [{ start: 0x1800n, last }]);
  const userVa = bench.user.alloc(0x1000);
  const map = (iova: bigint) => errnoOf(() => bench.fd.ioasMap({ ioasId, userVa, length: HALF, iova }));
  t.is(map(0x1000n), EINVAL);
  t.is(map(0x1800n), 0);
  t.is(map(last - 0x7ffn), 0);
  const domain = bench.iommus[0]!.attached.get(0) as FakeDomain;
  t.deepEqual([...domain.entries.keys()], [3, 2 ** 53 - 1]);
});

test('a copy of two halves of pages is EINVAL where the IO pages are whole, though together they are one', (t) => {
  const bench = new CoreBench();
  const { fd, user } = bench;
  const source = fd.ioasAlloc().ioasId;
  const { ioasId } = fd.ioasAlloc();
  bench.bind().vfio.attach(ioasId);
  const domain = bench.iommus[0]!.attached.get(0) as FakeDomain;
  const userVa = user.alloc(0x2000);
  const before = bench.frameRefs();
  fd.ioasMap({ ioasId: source, userVa, length: HALF, iova: 0x5000n });
  fd.ioasMap({ ioasId: source, userVa: userVa + 0x1000n, length: HALF, iova: 0x5800n });
  for (const dstIova of [0x9000n, undefined]) {
    const iova = dstIova === undefined ? {} : { dstIova };
    t.is(
      errnoOf(() =>
        fd.ioasCopy({ dstIoasId: ioasId, srcIoasId: source, srcIova: 0x5000n, length: 0x1000n, ...iova }),
      ),
      EINVAL,
    );
  }
  t.is(domain.entries.size, 0);
  t.is(bench.frameRefs(), before);
  t.is(
    errnoOf(() => fd.ioasMap({ ioasId, userVa, length: 0x1000n, iova: 0x9000n })),
    0,
    'the place is free',
  );
});
