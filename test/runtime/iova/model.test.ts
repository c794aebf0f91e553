import test from 'ava';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';
import { Random, SEED } from '../../kit/random.js';

const [ENOENT, EINVAL, EEXIST, EADDRINUSE, ENOSPC, EFAULT] = [2, 22, 17, 98, 28, 14];
const PAGE = 0x1000n;
/** The pages that the test plays on; small, so that operations meet. */
const PAGES = 64;
const USER_PAGES = 48;

interface ModelArea {
  readonly first: number;
  readonly pages: number;
  /** User page behind the first. */
  readonly user: number;
}

/** An IOAS as a plain list of areas, written from the man page rather than from the code under test. */
class Model {
  areas: ModelArea[] = [];
  reserved: [number, number][] = [];

  covering(page: number): ModelArea | undefined {
    return this.areas.find((a) => page >= a.first && page < a.first + a.pages);
  }

  isReserved(page: number): boolean {
    return this.reserved.some(([first, last]) => page >= first && page <= last);
  }

  canMap(first: number, pages: number): number {
    const range = Array.from({ length: pages }, (_, i) => first + i);
    if (range.some((page) => this.isReserved(page))) return EINVAL;
    return range.some((page) => this.covering(page) !== undefined) ? EEXIST : 0;
  }

  /** The lowest place from page 1 on, aligned as the user address is. */
  autoPlace(pages: number, user: number): number {
    let align = 1;
    while (align < pages) align *= 2;
    while (user !== 0 && user % align !== 0) align /= 2;
    for (let first = align; first + pages <= 2 ** 20; first += align)
      if (this.canMap(first, pages) === 0) return first;
    return -1;
  }

  /** @returns errno, or 0 and how many pages went; the areas before a cut one go all the same */
  unmap(first: number, pages: number): { errno: number; gone: number } {
    let gone = 0;
    for (const area of [...this.areas].sort((a, b) => a.first - b.first)) {
      const last = area.first + area.pages - 1;
      if (last < first || area.first > first + pages - 1) continue;
      if (area.first < first || last > first + pages - 1) return { errno: ENOENT, gone };
      this.areas = this.areas.filter((a) => a !== area);
      gone += area.pages;
    }
    return { errno: gone === 0 ? ENOENT : 0, gone };
  }

  /** The areas that a copy of this range makes, at `to`; undefined when there is a hole. */
  slices(first: number, pages: number): ModelArea[] | undefined {
    const slices: ModelArea[] = [];
    for (let page = first; page < first + pages; ) {
      const area = this.covering(page);
      if (area === undefined) return undefined;
      const end = Math.min(area.first + area.pages, first + pages);
      slices.push({ first: page, pages: end - page, user: area.user + (page - area.first) });
      page = end;
    }
    return slices;
  }
}

function scene() {
  const reserved = [{ firstPage: 20, lastPage: 22 }];
  const bench = new CoreBench({
    iommus: [{ reserved }, {}],
    devices: [{ iommu: 0 }, { iommu: 1 }],
  });
  const ioas = [bench.fd.ioasAlloc().ioasId, bench.fd.ioasAlloc().ioasId] as const;
  // Aligned like a huge page, so that the model's alignment rule is Linux's.
  const userVa = bench.user.alloc(2 ** 21);
  const pfns = Array.from({ length: USER_PAGES }, (_, i) => bench.pfnOf(userVa + BigInt(i) * PAGE));
  return { bench, ioas, userVa, pfns, vfios: [bench.bind(0).vfio, bench.bind(1).vfio] as const };
}

test('random operations on two IOAS agree with a model: results, page tables, pins', (t) => {
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  const { bench, ioas, userVa, pfns, vfios } = scene();
  const { fd } = bench;
  const models = [new Model(), new Model()] as const;
  const idle = bench.frameRefs();
  const attached = [false, false];
  const done = { map: 0, auto: 0, unmap: 0, copy: 0, attach: 0, refused: 0 };

  const iovaOf = (page: number) => BigInt(page) * PAGE;
  const check = (what: string, got: number, expected: number) => {
    if (got !== expected) t.fail(`${what}: errno ${got}, expected ${expected}`);
    if (expected !== 0) done.refused++;
  };

  for (let step = 0; step < 3000; step++) {
    const which = random.below(2) as 0 | 1;
    const model = models[which];
    const ioasId = ioas[which];
    const first = random.below(PAGES);
    const pages = 1 + random.below(8);
    const user = random.below(USER_PAGES - 8);
    const length = BigInt(pages) * PAGE;
    switch (random.below(6)) {
      case 0: {
        const expected = model.canMap(first, pages);
        const va = userVa + iovaOf(user);
        check(
          'map',
          errnoOf(() => fd.ioasMap({ ioasId, userVa: va, length, iova: iovaOf(first) })),
          expected,
        );
        if (expected === 0) model.areas.push({ first, pages, user });
        done.map++;
        break;
      }
      case 1: {
        if (model.areas.length > 12) break;
        const place = model.autoPlace(pages, user);
        const { iova } = fd.ioasMap({ ioasId, userVa: userVa + iovaOf(user), length });
        if (iova !== iovaOf(place)) t.fail(`auto: ${iova}, expected page ${place}`);
        model.areas.push({ first: place, pages, user });
        done.auto++;
        break;
      }
      case 2:
      case 3: {
        let gone = 0n;
        const before = model.areas.reduce((sum, a) => sum + a.pages, 0);
        const { errno } = model.unmap(first, pages * 2);
        const call = () => {
          gone = fd.ioasUnmap({ ioasId, iova: iovaOf(first), length: length * 2n }).length;
        };
        check('unmap', errnoOf(call), errno);
        const after = model.areas.reduce((sum, a) => sum + a.pages, 0);
        if (errno === 0) t.is(gone, iovaOf(before - after));
        done.unmap++;
        break;
      }
      case 4: {
        const target = models[1 - which]!;
        const slices = model.slices(first, pages);
        const to = random.below(PAGES);
        const expected = slices === undefined ? ENOENT : target.canMap(to, pages);
        const call = () =>
          fd.ioasCopy({
            dstIoasId: ioas[1 - which]!,
            srcIoasId: ioasId,
            srcIova: iovaOf(first),
            length,
            dstIova: iovaOf(to),
          });
        check('copy', errnoOf(call), expected);
        if (expected === 0)
          for (const slice of slices!) target.areas.push({ ...slice, first: to + slice.first - first });
        done.copy++;
        break;
      }
      default: {
        if (!random.chance(0.2)) break;
        const regions: [number, number][] = which === 0 ? [[20, 22]] : [];
        if (attached[which]) {
          vfios[which].detach();
          attached[which] = false;
          model.reserved = [];
        } else {
          const clash = regions.some(([a, b]) =>
            model.areas.some((x) => x.first <= b && x.first + x.pages > a),
          );
          check(
            'attach',
            errnoOf(() => vfios[which].attach(ioasId)),
            clash ? EADDRINUSE : 0,
          );
          attached[which] = !clash;
          if (!clash) model.reserved = regions;
        }
        done.attach++;
      }
    }
    if (step % 50 === 0) verify();
  }
  verify();
  t.true(
    Math.min(done.map, done.auto, done.unmap, done.copy, done.attach, done.refused) > 20,
    JSON.stringify(done),
  );
  for (const vfio of vfios) vfio.close();
  fd.close();
  bench.assertNothingLeft(t, idle);

  /** Page tables hold exactly the model's pages, and pins are what attached IOAS need. */
  function verify(): void {
    const pinned = new Set<number>();
    models.forEach((model, which) => {
      const domain = bench.iommus[which]!.attached.get(which) as FakeDomain | null;
      if (!attached[which]) return;
      const expected = new Map<number, number>();
      for (const area of model.areas)
        for (let i = 0; i < area.pages; i++) expected.set(area.first + i, pfns[area.user + i]!);
      const found = new Map([...domain!.entries].map(([page, { pfn }]) => [page, pfn]));
      if (found.size !== expected.size) t.fail(`${found.size} pages mapped, expected ${expected.size}`);
      for (const [page, pfn] of expected)
        if (found.get(page) !== pfn) t.fail(`page ${page} is ${found.get(page)}`);
      for (const pfn of expected.values()) pinned.add(pfn);
    });
    for (const pfn of pfns) {
      const extra = bench.user.refs(pfn) - 1;
      if (extra > 0 !== pinned.has(pfn)) t.fail(`frame ${pfn} has ${extra} pins`);
    }
  }
});

test('what the model cannot say: ENOSPC and EFAULT leave everything as it was', (t) => {
  const { bench, ioas, vfios } = scene();
  vfios[0].attach(ioas[0]);
  const before = bench.frameRefs();
  t.is(
    errnoOf(() => bench.fd.ioasMap({ ioasId: ioas[0], userVa: 0n, length: 1n << 60n })),
    ENOSPC,
  );
  t.is(
    errnoOf(() => bench.fd.ioasMap({ ioasId: ioas[0], userVa: 0n, length: PAGE })),
    EFAULT,
  );
  t.is(bench.frameRefs(), before);
});

test('two hundred thousand areas: mapped first fit, found, and unmapped without slowing to a crawl', (t) => {
  const { bench, ioas } = scene();
  const { iopt } = bench.fd.ctx.get(ioas[0], 0) as unknown as {
    iopt: import('../../../runtime/iova/io-pagetable.js').IoPagetable;
  };
  const count = 200_000;
  for (let i = 0; i < count; i++) {
    const iova = iopt.mapUserPages(PAGE * 512n, PAGE, null, 3);
    if (iova !== BigInt(i + 1) * PAGE) t.fail(`map ${i} went to ${iova}`);
  }
  t.is(iopt.space.areas.size, count);
  for (let i = 1; i <= count; i += 2) iopt.unmap(BigInt(i) * PAGE, PAGE);
  t.is(iopt.mapUserPages(PAGE * 512n, PAGE, null, 3), PAGE, 'the lowest hole');
  t.is(iopt.mapUserPages(PAGE * 512n, PAGE, null, 3), 3n * PAGE);
  t.deepEqual(iopt.unmapAll(), { status: 0, bytes: BigInt(count / 2 + 2) * PAGE });
});
