import test from 'ava';
import { Option } from '../../../uapi/iommufd/option.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';

const [ENOENT, EINVAL, EOPNOTSUPP, EADDRINUSE] = [2, 22, 95, 98];
const OPTION = 0x3b87;
const HUGE_PAGES = 1;
const [SET, GET] = [0, 1];

function scene() {
  const bench = new CoreBench();
  const { ioasId } = bench.fd.ioasAlloc();
  return { bench, fd: bench.fd, user: bench.user, ioasId };
}

test('option: reserved, unknown options and operations are EOPNOTSUPP, another object ENOENT', (t) => {
  const { fd, ioasId, bench } = scene();
  const { devId } = bench.bind();
  const ask = (fields: object) =>
    fd.ioctl(
      OPTION,
      Option.toBytes({ size: 24, optionId: HUGE_PAGES, op: GET, objectId: ioasId, ...fields }),
    );
  t.is(ask({}), 0);
  t.is(ask({ reserved: 1 }), -EOPNOTSUPP);
  t.is(ask({ optionId: 2 }), -EOPNOTSUPP);
  t.is(ask({ op: 2 }), -EOPNOTSUPP);
  t.is(ask({ objectId: 99 }), -ENOENT);
  t.is(ask({ objectId: 0 }), -ENOENT);
  t.is(ask({ objectId: devId }), -ENOENT);
  t.is(ask({ objectId: 99, op: 2 }), -ENOENT, 'the object comes first');
});

test('huge pages: on by default, 0 and 1 are values, others EINVAL', (t) => {
  const { fd, ioasId } = scene();
  t.is(fd.getOption(HUGE_PAGES, ioasId), 1n);
  t.is(fd.ioasIovaRanges(ioasId).alignment, 1n);
  const errno = (value: bigint) => errnoOf(() => fd.setOption(HUGE_PAGES, value, ioasId));
  t.is(errno(2n), EINVAL);
  t.is(errno(1n << 32n), EINVAL);
  t.is(errno(0n), 0);
  t.is(fd.getOption(HUGE_PAGES, ioasId), 0n);
  t.is(fd.ioasIovaRanges(ioasId).alignment, 4096n, 'off: whole pages');
  t.is(errno(0n), 0, 'twice');
  t.is(errno(1n), 0);
  t.is(fd.ioasIovaRanges(ioasId).alignment, 1n);
});

test('huge pages: SET leaves the value as it was given, GET writes it', (t) => {
  const { fd, ioasId } = scene();
  const bytes = Option.toBytes({ size: 24, optionId: HUGE_PAGES, op: SET, objectId: ioasId, val64: 0n });
  t.is(fd.ioctl(OPTION, bytes), 0);
  t.is(Option.getField(bytes, 'val64'), 0n);
  const ask = Option.toBytes({ size: 24, optionId: HUGE_PAGES, op: GET, objectId: ioasId, val64: 7n });
  t.is(fd.ioctl(OPTION, ask), 0);
  t.is(Option.getField(ask, 'val64'), 0n);
});

test('huge pages: EADDRINUSE when an area is not whole pages, EINVAL once something is in a domain', (t) => {
  const { fd, ioasId, user, bench } = scene();
  const off = () => errnoOf(() => fd.setOption(HUGE_PAGES, 0n, ioasId));
  const userVa = user.alloc(0x2000);
  fd.ioasMap({ ioasId, userVa, length: 0x800n, iova: 0x1000n });
  t.is(off(), EADDRINUSE);
  t.is(fd.getOption(HUGE_PAGES, ioasId), 1n, 'nothing changed');
  fd.ioasUnmap({ ioasId, iova: 0x1000n, length: 0x800n });
  fd.ioasMap({ ioasId, userVa: userVa + 0x800n, length: 0x1000n, iova: 0x1000n });
  t.is(off(), EADDRINUSE, 'the offset in the page counts');
  fd.ioasUnmap({ ioasId, iova: 0x1000n, length: 0x1000n });
  const { vfio } = bench.bind();
  vfio.attach(ioasId);
  fd.ioasMap({ ioasId, userVa, length: 0x1000n, iova: 0x1000n });
  t.is(off(), EINVAL);
  vfio.detach();
  t.is(off(), 0, 'mapped, but in no domain');
  vfio.attach(ioasId);
  t.is(off(), 0, 'off already');
  t.is(
    errnoOf(() => fd.setOption(HUGE_PAGES, 1n, ioasId)),
    0,
    'on again whatever is mapped',
  );
});

test('huge pages: contiguous pages reach the domain as one run, without them one by one', (t) => {
  const { fd, ioasId, user, bench } = scene();
  const userVa = user.alloc(2 ** 21, { contiguous: true });
  const { vfio } = bench.bind();
  vfio.attach(ioasId);
  const domain = bench.iommus[0]!.attached.get(0) as FakeDomain;
  fd.ioasMap({ ioasId, userVa, length: 0x8000n, iova: 0x10_0000n });
  t.deepEqual(domain.runs, [8]);
  fd.ioasUnmap({ ioasId, iova: 0x10_0000n, length: 0x8000n });
  fd.setOption(HUGE_PAGES, 0n, ioasId);
  domain.runs.length = 0;
  fd.ioasMap({ ioasId, userVa, length: 0x8000n, iova: 0x10_0000n });
  t.deepEqual(domain.runs, new Array(8).fill(1));
  for (let i = 0; i < 8; i++) t.is(domain.lookup(0x100 + i), bench.pfnOf(userVa) + i);
});

test('huge pages: pages that two mappings pinned, and that are neighbours, reach a new domain as one run', (t) => {
  const { fd, ioasId, user, bench } = scene();
  const userVa = user.alloc(2 ** 21, { contiguous: true });
  bench.bind().vfio.attach(ioasId);
  fd.ioasMap({ ioasId, userVa, length: 0x8000n, iova: 0x10_0000n });
  const other = fd.ioasAlloc().ioasId;
  // Pins of their own for the middle: the pages of the first mapping are in three runs now.
  fd.ioasCopy({ dstIoasId: other, srcIoasId: ioasId, srcIova: 0x10_2000n, length: 0x2000n, dstIova: 0n });
  fd.ioasCopy({
    dstIoasId: other,
    srcIoasId: ioasId,
    srcIova: 0x10_0000n,
    length: 0x8000n,
    dstIova: 0x8000n,
  });
  const second = bench.iommus[0]!.attached.get(0) as FakeDomain;
  second.runs.length = 0;
  const third = fd.ioasAlloc().ioasId;
  fd.ioasCopy({ dstIoasId: third, srcIoasId: ioasId, srcIova: 0x10_1000n, length: 0x6000n, dstIova: 0n });
  fd.ioasCopy({ dstIoasId: ioasId, srcIoasId: third, srcIova: 0n, length: 0x6000n, dstIova: 0x20_0000n });
  t.deepEqual(second.runs, [6]);
});

test('huge pages off: a page that cannot be mapped takes those before it along', (t) => {
  const { fd, ioasId, user, bench } = scene();
  fd.setOption(HUGE_PAGES, 0n, ioasId);
  const userVa = user.alloc(2 ** 21, { contiguous: true });
  bench.bind().vfio.attach(ioasId);
  const domain = bench.iommus[0]!.attached.get(0) as FakeDomain;
  const before = bench.frameRefs();
  for (let nth = 1; nth <= 4; nth++) {
    bench.failures.arm(nth);
    t.is(
      errnoOf(() => fd.ioasMap({ ioasId, userVa, length: 0x4000n, iova: 0x1000n })),
      12,
    );
    t.is(domain.entries.size, 0);
    t.is(domain.stale.size, 0, 'and what was mapped is synced');
    t.is(bench.frameRefs(), before);
  }
});
