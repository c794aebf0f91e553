/**
 * Where Linux allocates in main.c, ioas.c, io_pagetable.c and pages.c, call by call: the places that can fail, in the
 * order in which a call comes by them.
 */
import test from 'ava';
import { IoasUnmap } from '../../../uapi/iommufd/ioas.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';

const [ENOENT, ENOMEM, EEXIST] = [2, 12, 17];
const U64_MAX = 2n ** 64n - 1n;

/** Makes a call fail at its first allocation, its second and so on, until it passes. @returns the places, in order */
function sites(bench: CoreBench, call: () => unknown): string[] {
  const { failNth } = bench.core.own;
  const places: string[] = [];
  for (let nth = 1; ; nth++) {
    failNth.arm(nth);
    try {
      call();
    } catch {
      // Which errno it is stands elsewhere.
    }
    const { failedAt } = failNth;
    failNth.arm(0);
    if (failedAt === null) return places;
    places.push(failedAt);
  }
}

test('open: the iommufd itself; ENOMEM leaves room for the next', (t) => {
  const bench = new CoreBench();
  bench.core.own.failNth.arm(1);
  t.throws(() => bench.core.open(), { code: 'ENOMEM' });
  t.is(bench.core.own.failNth.failedAt, 'iommufd_ctx');
  bench.core.own.failNth.arm(1);
  t.throws(() => bench.core.openContainer(), { code: 'ENOMEM' });
  bench.core.open();
  bench.core.open();
});

test('map: pages before areas, and both before the IOVA is judged, on either way in', (t) => {
  for (const length of [0x1000n, 0x800n]) {
    const bench = new CoreBench();
    const { fd, user } = bench;
    const { ioasId } = fd.ioasAlloc();
    const userVa = user.alloc(0x1000);
    const map = () => fd.ioasMap({ ioasId, userVa, length, iova: 0x1000n });
    map();
    t.is(errnoOf(map), EEXIST);
    t.deepEqual(sites(bench, map), ['get_object', 'iopt_pages', 'iopt_area']);
  }
});

test('unmap: the IOAS is looked up once, and nothing is allocated', (t) => {
  const bench = new CoreBench();
  const { fd, user } = bench;
  const { ioasId } = fd.ioasAlloc();
  const userVa = user.alloc(0x3000);
  bench.bind().vfio.attach(ioasId);
  const unmap = (length: bigint) => () =>
    fd.ioctl(0x3b86, IoasUnmap.toBytes({ size: 24, ioasId, iova: 0x1000n, length }));
  for (const length of [0x1000n, 0x2000n, 0x4000n]) {
    fd.ioasMap({ ioasId, userVa, length: 0x2000n, iova: 0x1000n });
    t.deepEqual(sites(bench, unmap(length)), ['get_object'], `${length}`);
    if (length < 0x2000n) t.is(unmap(length)(), -ENOENT);
    fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX });
  }
});

test('unmap: two mappings of whole pages at once say how much it was', (t) => {
  const { fd, user } = new CoreBench();
  const { ioasId } = fd.ioasAlloc();
  const userVa = user.alloc(0x3000);
  fd.ioasMap({ ioasId, userVa, length: 0x1000n, iova: 0x1000n });
  fd.ioasMap({ ioasId, userVa, length: 0x1000n, iova: 0x3000n });
  t.is(fd.ioasUnmap({ ioasId, iova: 0n, length: 0x8000n }).length, 0x2000n);
});

test('a dma-buf notes every page table it is in, and reads its range once for them and once for a further one', (t) => {
  const bench = new CoreBench({
    iommus: [{ privateDomains: true }, { privateDomains: true }],
    devices: [{ iommu: 0 }, { iommu: 1 }],
  });
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  bench.bind(0).vfio.attach(ioasId);
  const second = bench.bind(1).vfio;
  second.attach(ioasId);
  const { fd: buf, revoke } = bench.core.dmabuf(0x2000);
  const map = () => fd.ioasMapFile({ ioasId, fd: buf, length: 0x1000, iova: 0x1000n });
  const places = ['get_object', 'iopt_pages', 'dma_buf_attachment', 'iopt_area'];
  t.deepEqual(sites(bench, map), [...places, 'dmabuf_track', 'dmabuf_track', 'pfn_batch']);
  second.detach();
  const ofPages = () => {
    const found = sites(bench, () => {
      second.attach(ioasId);
      second.detach();
    });
    return found.filter((site) => site === 'dmabuf_track' || site === 'pfn_batch');
  };
  t.deepEqual(ofPages(), ['dmabuf_track', 'pfn_batch']);
  revoke(true);
  t.deepEqual(ofPages(), ['dmabuf_track'], 'nothing is read of one that was taken back');
});

test('nothing is left of a map of a dma-buf that failed anywhere', (t) => {
  const bench = new CoreBench();
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  bench.bind().vfio.attach(ioasId);
  const free = bench.frames.freePages();
  const { fd: buf } = bench.core.dmabuf(0x2000);
  const { failNth } = bench.core.own;
  for (let nth = 2; nth <= 6; nth++) {
    failNth.arm(nth);
    t.is(
      errnoOf(() => fd.ioasMapFile({ ioasId, fd: buf, length: 0x1000, iova: 0x1000n })),
      ENOMEM,
    );
  }
  bench.core.own.files.close(buf);
  t.is(bench.frames.freePages(), free);
});

test('a typed call that explains its error neither fails nor counts doing so', (t) => {
  const { fd, core, user } = new CoreBench();
  const { ioasId } = fd.ioasAlloc();
  const userVa = user.alloc(0x1000);
  core.own.failNth.arm(2);
  t.throws(() => fd.ioasUnmap({ ioasId, iova: 0x1000n, length: 0x1000n }), { code: 'ENOENT' });
  t.is(core.own.failNth.left, 1);
  t.is(core.own.failNth.asked, 1);
  t.throws(() => fd.ioasMap({ ioasId, userVa, length: 0x1000n }), { code: 'ENOENT' });
  t.is(core.own.failNth.failedAt, 'get_object');
});
