/** iopt_cut_iova: what VFIO's type 1 needs to unmap a part of what was mapped as one. */
import test from 'ava';
import type { IoPagetable } from '../../../runtime/iova/io-pagetable.js';
import type { Ioas } from '../../../runtime/objects/ioas.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';

const [ENOENT, EBUSY, EINVAL, ENOMEM] = [2, 16, 22, 12];
const HUGE_PAGES = 1;
const OBJ_ANY = 0;

function scene(options: { hugePages?: boolean; attach?: boolean } = {}) {
  const { hugePages = false, attach = true } = options;
  const bench = new CoreBench();
  const { fd, user } = bench;
  const { ioasId } = fd.ioasAlloc();
  if (!hugePages) fd.setOption(HUGE_PAGES, 0n, ioasId);
  const { vfio } = bench.bind();
  if (attach) vfio.attach(ioasId);
  const { iopt } = fd.ctx.get<Ioas>(ioasId, OBJ_ANY)!;
  const unmap = (iova: bigint, length: bigint) => errnoOf(() => fd.ioasUnmap({ ioasId, iova, length }));
  return { bench, fd, user, ioasId, vfio, iopt, unmap };
}

const areasOf = (iopt: IoPagetable) =>
  [...iopt.space.areas].map((area) => [area.firstPage, area.lastPage, area.pagesFirst, area.pagesLast]);

test('cut: the area ends there and another begins; page tables and pins stay, parts are unmapped alone', (t) => {
  const { bench, fd, user, ioasId, iopt, unmap } = scene();
  const userVa = user.alloc(0x8000, { chunkLg2: 12 });
  const idle = bench.frameRefs();
  fd.ioasMap({ ioasId, userVa, length: 0x8000n, iova: 0x1_0000n });
  const domain = bench.iommus[0]!.attached.get(0) as FakeDomain;
  const before = [...domain.entries];
  t.is(unmap(0x1_2000n, 0x3000n), ENOENT);
  t.is(iopt.cutIova([0x1_4fffn, 0x1_1fffn]), 0);
  t.deepEqual(areasOf(iopt), [
    [16, 17, 0, 1],
    [18, 20, 2, 4],
    [21, 23, 5, 7],
  ]);
  t.deepEqual([...domain.entries], before);
  t.is(bench.frameRefs(), idle + 8);
  t.is(unmap(0x1_2000n, 0x3000n), 0);
  t.is(bench.frameRefs(), idle + 5);
  t.deepEqual([...domain.entries.keys()], [16, 17, 21, 22, 23]);
  t.is(unmap(0x1_0000n, 0x8000n), 0);
  t.is(bench.frameRefs(), idle);
});

test('cut: what is behind the parts is what was behind the whole, also for a copy and a new domain', (t) => {
  const { bench, fd, user, ioasId, iopt, vfio } = scene();
  const userVa = user.alloc(0x8000, { chunkLg2: 12 });
  const idle = bench.frameRefs();
  fd.ioasMap({ ioasId, userVa, length: 0x8000n, iova: 0x1_0000n });
  iopt.cutIova([0x1_2fffn]);
  const other = fd.ioasAlloc().ioasId;
  fd.ioasCopy({ dstIoasId: other, srcIoasId: ioasId, srcIova: 0x1_1000n, length: 0x4000n, dstIova: 0n });
  vfio.attach(other);
  const domain = bench.iommus[0]!.attached.get(0) as FakeDomain;
  for (let i = 0; i < 4; i++)
    t.is(domain.lookup(i), bench.pfnOf(userVa + 0x1000n + BigInt(i) * 0x1000n), `page ${i}`);
  vfio.detach();
  t.is(bench.frameRefs(), idle);
});

test('cut: where nothing is, and at the first or last byte of an area, it does nothing', (t) => {
  const { fd, user, ioasId, iopt } = scene();
  fd.ioasMap({ ioasId, userVa: user.alloc(0x2000), length: 0x2000n, iova: 0x1_0000n });
  t.is(iopt.cutIova([0x5000n, 0x1_0000n, 0x1_1fffn]), 0);
  t.is(iopt.space.areas.size, 1);
});

test('cut: EINVAL where a page would be cut, and while large pages may be in a domain', (t) => {
  const { fd, user, ioasId, iopt, vfio } = scene({ hugePages: true });
  fd.ioasMap({ ioasId, userVa: user.alloc(0x2000), length: 0x2000n, iova: 0x1_0000n });
  t.is(iopt.cutIova([0x1_0ffen]), -EINVAL);
  t.is(iopt.cutIova([0x1_0fffn]), -EINVAL, 'it may be mapped with a large page');
  t.is(iopt.space.areas.size, 1);
  vfio.detach();
  t.is(iopt.cutIova([0x1_0fffn]), 0, 'nowhere mapped');
  t.is(iopt.space.areas.size, 2);
});

test('cut: without a device at any byte, and the parts keep their offsets in the page', (t) => {
  const { bench, fd, ioasId, iopt, vfio, user } = scene({ hugePages: true, attach: false });
  const userVa = user.alloc(0x4000, { chunkLg2: 12 });
  fd.ioasMap({ ioasId, userVa: userVa + 0x800n, length: 0x2800n, iova: 0x1_0000n });
  t.is(iopt.cutIova([0x1_07ffn, 0x1_0900n, 0x1_17ffn]), 0);
  t.deepEqual(
    [...iopt.space.areas].map((a) => [
      a.firstPage * 4096 + a.firstOffset,
      a.pagesFirst,
      a.pageOffset,
      a.pagesLast,
    ]),
    [
      [0x1_0000, 0, 0x800, 0],
      [0x1_0800, 1, 0, 1],
      [0x1_0901, 1, 0x101, 1],
      [0x1_1800, 2, 0, 2],
    ],
  );
  t.is(
    errnoOf(() => vfio.attach(ioasId)),
    98,
    'no page table holds that',
  );
  fd.ioasUnmap({ ioasId, iova: 0n, length: (1n << 64n) - 1n });
  t.is(bench.user.refs(bench.pfnOf(userVa)), 1);
});

test('cut: the first area that cannot be cut ends it; the last byte of the address space is no place to cut', (t) => {
  const { fd, ioasId, iopt } = scene({ hugePages: true, attach: false });
  const last = (1n << 64n) - 1n;
  fd.ioasMap({ ioasId, userVa: 0n, length: 0x2000n, iova: last - 0x2000n });
  fd.ioasMap({ ioasId, userVa: 0n, length: 0x2000n, iova: 0x1000n });
  t.is(iopt.cutIova([last, 0x1fffn]), 0);
  t.is(iopt.space.areas.size, 3);
});

test('cut: EBUSY while the area is being unmapped', (t) => {
  let whenGone: (() => void) | undefined;
  const bench = new CoreBench({
    observer: { mapping: () => undefined, unmapped: () => whenGone?.() },
  });
  const { fd, user } = bench;
  const { ioasId } = fd.ioasAlloc();
  fd.setOption(HUGE_PAGES, 0n, ioasId);
  bench.bind().vfio.attach(ioasId);
  const { iopt } = fd.ctx.get<Ioas>(ioasId, OBJ_ANY)!;
  fd.ioasMap({ ioasId, userVa: user.alloc(0x2000), length: 0x2000n, iova: 0x1_0000n });
  let seen = 0;
  whenGone = () => {
    seen = iopt.cutIova([0x1_0fffn]);
  };
  fd.ioasUnmap({ ioasId, iova: 0x1_0000n, length: 0x2000n });
  t.is(seen, -EBUSY);
});

test('cut: ENOMEM leaves the area whole', (t) => {
  const { bench, fd, user, ioasId, iopt } = scene();
  fd.ioasMap({ ioasId, userVa: user.alloc(0x2000), length: 0x2000n, iova: 0x1_0000n });
  for (const nth of [1, 2]) {
    bench.core.own.failNth.arm(nth);
    t.is(iopt.cutIova([0x1_0fffn]), -ENOMEM);
    t.is(iopt.space.areas.size, 1);
  }
  t.is(iopt.cutIova([0x1_0fffn]), 0);
});

test('cut: EINVAL while an access holds pages of the area, EBUSY while an unmap waits for it', (t) => {
  const { fd, user, ioasId, iopt } = scene();
  let seen = 0;
  const access = fd.createAccess({
    needsPinPages: true,
    unmap: () => {
      seen = iopt.cutIova([0x1_0fffn]);
      access.unpinPages(0x1_0000n, 0x1000n);
    },
  });
  access.attach(ioasId);
  fd.ioasMap({ ioasId, userVa: user.alloc(0x2000), length: 0x2000n, iova: 0x1_0000n });
  access.pinPages(0x1_0000n, 0x1000n);
  t.is(iopt.cutIova([0x1_0fffn]), -EINVAL);
  fd.ioasUnmap({ ioasId, iova: 0x1_0000n, length: 0x2000n });
  t.is(seen, -EBUSY);
});
