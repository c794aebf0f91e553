import test from 'ava';
import { IoasAllowIovas, IoasIovaRanges, IoasMap, IoasUnmap } from '../../../uapi/iommufd/ioas.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';

const [EPERM, ENOENT, ENOMEM, EFAULT, EEXIST] = [1, 2, 12, 14, 17];
const [EINVAL, ENOSPC, EOVERFLOW, EMSGSIZE, EOPNOTSUPP, EADDRINUSE] = [22, 28, 75, 90, 95, 98];
const U64_MAX = 0xffff_ffff_ffff_ffffn;
const [MAP, UNMAP, RANGES] = [0x3b85, 0x3b86, 0x3b84];
const [FIXED, WRITE, READ] = [1, 2, 4];

/** One IOAS, without a device. */
function software() {
  const bench = new CoreBench();
  const { ioasId } = bench.fd.ioasAlloc();
  return { ...bench, bench, fd: bench.fd, user: bench.user, ioasId };
}

/** One IOAS with a device attached to it. */
function attached(options: ConstructorParameters<typeof CoreBench>[0] = {}) {
  const bench = new CoreBench(options);
  const { ioasId } = bench.fd.ioasAlloc();
  const { vfio, devId } = bench.bind();
  const { ptId } = vfio.attach(ioasId);
  const domain = bench.iommus[0]!.attached.get(0) as FakeDomain;
  return { bench, fd: bench.fd, user: bench.user, ioasId, vfio, devId, ptId, domain };
}

const map = (fields: Parameters<typeof IoasMap.toBytes>[0]) => IoasMap.toBytes({ size: 40, ...fields });

test('map: flags, address and length are checked in the order of Linux', (t) => {
  const { fd, ioasId, user } = software();
  const userVa = user.alloc(0x4000);
  const base = { ioasId, userVa, length: 0x1000n, flags: FIXED | WRITE | READ, iova: 0x10000n };
  const errno = (change: Partial<typeof base> & { reserved?: number }) =>
    fd.ioctl(MAP, map({ ...base, ...change }));
  t.is(errno({ flags: 8 | READ }), -EOPNOTSUPP);
  t.is(errno({ reserved: 1 }), -EOPNOTSUPP);
  t.is(errno({ flags: 8, ioasId: 99 }), -EOPNOTSUPP);
  t.is(errno({ iova: U64_MAX }), -EOVERFLOW);
  t.is(errno({ length: U64_MAX }), -EOVERFLOW);
  t.is(errno({ flags: FIXED }), -EINVAL, 'neither readable nor writeable');
  t.is(errno({ ioasId: 99 }), -ENOENT);
  t.is(errno({ userVa: U64_MAX }), -EOVERFLOW, 'the user range wraps');
  t.is(errno({ length: 0n }), -EINVAL);
  t.is(errno({ iova: U64_MAX - 0x800n }), -EOVERFLOW, 'the IOVA range wraps');
  t.is(errno({}), 0);
  t.is(errno({}), -EEXIST);
  t.is(errno({ iova: 0xf001n }), -EEXIST, 'the last byte overlaps');
  t.is(errno({ iova: 0xf000n }), 0, 'right before it');
});

test('map: a length whose pages cannot be counted in 64 bits is EOVERFLOW, at the IOVA or before', (t) => {
  const { fd, ioasId } = software();
  const errno = (userVa: bigint, length: bigint) =>
    fd.ioctl(MAP, map({ ioasId, userVa, length, flags: FIXED | READ, iova: 0n }));
  const longest = U64_MAX - 0x1000n;
  t.is(errno(0n, longest + 1n), -EINVAL);
  t.is(errno(0xfffn, longest), -EOVERFLOW, 'with the bytes before it in its first page: no page at all');
  t.is(errno(2n, longest), -EOVERFLOW);
  t.is(errno(1n, longest), 0);
  t.is(errno(1n, longest), -EEXIST);
});

test('map: without a device any byte may be mapped, and nothing is pinned or even looked at', (t) => {
  const { fd, ioasId, bench } = software();
  const before = bench.frameRefs();
  const { iova } = fd.ioasMap({ ioasId, userVa: 0x1234_5678n, length: 1n, iova: 0x77n });
  t.is(iova, 0x77n);
  t.is(
    errnoOf(() => fd.ioasMap({ ioasId, userVa: 0n, length: 1n, iova: 0x77n })),
    EEXIST,
  );
  t.is(
    errnoOf(() => fd.ioasMap({ ioasId, userVa: 5n, length: 1n, iova: 0x78n })),
    0,
  );
  t.is(bench.frameRefs(), before);
});

test('map: with a device, alignment is a page, user memory must exist, and failure changes nothing', (t) => {
  const { fd, ioasId, user, bench, domain } = attached();
  const userVa = user.alloc(0x4000);
  const before = bench.frameRefs();
  const errno = (iova: bigint, va: bigint, length: bigint) =>
    errnoOf(() => fd.ioasMap({ ioasId, userVa: va, length, iova }));
  t.is(errno(0x1800n, userVa, 0x1000n), EINVAL);
  t.is(errno(0x1000n, userVa, 0x800n), EINVAL);
  t.is(errno(0x1000n, userVa + 0x800n, 0x1000n), EINVAL, 'the offset in the page must fit too');
  t.is(errno(0x1000n, userVa, 0x5000n), EFAULT, 'one page too many');
  t.is(errno(1n << 48n, userVa, 0x1000n), EINVAL, 'outside the aperture');
  t.is(domain.entries.size, 0);
  t.is(bench.frameRefs(), before);
  t.is(errno(0x1000n, userVa, 0x4000n), 0);
  t.is(domain.lookup(1), bench.pfnOf(userVa));
  t.is(domain.lookup(4), bench.pfnOf(userVa + 0x3000n));
  t.is(bench.frameRefs(), before + 4);
});

test('map: permissions reach the page table, and contiguous memory arrives as one run', (t) => {
  const { fd, ioasId, user, domain } = attached();
  const userVa = user.alloc(2 ** 21, { contiguous: true });
  fd.ioasMap({ ioasId, userVa, length: '2MiB', iova: 0x20_0000n, writeable: false });
  t.deepEqual(domain.runs, [512]);
  t.is(domain.entries.get(0x200)!.prot, 1);
  fd.ioasMap({ ioasId, userVa, length: '4KiB', iova: 0n, readable: false });
  t.is(domain.entries.get(0)!.prot, 2);
});

test('map: an aborted map leaves the caller its struct', (t) => {
  const { fd, ioasId } = attached();
  const bytes = map({ ioasId, userVa: 0n, length: 0x1000n, flags: READ, iova: 0x5555n });
  const before = bytes.slice();
  t.is(fd.ioctl(MAP, bytes), -EFAULT);
  t.deepEqual(bytes, before);
});

test('map: an automatic IOVA is never 0, first fit, and keeps offset and alignment of the user address', (t) => {
  const { fd, ioasId } = software();
  const auto = (userVa: bigint, length: bigint) => fd.ioasMap({ ioasId, userVa, length }).iova;
  t.is(auto(0x1000_0000n, 0x1000n), 0x1000n);
  t.is(auto(0x1000_0000n, 0x1000n), 0x2000n);
  t.is(auto(0x1000_0000n, 0x20_0000n), 0x20_0000n, 'a 2 MiB block is aligned to 2 MiB');
  t.is(auto(0x1000_1000n, 0x1f_0000n), 0x3000n, 'unless the user address is not');
  t.is(auto(0x1000_0123n, 0x10n), 0x1f_3123n, 'the offset in the page is kept');
  t.is(auto(0x1000_0000n, 0x1000n), 0x1f_4000n, 'above what is in use');
  fd.ioasUnmap({ ioasId, iova: 0x2000n, length: 0x1000n });
  t.is(auto(0x1000_0000n, 0x1000n), 0x2000n, 'the hole is found again');
  t.is(auto(0x4000_0000n, 0x4000_0000n), 0x40_0000n, 'huge blocks need only 2 MiB');
});

test('map: automatic IOVAs stay inside the allow list, and ENOSPC when it is full', (t) => {
  const { fd, ioasId } = software();
  fd.ioasAllowIovas(ioasId, [
    { start: 0x10_0000n, last: 0x10_1fffn },
    { start: 0x30_0000n, last: 0x30_0fffn },
  ]);
  const auto = () => fd.ioasMap({ ioasId, userVa: 0x1000_0000n, length: 0x1000n }).iova;
  t.deepEqual([auto(), auto(), auto()], [0x10_0000n, 0x10_1000n, 0x30_0000n]);
  t.is(errnoOf(auto), ENOSPC);
  fd.ioasUnmap({ ioasId, iova: 0x10_1000n, length: 0x1000n });
  t.is(auto(), 0x10_1000n);
  t.is(fd.ioasMap({ ioasId, userVa: 0n, length: 0x1000n, iova: 0x50_0000n }).iova, 0x50_0000n);
});

test('map: automatic IOVAs avoid reserved regions and the end of the aperture', (t) => {
  const { fd, ioasId, user } = attached({
    iommus: [{ aperture: { firstUnit: 0, lastUnit: 15 }, reserved: [{ firstPage: 2, lastPage: 12 }] }],
  });
  const userVa = user.alloc(0x1000);
  const auto = () => fd.ioasMap({ ioasId, userVa, length: 0x1000n }).iova;
  t.deepEqual([auto(), auto(), auto(), auto()], [0x1000n, 0xd000n, 0xe000n, 0xf000n]);
  t.is(errnoOf(auto), ENOSPC);
  t.is(
    errnoOf(() => fd.ioasMap({ ioasId, userVa, length: 0x1000n, iova: 0x2000n })),
    EINVAL,
  );
});

test('unmap: whole areas only, several at once, and the bytes unmapped come back', (t) => {
  const { fd, ioasId, user, domain, bench } = attached();
  const userVa = user.alloc(0x4000);
  const before = bench.frameRefs();
  for (const iova of [0x1000n, 0x3000n]) fd.ioasMap({ ioasId, userVa, length: 0x2000n, iova });
  const errno = (iova: bigint, length: bigint) => errnoOf(() => fd.ioasUnmap({ ioasId, iova, length }));
  t.is(errno(0x1000n, 0n), EINVAL);
  t.is(errno(0x1000n, 0x1000n), ENOENT, 'cuts the first');
  t.is(errno(0x2000n, 0x3000n), ENOENT, 'cuts it at the front');
  t.is(errno(0x1000n, 0x3000n), ENOENT, 'the first goes, the second would be cut');
  t.is(domain.entries.size, 2);
  t.is(errno(0x1000n, 0x2000n), ENOENT, 'nothing there any more');
  t.is(errno(U64_MAX - 0xfffn, 0x2000n), EOVERFLOW);
  t.is(errno(0x1000n, U64_MAX), EOVERFLOW);
  t.is(fd.ioasUnmap({ ioasId, iova: 0x1000n, length: 0x10000n }).length, 0x2000n);
  t.is(bench.frameRefs(), before);
  t.is(
    errnoOf(() => fd.ioasUnmap({ ioasId: 77, iova: 0n, length: 1n })),
    ENOENT,
  );
});

test('unmap: (0, U64_MAX) is everything and succeeds on nothing; failure leaves length alone', (t) => {
  const { fd, ioasId } = software();
  t.is(fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX }).length, 0n);
  fd.ioasMap({ ioasId, userVa: 0n, length: 3n, iova: 0n });
  fd.ioasMap({ ioasId, userVa: 0n, length: 4n, iova: U64_MAX - 4n });
  t.is(fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX }).length, 7n);
  const bytes = IoasUnmap.toBytes({ size: 24, ioasId, iova: 0x1000n, length: 0x1000n });
  t.is(fd.ioctl(UNMAP, bytes), -ENOENT);
  t.is(IoasUnmap.getField(bytes, 'length'), 0x1000n);
});

test('unmap: frames are released only after the SYNC, which no early free can hide', (t) => {
  for (const earlyFree of [false, true]) {
    const stale: boolean[] = [];
    const seen: string[] = [];
    let domain: FakeDomain | undefined;
    const scene = attached({
      bugs: { earlyFree },
      observer: {
        mapping: (ioas, page, _pfn, pages) => seen.push(`map ${ioas} ${page} ${pages}`),
        unmapped: (ioas, page, pfn, pages, notes) => {
          stale.push(domain!.stale.has(pfn));
          seen.push(`unmap ${ioas} ${page} ${pages} notes ${notes.length}`);
        },
      },
    });
    domain = scene.domain;
    const userVa = scene.user.alloc(0x2000, { contiguous: true });
    scene.fd.ioasMap({ ioasId: scene.ioasId, userVa, length: 0x2000n, iova: 0x5000n });
    scene.fd.ioasUnmap({ ioasId: scene.ioasId, iova: 0x5000n, length: 0x2000n });
    t.deepEqual(stale, [earlyFree]);
    t.deepEqual(seen, ['map 1 5 2', `unmap 1 5 2 notes ${earlyFree ? 0 : 1}`]);
  }
});

test('unmap: leaves alone what is mapped behind its cursor while it waits for a SYNC', (t) => {
  let whenFirstGoes: (() => void) | undefined;
  const scene = attached({
    observer: {
      mapping: () => undefined,
      unmapped: (_ioas, page) => {
        if (page === 1) whenFirstGoes?.();
      },
    },
  });
  const { fd, ioasId, user, domain } = scene;
  const userVa = user.alloc(0x1000);
  for (const iova of [0x1000n, 0x5000n]) fd.ioasMap({ ioasId, userVa, length: 0x1000n, iova });
  whenFirstGoes = () => {
    // The range still being unmapped is taken; what lies before it is free again only for newcomers.
    t.is(
      errnoOf(() => fd.ioasMap({ ioasId, userVa, length: 0x1000n, iova: 0x1000n })),
      EEXIST,
    );
    fd.ioasMap({ ioasId, userVa, length: 0x1000n, iova: 0n });
  };
  t.is(fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX }).length, 0x2000n);
  t.deepEqual([...domain.entries.keys()], [0]);
});

test('copy: shares the pins; ranges, holes and write access are checked', (t) => {
  const { fd, ioasId, user, bench } = attached({
    iommus: [{}, {}],
    devices: [{ iommu: 0 }, { iommu: 1 }],
  });
  const other = fd.ioasAlloc().ioasId;
  bench.bind(1).vfio.attach(other);
  const second = bench.iommus[1]!.attached.get(1) as FakeDomain;
  const userVa = user.alloc(0x4000);
  const before = bench.frameRefs();
  fd.ioasMap({ ioasId, userVa, length: 0x2000n, iova: 0x1000n });
  fd.ioasMap({ ioasId, userVa: userVa + 0x2000n, length: 0x2000n, iova: 0x3000n, writeable: false });
  t.is(bench.frameRefs(), before + 4);
  const copy = (srcIova: bigint, length: bigint, options = {}) =>
    errnoOf(() => fd.ioasCopy({ dstIoasId: other, srcIoasId: ioasId, srcIova, length, ...options }));
  t.is(copy(0x1000n, 0x5000n, { writeable: false }), ENOENT, 'the end is not mapped');
  t.is(copy(0x0n, 0x2000n), ENOENT, 'the start is not mapped');
  t.is(copy(0x1000n, 0x4000n), EPERM, 'part of it is read-only');
  t.is(copy(0x1000n, 0n), EINVAL);
  t.is(copy(0x1000n, U64_MAX), EOVERFLOW);
  t.is(copy(0x1000n, 0x1000n, { srcIoasId: 99 }), ENOENT);
  t.is(copy(0x1000n, 0x1000n, { dstIoasId: 99 }), ENOENT);
  t.is(copy(0x1000n, 0x1000n, { readable: false, writeable: false }), EINVAL);
  t.is(second.entries.size, 0);
  t.is(copy(0x2000n, 0x2000n, { dstIova: 0x7000n, writeable: false }), 0);
  t.is(copy(0x2000n, 0x2000n, { dstIova: 0x8000n, writeable: false }), EEXIST);
  t.is(second.lookup(7), bench.pfnOf(userVa + 0x1000n));
  t.is(second.lookup(8), bench.pfnOf(userVa + 0x2000n));
  t.is(bench.frameRefs(), before + 4, 'not one pin more');
  fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX });
  t.is(bench.frameRefs(), before + 2, 'the copied pages stay pinned');
  t.is(fd.ioasUnmap({ ioasId: other, iova: 0x7000n, length: 0x2000n }).length, 0x2000n, 'two areas');
  t.is(bench.frameRefs(), before);
});

test('copy: from an unaligned offset keeps the byte offset in the page', (t) => {
  const { fd, ioasId } = software();
  const other = fd.ioasAlloc().ioasId;
  fd.ioasMap({ ioasId, userVa: 0x1000_0f00n, length: 0x300n, iova: 0x50n });
  const { iova } = fd.ioasCopy({ dstIoasId: other, srcIoasId: ioasId, srcIova: 0x160n, length: 0x10n });
  t.is(iova & 0xfffn, 0x10n);
});

test('user memory that is freed while mapped stays pinned until the unmap', (t) => {
  const { fd, ioasId, user, bench } = attached();
  const idle = bench.frameRefs();
  const userVa = user.alloc(0x2000);
  fd.ioasMap({ ioasId, userVa, length: 0x2000n, iova: 0x1000n });
  user.free(userVa, 0x2000);
  t.is(bench.frameRefs(), idle + 2);
  fd.ioasUnmap({ ioasId, iova: 0x1000n, length: 0x2000n });
  t.is(bench.frameRefs(), idle);
});

test('iova ranges: everything at first; then aperture without reserved regions, and page alignment', (t) => {
  const { fd, ioasId } = software();
  t.deepEqual(fd.ioasIovaRanges(ioasId), { ranges: [{ start: 0n, last: U64_MAX }], alignment: 1n });
  const device = attached({
    iommus: [{ aperture: { firstUnit: 1, lastUnit: 0xff }, reserved: [{ firstPage: 0x10, lastPage: 0x1f }] }],
  });
  t.deepEqual(device.fd.ioasIovaRanges(device.ioasId), {
    ranges: [
      { start: 0x1000n, last: 0xffffn },
      { start: 0x20000n, last: 0xfffffn },
    ],
    alignment: 4096n,
  });
  device.vfio.detach();
  t.deepEqual(device.fd.ioasIovaRanges(device.ioasId), {
    ranges: [{ start: 0n, last: U64_MAX }],
    alignment: 1n,
  });
});

test('iova ranges: a short array is EMSGSIZE with the true count, a bad one EFAULT without outputs', (t) => {
  const { fd, ioasId, user } = attached({ iommus: [{ reserved: [{ firstPage: 2, lastPage: 3 }] }] });
  const allowedIovas = user.alloc(0x1000);
  const ask = (fields: object) => {
    const bytes = IoasIovaRanges.toBytes({ size: 32, ioasId, allowedIovas, ...fields });
    return { ret: fd.ioctl(RANGES, bytes), ...IoasIovaRanges.decode(bytes) };
  };
  t.like(ask({ numIovas: 1 }), { ret: -EMSGSIZE, numIovas: 2, outIovaAlignment: 4096n });
  t.like(ask({ numIovas: 0, allowedIovas: 0n }), { ret: -EMSGSIZE, numIovas: 2 });
  t.like(ask({ numIovas: 2 }), { ret: 0, numIovas: 2 });
  t.like(ask({ numIovas: 2, allowedIovas: 0n }), { ret: -EFAULT, numIovas: 2, outIovaAlignment: 0n });
  t.like(ask({ reserved: 1 }), { ret: -EOPNOTSUPP });
  t.like(ask({ ioasId: 50 }), { ret: -ENOENT });
});

test('iova ranges: an array that ends half way has what fits, and the struct is as it was', (t) => {
  const { fd, ioasId, user } = attached({ iommus: [{ reserved: [{ firstPage: 2, lastPage: 12 }] }] });
  const all = fd.ioasIovaRanges(ioasId).ranges;
  t.true(all.length > 1);
  const page = user.alloc(0x1000);
  const at = page + 0x1000n - 16n;
  const bytes = IoasIovaRanges.toBytes({ size: 32, ioasId, numIovas: all.length, allowedIovas: at });
  const before = [...bytes];
  t.is(fd.ioctl(RANGES, bytes), -EFAULT);
  t.deepEqual([...bytes], before);
  const first = new Uint8Array(16);
  user.copyIn(at, first);
  const view = new DataView(first.buffer);
  t.deepEqual({ start: view.getBigUint64(0, true), last: view.getBigUint64(8, true) }, all[0]);
});

test('allow iovas: ranges are judged one by one as they are read, and none at all is a list too', (t) => {
  const { fd, ioasId, user } = software();
  const page = user.alloc(0x1000);
  const allow = (numIovas: number, at: bigint) =>
    fd.ioctl(0x3b82, IoasAllowIovas.toBytes({ size: 24, ioasId, numIovas, allowedIovas: at }));
  const put = (at: bigint, start: bigint, last: bigint) =>
    user.copyOut(at, new Uint8Array(BigUint64Array.of(start, last).buffer));
  const end = page + 0x1000n - 16n;
  put(end, 0x2000n, 0x2000n);
  t.is(allow(2, end), -EINVAL, 'the first is wrong before the second cannot be read');
  put(end, 0x2000n, 0x2001n);
  t.is(allow(2, end), -EFAULT);
  put(end - 16n, 0n, 0x2000n);
  t.is(allow(3, end - 16n), -EINVAL, 'they overlap by a byte');
  put(end - 16n, 0n, 0x1fffn);
  t.is(allow(2, end - 16n), 0, 'neighbours');
  t.is(fd.ioasMap({ ioasId, userVa: page, length: 0x1000n }).iova, 0x1000n);
  t.is(allow(0, 0n), 0, 'an empty list is not read, and allows everything again');
  t.is(fd.ioasMap({ ioasId, userVa: page, length: 0x1000n }).iova, 0x2000n);
});

test('allow iovas: bad lists change nothing; what is allowed cannot become reserved', (t) => {
  const bench = new CoreBench({ iommus: [{ reserved: [{ firstPage: 0x10, lastPage: 0x10 }] }] });
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  const allow = (...ranges: [bigint, bigint][]) =>
    errnoOf(() =>
      fd.ioasAllowIovas(
        ioasId,
        ranges.map(([start, last]) => ({ start, last })),
      ),
    );
  t.is(allow([5n, 5n]), EINVAL);
  t.is(allow([6n, 5n]), EINVAL);
  t.is(allow([0n, 10n], [10n, 20n]), EINVAL);
  t.is(allow([0x10_fffn, 0x20_000n]), 0);
  const { vfio } = bench.bind();
  t.is(
    errnoOf(() => vfio.attach(ioasId)),
    EADDRINUSE,
    'the device would reserve an allowed byte',
  );
  t.is(allow(), 0);
  vfio.attach(ioasId);
  t.is(allow([0x10_fffn, 0x20_000n]), EADDRINUSE);
  t.is(allow([0x11_000n, 0x20_000n]), 0);
  t.is(
    errnoOf(() => fd.ioasAllowIovas(99, [])),
    ENOENT,
  );
});

test('allow iovas: more ranges than a process could afford are ENOMEM, unreadable ones EFAULT', (t) => {
  const { fd, ioasId, user } = software();
  const array = user.alloc(2 ** 20 + 4096);
  const bytes = new Uint8Array(2 ** 20 + 16);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i <= 65536; i++) {
    view.setBigUint64(i * 16, BigInt(i) * 16n, true);
    view.setBigUint64(i * 16 + 8, BigInt(i) * 16n + 1n, true);
  }
  user.copyOut(array, bytes);
  const ioctl = (allowedIovas: bigint, numIovas: number) => {
    const struct = new Uint8Array(24);
    const fields = new DataView(struct.buffer);
    fields.setUint32(0, 24, true);
    fields.setUint32(4, ioasId, true);
    fields.setUint32(8, numIovas, true);
    fields.setBigUint64(16, allowedIovas, true);
    return fd.ioctl(0x3b82, struct);
  };
  t.is(ioctl(array, 65536), 0);
  t.is(ioctl(array, 0xffff_ffff), -ENOMEM);
  t.is(ioctl(0n, 1), -EFAULT);
});

test('destroy: an IOAS unmaps what is in it; one with a page table is EBUSY', (t) => {
  const { fd, ioasId, user, vfio, bench } = attached();
  const userVa = user.alloc(0x1000);
  const before = bench.frameRefs();
  fd.ioasMap({ ioasId, userVa, length: 0x1000n });
  t.is(
    errnoOf(() => fd.destroy(ioasId)),
    16,
  );
  vfio.detach();
  t.is(bench.frameRefs(), before, 'the last page table unpins');
  fd.destroy(ioasId);
  t.is(
    errnoOf(() => fd.destroy(ioasId)),
    ENOENT,
  );
});

test('phantom memory maps and unmaps by the terabyte', (t) => {
  const { fd, ioasId } = software();
  const userVa = 1n << 40n;
  const { iova } = fd.ioasMap({ ioasId, userVa, length: '8TiB', iova: 1n << 43n });
  t.is(fd.ioasUnmap({ ioasId, iova, length: '8TiB' }).length, 8n << 40n);
});
