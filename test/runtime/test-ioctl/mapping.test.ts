/** Mappings and dirty bitmaps over the mock IOMMU, whose pages are 2 KiB: every start and end, and what was written. */
import test from 'ava';
import type { Ioas } from '../../../runtime/objects/ioas.js';
import { TestBench } from '../../kit/test-ioctl.js';

const DIRTY = 13;
const TRACK = 2;
const HUGE_PAGES = 1;
const [REPLACE, EINVAL] = [10, 22];
const APERTURE = 0x100_0000n;
const HALF = 2048n;

test('any start and end in steps of 2 KiB: what is behind every half of a page is right, and pins are given back', (t) => {
  const bench = new TestBench();
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  const { hwptId } = bench.mockDomain(ioasId);
  const size = 6n * 4096n;
  const va = bench.user.alloc(Number(size), { chunkLg2: 12 });
  let checked = 0;
  for (let start = 0n; start < size; start += HALF)
    for (let end = start + HALF; end <= size; end += HALF) {
      const length = end - start;
      const { iova } = fd.ioasMap({ ioasId, userVa: va + start, length });
      if (bench.checkMap(hwptId, iova, length, va + start) !== 0) t.fail(`from ${start} to ${end}`);
      if ((iova - start) % HALF !== 0n || iova % 4096n !== start % 4096n) t.fail(`${start} is at ${iova}`);
      t.is(fd.ioasUnmap({ ioasId, iova, length }).length, length);
      checked++;
    }
  t.is(checked, 78);
  t.is(bench.checkRefs(va, size, 0), 0);
});

test('all of them at once, in one domain, then in another that comes later', (t) => {
  const bench = new TestBench();
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  const first = bench.mockDomain(ioasId);
  const size = 4n * 4096n;
  const va = bench.user.alloc(Number(size), { chunkLg2: 12 });
  const maps: [bigint, bigint, bigint][] = [];
  for (let start = 0n; start < size; start += HALF)
    for (let end = start + HALF; end <= size; end += HALF) {
      const { iova } = fd.ioasMap({ ioasId, userVa: va + start, length: end - start });
      maps.push([iova, end - start, va + start]);
    }
  const later = fd.hwptAlloc({ devId: first.idevId, ptId: ioasId }).hwptId;
  for (const [iova, length, at] of maps)
    for (const hwptId of [first.hwptId, later]) t.is(bench.checkMap(hwptId, iova, length, at), 0);
  fd.destroy(later);
  fd.ioasUnmap({ ioasId, iova: 0n, length: 2n ** 64n - 1n });
  t.is(bench.checkRefs(va, size, 0), 0);
});

test('without huge pages the IOAS is of whole pages, over the mock as well', (t) => {
  const bench = new TestBench();
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  fd.setOption(HUGE_PAGES, 0n, ioasId);
  const { hwptId } = bench.mockDomain(ioasId);
  t.is(fd.ioasIovaRanges(ioasId).alignment, 4096n);
  const va = bench.user.alloc(2 ** 21, { contiguous: true });
  fd.ioasMap({ ioasId, userVa: va, length: '2MiB', iova: APERTURE });
  t.is(bench.checkMap(hwptId, APERTURE, 2n ** 21n, va), 0);
  const ioas = fd.ctx.get<Ioas>(ioasId, 0)!;
  t.is(ioas.iopt.cutIova([APERTURE + 0x1f_efffn]), 0);
  t.is(ioas.iopt.cutIova([APERTURE + 0x7ffn]), -EINVAL);
  fd.ctx.put(ioas);
  fd.ioasUnmap({ ioasId, iova: APERTURE, length: 0x1f_f000n });
  t.is(bench.checkMap(hwptId, APERTURE + 0x1f_f000n, 4096n, va + 0x1f_f000n), 0);
  t.is(bench.checkRefs(va, 0x1f_f000n, 0), 0);
  t.is(bench.checkRefs(va + 0x1f_f000n, 4096n, 1), 0);
});

for (const [what, offset, noClear, contiguous] of [
  ['', 0n, false, false],
  ['NO_CLEAR', 0n, true, false],
  ['a bitmap at an odd address', 2049n, false, false],
  ['contiguous memory', 8n, false, true],
] as const)
  test(`every other page written: the bitmap has just those ${what}`, (t) => {
    const bench = new TestBench();
    const { fd, user } = bench;
    const { ioasId } = fd.ioasAlloc();
    // As Linux's own test: or a larger leaf would be dirty as a whole.
    fd.setOption(HUGE_PAGES, 0n, ioasId);
    const { idevId, stdevId } = bench.mockDomain(ioasId);
    const { hwptId } = fd.hwptAlloc({ devId: idevId, ptId: ioasId, flags: TRACK });
    bench.run(REPLACE, stdevId, [[0, 4, hwptId]]);
    const length = 2n ** 20n;
    const bits = Number(length / HALF);
    const va = user.alloc(Number(length), contiguous ? { contiguous: true } : { chunkLg2: 12 });
    fd.ioasMap({ ioasId, userVa: va, length, iova: APERTURE });
    const bitmap = user.alloc(0x2000) + offset;
    user.copyOut(bitmap, new Uint8Array(bits / 8).fill(0x55));
    const write = () =>
      bench.run(DIRTY, hwptId, [
        [8, 8, APERTURE],
        [16, 8, length],
        [24, 8, HALF],
        [32, 8, bitmap],
      ]);
    t.is(write().status, -EINVAL, 'not tracked yet');
    fd.hwptSetDirtyTracking(hwptId, true);
    const { status, u64 } = write();
    t.is(status, 0);
    t.is(u64(40), BigInt(bits / 2));
    const read = () =>
      new Set(fd.hwptGetDirtyBitmap({ hwptId, iova: APERTURE, length, pageSize: HALF, noClear }));
    t.deepEqual(read(), new Set([0x55]));
    t.deepEqual(read(), new Set([noClear ? 0x55 : 0]));
  });
