import test from 'ava';
import { CoreBench, errnoOf, errnoOfFailure } from '../../kit/core-bench.js';
import { FAKE_PAGE } from '../../kit/fake-driver.js';

const [EPERM, ENOENT, EIO, ENXIO, EBADF, ENOMEM, EFAULT, EBUSY, EEXIST] = [1, 2, 5, 6, 9, 12, 14, 16, 17];
const [EINVAL, ERANGE, EOPNOTSUPP, EOVERFLOW] = [22, 34, 95, 75];
const NEST_PARENT = 1;
const PAGE = 4096n;
const PAGE_OFFSET = 0x1000n;
const RAM = 0x10_0000n;

/** A vIOMMU of type 2 (it has HW queues and a page to map) over a guest whose 16 pages are at IPA 1 MiB. */
function guest(options: ConstructorParameters<typeof CoreBench>[0] = {}) {
  const bench = new CoreBench(options);
  const { fd } = bench;
  const refs = bench.frameRefs();
  const { ioasId } = fd.ioasAlloc();
  const { vfio, devId } = bench.bind(0);
  const hwptId = fd.hwptAlloc({ devId, ptId: ioasId, flags: NEST_PARENT }).hwptId;
  const userVa = bench.user.alloc(16 * 4096, { contiguous: true });
  fd.ioasMap({ ioasId, userVa, length: 16n * PAGE, iova: RAM });
  const { viommuId, data } = fd.viommuAlloc({ devId, hwptId, type: 2, data: new Uint8Array(16) });
  const view = new DataView(data.buffer);
  const mmap = { offset: view.getBigUint64(0, true), length: Number(view.getBigUint64(8, true)) };
  const queue = (fields: object = {}) =>
    fd.hwQueueAlloc({ viommuId, type: 1, index: 0, iova: RAM, length: 4096, ...fields }).hwQueueId;
  return { bench, fd, refs, ioasId, vfio, devId, hwptId, userVa, viommuId, mmap, queue };
}

test('viommu data: in and out, of exactly the length that the driver knows', (t) => {
  const { fd, devId, hwptId, mmap } = guest();
  t.deepEqual(mmap, { offset: PAGE_OFFSET, length: 0x2000 });
  const errno = (data?: Uint8Array) =>
    errnoOf(() => fd.viommuAlloc({ devId, hwptId, type: 2, ...(data && { data }) }));
  t.is(errno(), EINVAL, 'none');
  t.is(errno(new Uint8Array(15)), EINVAL);
  t.is(errno(new Uint8Array(17)), EINVAL);
  t.is(fd.ctx.objectCount, 4);
  const again = fd.viommuAlloc({ devId, hwptId, type: 2, data: new Uint8Array(16) });
  t.is(new DataView(again.data.buffer).getBigUint64(0, true), PAGE_OFFSET + 0x2000n, 'the next gap');
});

test('viommu data: memory that is not there is EFAULT, and nothing stays', (t) => {
  const { bench, fd, devId, hwptId } = guest();
  const bytes = new Uint8Array(40);
  const view = new DataView(bytes.buffer);
  [40, 0, 2, devId, hwptId, 0, 16].forEach((word, i) => {
    view.setUint32(i * 4, word, true);
  });
  view.setBigUint64(32, 0xdead_0000n, true);
  t.is(fd.ioctl(0x3b90, bytes), -EFAULT);
  t.is(bench.iommus[0]!.liveViommus, 1);
  t.is(fd.ctx.objectCount, 4);
});

test('viommu alloc: the type is judged before the page table is looked for', (t) => {
  const { fd, devId } = guest();
  t.is(
    errnoOf(() => fd.viommuAlloc({ devId, hwptId: 999, type: 9 })),
    EOPNOTSUPP,
  );
  t.is(
    errnoOf(() => fd.viommuAlloc({ devId, hwptId: 999, type: 1 })),
    ENOENT,
  );
});

test('mmap: one entry whole, by its own offset, shared and not executable', (t) => {
  const { fd, mmap } = guest();
  const errno = (fields: object) => errnoOf(() => fd.mmap({ ...mmap, ...fields }));
  t.is(errno({ offset: mmap.offset + 1n }), EINVAL);
  t.is(errno({ length: 0 }), EINVAL);
  t.is(errno({ shared: false }), EINVAL);
  t.is(errno({ exec: true }), EPERM);
  t.is(errno({ offset: 0n }), ENXIO);
  t.is(errno({ offset: mmap.offset + PAGE }), ENXIO, 'inside');
  t.is(errno({ length: 4096 }), ENXIO, 'a part');
  t.is(errno({ length: 0x3000 }), ENXIO);
  t.is(errno({ offset: 1n << 40n }), ENXIO);
  const mapped = fd.mmap({ ...mmap, length: 0x1001 });
  t.is(mapped.view.byteLength, FAKE_PAGE.bytes, 'lengths are rounded up to pages');
  t.is(mapped.linear, FAKE_PAGE.linear);
  mapped.unmap();
});

test('mmap: holds the vIOMMU and the file until munmap', (t) => {
  const { bench, fd, viommuId, mmap, vfio, userVa, refs } = guest();
  const first = fd.mmap(mmap);
  const second = fd.mmap(mmap);
  const errno = () => errnoOf(() => fd.destroy(viommuId));
  t.is(errno(), EBUSY);
  first.unmap();
  first.unmap();
  t.is(errno(), EBUSY, 'twice unmapped is once');
  vfio.close();
  fd.close();
  t.is(bench.iommus[0]!.liveViommus, 1, 'the mapping keeps the file open');
  t.is(
    errnoOf(() => fd.mmap(mmap)),
    EBADF,
  );
  second.unmap();
  t.is(bench.iommus[0]!.liveViommus, 0);
  bench.user.free(userVa, 16 * 4096);
  t.is(bench.frameRefs(), refs);
});

test('mmap: a destroyed vIOMMU leaves nothing to map, and its gap is used again', (t) => {
  const { fd, viommuId, mmap, devId, hwptId } = guest();
  fd.destroy(viommuId);
  t.is(
    errnoOf(() => fd.mmap(mmap)),
    ENXIO,
  );
  const { data } = fd.viommuAlloc({ devId, hwptId, type: 2, data: new Uint8Array(16) });
  t.is(new DataView(data.buffer).getBigUint64(0, true), mmap.offset);
});

test('hw queue: arguments', (t) => {
  const { fd, devId, hwptId, viommuId, queue } = guest();
  const errno = (fields: object) => errnoOf(() => queue(fields));
  t.is(errno({ flags: 1 }), EOPNOTSUPP);
  t.is(errno({ type: 0 }), EOPNOTSUPP);
  t.is(errno({ length: 0 }), EINVAL);
  t.is(errno({ flags: 1, length: 0 }), EOPNOTSUPP, 'flags first');
  t.is(errno({ iova: 2n ** 64n - PAGE, length: 2n * PAGE }), EOVERFLOW);
  t.is(errno({ iova: 2n ** 64n - PAGE, length: PAGE, viommuId: 999 }), ENOENT, 'that does not overflow');
  t.is(errno({ viommuId: devId }), ENOENT);
  t.is(errno({ type: 2 }), EOPNOTSUPP, 'no such queue');
  const plain = fd.viommuAlloc({ devId, hwptId, type: 1 }).viommuId;
  t.is(errno({ viommuId: plain }), EOPNOTSUPP, 'a vIOMMU without HW queues');
  t.is(errno({ iova: 0n, length: 2n ** 64n - 1n }), ERANGE, 'pages that cannot be counted');
  t.is(errno({ iova: 0n, length: 2n ** 50n }), ENOMEM, 'pages that cannot be listed');
  t.is(errno({ iova: 0n }), ENOENT, 'not mapped');
  t.is(errno({ iova: RAM + 15n * PAGE, length: 8192 }), ENOENT, 'not all mapped');
  t.is(errno({ index: 2 }), EINVAL, "the driver's");
  t.is(errno({ index: 1 }), EIO, "the driver's");
  t.is(fd.ctx.objectCount, 5);
  t.true(queue() > 0);
  t.is(errno({}), EEXIST);
  t.is(
    errnoOf(() => fd.destroy(viommuId)),
    EBUSY,
  );
});

test('hw queue: pages that are not contiguous are EFAULT', (t) => {
  const { bench, fd, ioasId, queue } = guest();
  const vas = [0, 1].map(() => bench.user.alloc(4096));
  const [low, high] = vas.sort((a, b) => bench.pfnOf(a) - bench.pfnOf(b));
  fd.ioasMap({ ioasId, userVa: high!, length: PAGE, iova: 0x20_0000n });
  fd.ioasMap({ ioasId, userVa: low!, length: PAGE, iova: 0x20_1000n });
  const refs = bench.frameRefs();
  t.is(
    errnoOf(() => queue({ iova: 0x20_0000n, length: 8192 })),
    EFAULT,
  );
  t.is(bench.frameRefs(), refs, 'nothing stays pinned');
});

test('hw queue: two mappings that meet in memory are one queue', (t) => {
  const { bench, fd, ioasId, userVa, queue } = guest();
  fd.ioasMap({ ioasId, userVa, length: PAGE, iova: 0x20_0000n });
  fd.ioasMap({ ioasId, userVa: userVa + PAGE, length: PAGE, iova: 0x20_1000n });
  const id = queue({ iova: 0x20_0800n, length: 0x1000 });
  const { hwQueues } = bench.iommus[0]!.viommus[0]!;
  t.deepEqual(hwQueues!.live[0]!.place, {
    type: 1,
    index: 0,
    basePa: bench.pfnOf(userVa) * 4096 + 0x800,
    iova: 0x20_0800n,
    lengthBytes: 0x1000n,
  });
  fd.destroy(id);
});

test('hw queue: the last is destroyed first, and gives its pages back', (t) => {
  const { bench, fd, ioasId, userVa, vfio, queue, refs } = guest();
  const before = bench.frameRefs();
  const first = queue();
  const second = queue({ index: 1, iova: RAM + PAGE });
  t.is(bench.frameRefs(), before, 'pinned already, by the page table');
  t.is(
    errnoOf(() => fd.destroy(first)),
    EBUSY,
  );
  t.is(
    errnoOf(() => fd.destroy(ioasId)),
    EBUSY,
  );
  fd.destroy(second);
  fd.destroy(first);
  vfio.close();
  fd.close();
  bench.user.free(userVa, 16 * 4096);
  t.is(bench.frameRefs(), refs);
});

test('hw queue: closing the file destroys queues in their order', (t) => {
  const { bench, fd, vfio, userVa, queue, refs } = guest();
  queue();
  queue({ index: 1, iova: RAM + PAGE });
  vfio.close();
  fd.close();
  bench.user.free(userVa, 16 * 4096);
  t.is(bench.frameRefs(), refs);
});

test('viommu, vdevice, veventq, hw queue: the nth allocation fails, and nothing stays', (t) => {
  for (let nth = 1; ; nth++) {
    const { bench, fd, vfio, devId, hwptId, userVa, refs, queue, viommuId } = guest();
    const { failNth } = bench.core.own;
    const objects = fd.ctx.objectCount;
    const before = bench.frameRefs();
    failNth.arm(nth);
    const made: number[] = [];
    const errno = errnoOf(() => {
      made.push(fd.viommuAlloc({ devId, hwptId, type: 2, data: new Uint8Array(16) }).viommuId);
      made.push(fd.vdeviceAlloc({ viommuId, devId, virtId: 5 }).vdeviceId);
      const events = fd.veventqAlloc({ viommuId, type: 1, depth: 4 });
      events.close();
      made.push(events.veventqId);
      made.push(queue());
    });
    const { failedAt } = failNth;
    failNth.arm(0);
    t.is(errno, failedAt === null ? 0 : errnoOfFailure(failedAt), `${nth}: ${failedAt}`);
    // A queue has an access beside it.
    const accesses = made.length === 4 ? 1 : 0;
    t.is(fd.ctx.objectCount, objects + made.length + accesses, `${nth}: ${failedAt}`);
    for (const id of made.reverse()) fd.destroy(id);
    t.is(bench.frameRefs(), before, `${nth}: ${failedAt}`);
    vfio.close();
    fd.close();
    bench.user.free(userVa, 16 * 4096);
    t.is(bench.frameRefs(), refs);
    if (failedAt === null) {
      t.true(nth > 10);
      return;
    }
  }
});

test('vdevice: a tombstone is no object, and its ID is not used again', (t) => {
  const { bench, fd, vfio, devId, viommuId } = guest();
  const { vdeviceId } = fd.vdeviceAlloc({ viommuId, devId, virtId: 5 });
  vfio.close();
  const destroy = (id: number) => errnoOf(() => fd.destroy(id));
  t.is(destroy(vdeviceId), ENOENT);
  t.is(destroy(devId), ENOENT);
  t.is(
    errnoOf(() => fd.hwptAlloc({ devId: 1, ptId: vdeviceId })),
    ENOENT,
  );
  const again = bench.bind(0);
  const next = fd.vdeviceAlloc({ viommuId, devId: again.devId, virtId: 5 });
  t.not(next.vdeviceId, vdeviceId);
  fd.destroy(next.vdeviceId);
  t.is(
    fd.vdeviceAlloc({ viommuId, devId: again.devId, virtId: 5 }).vdeviceId,
    next.vdeviceId,
    'that one is free',
  );
});
