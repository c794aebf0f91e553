import test from 'ava';
import { errnoOf } from '../../kit/core-bench.js';
import { TestBench } from '../../kit/test-ioctl.js';

const [EBADF, ENOMEM, ENODEV, EINVAL, EOPNOTSUPP] = [9, 12, 19, 22, 95];
const [GET, REVOKE] = [22, 23];
const PAGE = 4096;

function bench() {
  const made = new TestBench();
  const get = (length: number) => made.run(GET, 0, [[0, 4, length]]).status;
  const revoke = (fd: number, revoked: number) =>
    made.run(REVOKE, 0, [
      [0, 4, fd >>> 0],
      [4, 4, revoked],
    ]).status;
  return { bench: made, get, revoke };
}

test('DMABUF_GET returns a descriptor of whole pages, at most 2 MiB', (t) => {
  const { bench: b, get } = bench();
  const before = b.frames.freePages();
  const fd = get(PAGE + 1);
  t.true(fd > 2);
  t.is(b.frames.freePages(), before - 2);
  const { ioasId } = b.fd.ioasAlloc();
  t.is(
    errnoOf(() => b.fd.ioasMapFile({ ioasId, fd, start: 0n, length: 3 * PAGE })),
    EINVAL,
  );
  b.fd.ioasMapFile({ ioasId, fd, start: 0n, length: 2 * PAGE });
  b.core.own.files.close(fd);
  t.is(b.frames.freePages(), before - 2, 'a mapping holds it');
  b.fd.ioasUnmap({ ioasId, iova: 0n, length: 2n ** 64n - 1n });
  t.is(b.frames.freePages(), before);
  t.is(get(0), -EINVAL);
  t.is(get(512 * PAGE + 1), -EINVAL);
  t.is(get(0xffff_ffff), -EINVAL);
  t.true(get(512 * PAGE) > 2 || before < 512);
});

test('DMABUF_REVOKE takes the memory out of page tables, and gives it back only to who maps anew', (t) => {
  const { bench: b, get, revoke } = bench();
  const { ioasId } = b.fd.ioasAlloc();
  const { hwptId } = b.mockDomain(ioasId);
  const fd = get(4 * PAGE);
  const iova = 0x200_0000n;
  const map = (at: bigint) =>
    errnoOf(() => b.fd.ioasMapFile({ ioasId, fd, start: 0n, length: 4 * PAGE, iova: at }));
  t.is(map(iova), 0);
  const hwpt = b.fd.ctx.get(hwptId, 0) as unknown as { domain: { lookup(unit: number): number } };
  const lookup = (at: bigint) => hwpt.domain.lookup(Number(at >> 11n));
  const first = lookup(iova);
  t.true(first > 0);
  t.is(revoke(fd, 1), 0);
  t.is(lookup(iova), -1);
  t.is(map(iova * 2n), ENODEV);
  t.is(revoke(fd, 0), 0);
  t.is(lookup(iova), -1, 'what was revoked stays so');
  t.is(map(iova * 2n), 0);
  t.is(lookup(iova * 2n), first);
  b.fd.ctx.put(hwpt as never);
});

test('DMABUF_REVOKE wants a dma-buf of the test ioctl', (t) => {
  const { bench: b, revoke } = bench();
  t.is(revoke(99, 1), -EBADF);
  t.is(revoke(-1, 1), -EBADF);
  t.is(revoke(b.fd.fd, 1), -EINVAL);
  t.is(revoke(b.core.dmabuf(PAGE).fd, 1), -EOPNOTSUPP);
});

test('a dma-buf that cannot be made leaves no memory behind', (t) => {
  const { bench: b, get } = bench();
  const before = b.frames.freePages();
  for (let nth = 1; ; nth++) {
    b.core.own.failNth.arm(nth);
    const fd = get(PAGE);
    const fired = b.core.own.failNth.failedAt !== null;
    b.core.own.failNth.arm(0);
    if (!fired) {
      t.true(nth > 3);
      b.core.own.files.close(fd);
      break;
    }
    t.is(fd, -ENOMEM);
    t.is(b.frames.freePages(), before);
  }
  t.is(b.frames.freePages(), before);
});
