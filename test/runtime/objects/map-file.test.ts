import test from 'ava';
import { openMemFile } from '../../../runtime/mem-file.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';
import { forked } from '../../kit/processes.js';

const [EPERM, ENOENT, EBADF, EINVAL, ENODEV, EOVERFLOW, EOPNOTSUPP, EDEADLOCK] = [
  1, 2, 9, 22, 19, 75, 95, 35,
];
const U64_MAX = 2n ** 64n - 1n;
const MAP_FILE = 0x3b8f;
const PAGE = 4096;

function scene() {
  const bench = new CoreBench();
  const { ioasId } = bench.fd.ioasAlloc();
  return { bench, fd: bench.fd, user: bench.user, ioasId };
}

/** struct iommu_ioas_map_file. */
function raw(fields: {
  flags?: number;
  ioasId: number;
  fd: number;
  start?: bigint;
  length?: bigint;
  iova?: bigint;
}) {
  const bytes = new Uint8Array(40);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 40, true);
  view.setUint32(4, fields.flags ?? 6, true);
  view.setUint32(8, fields.ioasId, true);
  view.setInt32(12, fields.fd, true);
  view.setBigUint64(16, fields.start ?? 0n, true);
  view.setBigUint64(24, fields.length ?? 4096n, true);
  view.setBigUint64(32, fields.iova ?? 0n, true);
  return bytes;
}

/** What the one page table maps, page by page. */
const tableOf = (bench: CoreBench) => {
  const domain = bench.iommus[0]!.attached.get(0) as FakeDomain;
  return [...domain.entries].map(([page, { pfn }]) => [page, pfn]).sort((a, b) => a[0]! - b[0]!);
};

test('map file: two mappings of one memfd page are one frame, in user memory and for DMA', (t) => {
  const { bench, fd, user, ioasId } = scene();
  const { fd: memfd, file } = bench.core.memfd(4 * PAGE);
  const first = user.map(file);
  const second = user.map(file, 4096n, 8192n);
  user.copyOut(first + 4096n, Uint8Array.from([1, 2, 3]));
  const back = new Uint8Array(3);
  user.copyIn(second, back);
  t.deepEqual([...back], [1, 2, 3]);
  const { vfio } = bench.bind();
  vfio.attach(ioasId);
  fd.ioasMapFile({ ioasId, fd: memfd, start: 4096n, length: 8192, iova: 0x10000n });
  t.deepEqual(tableOf(bench), [
    [0x10, bench.pfnOf(first + 4096n)],
    [0x11, bench.pfnOf(second + 4096n)],
  ]);
});

test('map file: the frames live until the last of descriptor, mapping and IOAS', (t) => {
  const { bench, fd, user, ioasId } = scene();
  const free = bench.frames.freePages();
  const { fd: memfd, file } = bench.core.memfd(4 * PAGE);
  const va = user.map(file);
  fd.ioasMapFile({ ioasId, fd: memfd, length: 4 * PAGE, iova: 0n });
  bench.core.own.files.close(memfd);
  user.free(va, 4 * PAGE);
  const { vfio } = bench.bind();
  t.notThrows(() => vfio.attach(ioasId), 'the IOAS holds the file');
  t.is(bench.frames.freePages(), free - 4);
  fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX });
  t.is(bench.frames.freePages(), free);
});

test('map file: what it says of wrong arguments, in the order Linux looks', (t) => {
  const { bench, fd, ioasId } = scene();
  const { fd: memfd } = bench.core.memfd(4 * PAGE);
  const ioctl = (fields: Partial<Parameters<typeof raw>[0]>) =>
    Math.abs(fd.ioctl(MAP_FILE, raw({ ioasId, fd: memfd, ...fields })));
  t.is(ioctl({ flags: 8 | 6, iova: U64_MAX }), EOPNOTSUPP);
  t.is(ioctl({ flags: 0, iova: U64_MAX }), EOVERFLOW);
  t.is(ioctl({ flags: 0, length: U64_MAX }), EOVERFLOW);
  t.is(ioctl({ flags: 1, ioasId: 99 }), EINVAL, 'neither readable nor writeable');
  t.is(ioctl({ ioasId: 99, length: 0n }), ENOENT);
  t.is(ioctl({ length: 0n, start: U64_MAX, fd: 99 }), EINVAL);
  t.is(ioctl({ length: 2n, start: U64_MAX, fd: 99 }), EOVERFLOW);
  t.is(ioctl({ fd: 99 }), EBADF);
  t.is(ioctl({ fd: -1 }), EBADF);
  t.is(ioctl({ length: U64_MAX - 4095n }), EINVAL);
  t.is(ioctl({}), 0);
});

test('map file: past the end of the file shows when pages are pinned', (t) => {
  const { bench, fd, ioasId } = scene();
  const { fd: memfd } = bench.core.memfd(4 * PAGE + 5);
  const at = (start: bigint, length: bigint) =>
    errnoOf(() => fd.ioasMapFile({ ioasId, fd: memfd, start, length }));
  t.is(at(0x4000n, 0x1000n), 0, 'nobody needs them yet');
  t.is(at(0x100000n, 0x1000n), 0);
  t.is(at(2n ** 63n, 0x1000n), 0);
  const { vfio } = bench.bind();
  t.is(
    errnoOf(() => vfio.attach(ioasId)),
    EINVAL,
  );
  fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX });
  vfio.attach(ioasId);
  t.is(at(0n, 0x4000n), 0);
  t.is(at(0x3000n, 0x2000n), EINVAL, 'the last page is not whole');
  t.is(at(0x5000n, 0x1000n), EINVAL);
  t.is(at(2n ** 63n, 0x1000n), EINVAL);
});

test('map file: a descriptor of something without pages can be mapped where nobody needs them', (t) => {
  const { bench, fd, ioasId } = scene();
  t.is(
    errnoOf(() => fd.ioasMapFile({ ioasId, fd: fd.fd, length: 0x1000, iova: 0n })),
    0,
  );
  const { vfio } = bench.bind();
  t.is(
    errnoOf(() => vfio.attach(ioasId)),
    EINVAL,
  );
});

test('map file: an IOVA of its own choice keeps the alignment of the offset in the file', (t) => {
  const { bench, fd, ioasId } = scene();
  const { fd: memfd } = bench.core.memfd('4MiB');
  t.is(fd.ioasMapFile({ ioasId, fd: memfd, length: 0x1000, start: 0x123n }).iova, 0x1123n);
  t.is(fd.ioasMapFile({ ioasId, fd: memfd, length: '2MiB' }).iova, 0x20_0000n);
  t.is(fd.ioasMapFile({ ioasId, fd: memfd, length: 0x4000, start: 0x2000n }).iova, 0x4000n);
});

test('map file: a descriptor means what it means in the process that asks', (t) => {
  const { bench, fd, user, ioasId } = scene();
  const other = forked(bench);
  const file = user.createFile(2 * PAGE);
  const number = other.files.install(openMemFile(file));
  t.is(
    errnoOf(() => fd.ioasMapFile({ ioasId, fd: 77, length: 0x1000 })),
    EBADF,
  );
  t.is(
    bench.core.as(other, () => fd.ioctl(MAP_FILE, raw({ ioasId, fd: number }))),
    0,
  );
});

test('map file: accesses read, write and pin it; a dead process does not matter', (t) => {
  const { bench, fd, user, ioasId } = scene();
  const other = forked(bench);
  const file = user.createFile(4 * PAGE);
  const number = other.files.install(openMemFile(file));
  const va = user.map(file);
  bench.core.as(other, () => fd.ioctl(MAP_FILE, raw({ ioasId, fd: number, length: 0x4000n, flags: 7 })));
  other.mm.alive = false;
  const access = fd.createAccess({ needsPinPages: true, unmap: () => undefined });
  access.attach(ioasId);
  const bytes = Uint8Array.from({ length: 0x1800 }, (_, i) => i & 0xff);
  access.write(0x700n, bytes);
  const seen = new Uint8Array(bytes.length);
  user.copyIn(va + 0x700n, seen);
  t.deepEqual(seen, bytes);
  access.read(0x700n, seen.fill(0));
  t.deepEqual(seen, bytes);
  t.deepEqual(access.pinPages(0x1000n, 0x1000), [bench.pfnOf(va + 0x1000n)]);
  t.is(
    errnoOf(() => fd.ioasUnmap({ ioasId, iova: 0n, length: 0x4000 })),
    EDEADLOCK,
  );
});

test('dma-buf: bounds are judged when it is mapped', (t) => {
  const { bench, fd, ioasId } = scene();
  const { fd: buf } = bench.core.dmabuf(4 * PAGE);
  const at = (start: bigint, length: bigint) =>
    errnoOf(() => fd.ioasMapFile({ ioasId, fd: buf, start, length }));
  t.is(at(0n, 0n), EINVAL);
  t.is(at(0x4000n, 0x4000n), EINVAL);
  t.is(at(0n, 0x4001n), EINVAL);
  t.is(at(U64_MAX, 2n), EOVERFLOW);
  t.is(at(0n, 0x4000n), 0);
  t.is(at(0x3000n, 0x1000n), 0);
});

test('dma-buf: its range reaches page tables, and is neither pinned nor charged', (t) => {
  const { bench, fd, ioasId } = scene();
  bench.core.own.capabilities.clear();
  bench.core.own.memlockBytes = 0;
  const { fd: buf, dmabuf } = bench.core.dmabuf(4 * PAGE);
  const { pfn } = dmabuf.exporter.map() as { pfn: number };
  const refs = bench.frameRefs();
  fd.ioasMapFile({ ioasId, fd: buf, start: 4096n, length: 8192, iova: 0x10000n });
  const { vfio } = bench.bind();
  vfio.attach(ioasId);
  t.deepEqual(tableOf(bench), [
    [0x10, pfn + 1],
    [0x11, pfn + 2],
  ]);
  t.is(bench.frameRefs(), refs);
  t.deepEqual(bench.user.account, { pinnedVm: 0, lockedVm: 0 });
});

test('dma-buf: revoked, it is out of every page table and SYNCed, and never comes back by itself', (t) => {
  const bench = new CoreBench({
    iommus: [{ privateDomains: true }, { privateDomains: true }],
    devices: [{ iommu: 0 }, { iommu: 1 }],
  });
  const { fd } = bench;
  const [first, second] = [fd.ioasAlloc().ioasId, fd.ioasAlloc().ioasId];
  const { fd: buf, revoke } = bench.core.dmabuf(4 * PAGE);
  bench.bind(0).vfio.attach(first);
  fd.ioasMapFile({ ioasId: first, fd: buf, length: 0x4000, iova: 0n });
  fd.ioasCopy({ srcIoasId: first, dstIoasId: second, srcIova: 0n, length: 0x2000, dstIova: 0x8000n });
  const other = bench.bind(1).vfio;
  other.attach(second);
  const domains = [0, 1].map((i) => bench.iommus[i]!.attached.get(i) as FakeDomain);
  t.deepEqual(
    domains.map(({ entries }) => entries.size),
    [4, 2],
  );
  const syncs = domains.map((domain) => domain.syncs);
  revoke(true);
  t.deepEqual(
    domains.map(({ entries }) => entries.size),
    [0, 0],
  );
  t.deepEqual(
    domains.map((domain, i) => domain.syncs - syncs[i]!),
    [1, 1],
  );
  t.deepEqual(
    domains.map(({ stale }) => stale.size),
    [0, 0],
  );
  const map = (iova: bigint) =>
    errnoOf(() => fd.ioasMapFile({ ioasId: first, fd: buf, length: 0x1000, iova }));
  t.is(map(0x20000n), ENODEV);
  revoke(false);
  t.is(domains[0]!.entries.size, 0, 'what was revoked stays so');
  t.is(map(0x20000n), 0);
  t.is(domains[0]!.entries.size, 1, 'a new mapping asks again');
  other.detach();
  other.attach(second);
  t.is((bench.iommus[1]!.attached.get(1) as FakeDomain).entries.size, 0);
  fd.ioasCopy({ srcIoasId: second, dstIoasId: first, srcIova: 0x8000n, length: 0x2000, dstIova: 0x40000n });
  t.is(domains[0]!.entries.size, 1, 'a copy of it leads nowhere either');
  for (const ioasId of [first, second]) fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX });
  t.is(domains[0]!.entries.size, 0);
});

test('dma-buf: the exporter gets its memory back with the last importer and descriptor', (t) => {
  const { bench, fd, ioasId } = scene();
  const free = bench.frames.freePages();
  const { fd: buf } = bench.core.dmabuf(4 * PAGE);
  fd.ioasMapFile({ ioasId, fd: buf, length: 0x1000, iova: 0n });
  bench.core.own.files.close(buf);
  t.is(bench.frames.freePages(), free - 4);
  fd.ioasUnmap({ ioasId, iova: 0n, length: 0x1000 });
  t.is(bench.frames.freePages(), free);
});

test('dma-buf: no access can have it', (t) => {
  const { bench, fd, ioasId } = scene();
  const { fd: buf } = bench.core.dmabuf(4 * PAGE);
  fd.ioasMapFile({ ioasId, fd: buf, length: 0x4000, iova: 0n });
  fd.ioasMapFile({ ioasId, fd: buf, length: 0x1000, iova: 0x8000n, writeable: false });
  const access = fd.createAccess({ needsPinPages: true, unmap: () => undefined });
  access.attach(ioasId);
  t.is(
    errnoOf(() => access.pinPages(0n, 0x1000)),
    EINVAL,
  );
  t.is(
    errnoOf(() => access.read(0n, new Uint8Array(1))),
    EINVAL,
  );
  t.is(
    errnoOf(() => access.write(0x8000n, new Uint8Array(1))),
    EPERM,
  );
});
