/** An IOAS against a model of it: plain lists, written from the manual rather than from the code under test. */
import test, { type ExecutionContext } from 'ava';
import type { Ioas } from '../../../runtime/objects/ioas.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';
import { Random, SEED } from '../../kit/random.js';

const [ENOENT, EINVAL, EEXIST, EADDRINUSE, ENOSPC, EFAULT] = [2, 22, 17, 98, 28, 14];
const PAGE = 0x1000n;
/** IOMMU_OPTION_HUGE_PAGES. */
const HUGE_PAGES = 1;
/** The grains that the test plays on; few, so that operations meet. */
const GRAINS = 64;
const USER_PAGES = 48;
const STEPS = 4000;

/** All in grains: 4 KiB, or 2 KiB where the IO pages are. */
interface ModelArea {
  readonly first: number;
  readonly count: number;
  /** User memory behind the first. */
  readonly user: number;
}

class Model {
  areas: ModelArea[] = [];
  reserved: [number, number][] = [];
  attached = false;
  largePages = true;
  /** Grains of a page, and of the IO page of the device that attaches here. */
  readonly perPage: number;
  readonly ioPage: number;

  constructor(perPage: number, ioPage: number) {
    this.perPage = perPage;
    this.ioPage = ioPage;
  }

  /** iova_alignment; a device or the lack of large pages asks for some. */
  get alignment(): number {
    return Math.max(1, this.attached ? this.ioPage : 1, this.largePages ? 1 : this.perPage);
  }

  covering(grain: number): ModelArea | undefined {
    return this.areas.find((a) => grain >= a.first && grain < a.first + a.count);
  }

  /** Whether the areas could be mapped in steps of `alignment`. */
  fits(alignment: number): boolean {
    return this.areas.every((a) => [a.first, a.count, a.user].every((value) => value % alignment === 0));
  }

  isFree(first: number, count: number): number {
    const range = Array.from({ length: count }, (_, i) => first + i);
    if (range.some((grain) => this.reserved.some(([a, b]) => grain >= a && grain <= b))) return EINVAL;
    return range.some((grain) => this.covering(grain) !== undefined) ? EEXIST : 0;
  }

  /** @param slices  what is mapped one after the other */
  canMap(first: number, slices: readonly ModelArea[]): number {
    const { alignment } = this;
    const count = slices.reduce((sum, slice) => sum + slice.count, 0);
    if (count % alignment !== 0 || first % alignment !== 0) return EINVAL;
    return this.isFree(first, count) || this.canHold(slices);
  }

  /** Offsets in the page suit the IOAS, and each slice the IO pages of the device. */
  canHold(slices: readonly ModelArea[]): number {
    if (slices.some(({ user }) => user % this.alignment !== 0)) return EINVAL;
    return this.attached && slices.some((slice) => !this.suitsDevice(slice)) ? EINVAL : 0;
  }

  suitsDevice({ first, count, user }: ModelArea): boolean {
    const step = this.largePages ? this.ioPage : this.perPage;
    return [first, count, user].every((value) => value % step === 0);
  }

  /**
   * The lowest place from page 1 on, aligned as the user address is up to the length, at the same offset in the page.
   * @returns grain, or -errno
   */
  autoPlace(count: number, user: number): number {
    if (count % this.alignment !== 0) return -EINVAL;
    let align = 1;
    while (align < count) align *= 2;
    while (user !== 0 && user % align !== 0) align /= 2;
    if (align < this.alignment) return -EINVAL;
    const offset = user % this.perPage;
    for (let at = Math.ceil(this.perPage / align) * align; ; at += align) {
      const first = offset === 0 ? at : at | offset;
      if (this.isFree(first, count) === 0) return user % this.alignment === 0 ? first : -EINVAL;
    }
  }

  /** @returns errno, or 0 and how many grains went; the areas before a cut one go all the same */
  unmap(first: number, count: number): { errno: number; gone: number } {
    let gone = 0;
    for (const area of [...this.areas].sort((a, b) => a.first - b.first)) {
      const last = area.first + area.count - 1;
      if (last < first || area.first > first + count - 1) continue;
      if (area.first < first || last > first + count - 1) return { errno: ENOENT, gone };
      this.areas = this.areas.filter((a) => a !== area);
      gone += area.count;
    }
    return { errno: gone === 0 ? ENOENT : 0, gone };
  }

  /** The areas that a copy of this range makes, at `to`; undefined when there is a hole. */
  slices(first: number, count: number, to: number): ModelArea[] | undefined {
    const slices: ModelArea[] = [];
    for (let grain = first; grain < first + count; ) {
      const area = this.covering(grain);
      if (area === undefined) return undefined;
      const end = Math.min(area.first + area.count, first + count);
      slices.push({ first: to + grain - first, count: end - grain, user: area.user + (grain - area.first) });
      grain = end;
    }
    return slices;
  }

  /** An area that contains the border before `grain` becomes two. */
  cut(grain: number): number {
    const area = this.covering(grain - 1);
    if (area === undefined || area.first + area.count === grain) return 0;
    const left = grain - area.first;
    if (grain % this.alignment !== 0 || (area.user + left) % this.alignment !== 0) return EINVAL;
    if (this.attached && this.largePages) return EINVAL;
    this.areas = this.areas.filter((a) => a !== area);
    this.areas.push({ ...area, count: left });
    this.areas.push({ first: grain, count: area.count - left, user: area.user + left });
    return 0;
  }

  setLargePages(on: boolean): number {
    if (on || !this.largePages) {
      this.largePages ||= on;
      return 0;
    }
    if (this.attached && this.areas.length > 0) return EINVAL;
    if (this.perPage > this.alignment && !this.fits(this.perPage)) return EADDRINUSE;
    this.largePages = false;
    return 0;
  }

  attach(reserved: [number, number][]): number {
    if (reserved.some(([a, b]) => this.areas.some((x) => x.first <= b && x.first + x.count > a)))
      return EADDRINUSE;
    if (this.ioPage > this.alignment && !this.fits(this.ioPage)) return EADDRINUSE;
    if (this.areas.some((area) => !this.suitsDevice(area))) return EINVAL;
    this.attached = true;
    this.reserved = reserved;
    return 0;
  }

  detach(): void {
    this.attached = false;
    this.reserved = [];
  }
}

/** IOMMU 0 has IO pages of a grain, IOMMU 1 of 4 KiB; two IOASes. */
function scene(grainLg2 = 12) {
  const reserved = [{ firstPage: 20, lastPage: 22 }];
  const bench = new CoreBench({
    iommus: [{ reserved, driver: 'fine', pageSizesLg2: [grainLg2, 21] }, {}],
    devices: [{ iommu: 0 }, { iommu: 1 }],
  });
  const ioas = [bench.fd.ioasAlloc().ioasId, bench.fd.ioasAlloc().ioasId] as const;
  // Aligned like a huge page, so that the model's alignment rule is Linux's.
  const userVa = bench.user.alloc(2 ** 21);
  const pfns = Array.from({ length: USER_PAGES }, (_, i) => bench.pfnOf(userVa + BigInt(i) * PAGE));
  return { bench, ioas, userVa, pfns, vfios: [bench.bind(0).vfio, bench.bind(1).vfio] as const };
}

for (const grainLg2 of [12, 11])
  test(`random operations on two IOAS agree with a model, in grains of ${2 ** grainLg2} bytes`, (t) =>
    play(t, grainLg2));

function play(t: ExecutionContext, grainLg2: number): void {
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  const { bench, ioas, userVa, pfns, vfios } = scene(grainLg2);
  const { fd } = bench;
  const perPage = 2 ** (12 - grainLg2);
  const models = [new Model(perPage, 1), new Model(perPage, perPage)] as const;
  const idle = bench.frameRefs();
  const done = { map: 0, auto: 0, unmap: 0, copy: 0, attach: 0, cut: 0, large: 0, refused: 0 };

  const bytes = (grains: number) => BigInt(grains) << BigInt(grainLg2);
  const check = (what: keyof typeof done, got: number, expected: number) => {
    if (got !== expected) t.fail(`${what}: errno ${got}, expected ${expected}`);
    if (expected !== 0) done.refused++;
    done[what]++;
  };

  for (let step = 0; step < STEPS; step++) {
    const which = random.below(2) as 0 | 1;
    const model = models[which];
    const other = models[1 - which]!;
    const ioasId = ioas[which];
    // Mostly whole pages: with halves alone a device of whole pages would hardly attach.
    const round = random.chance(0.7) ? perPage : 1;
    const grains = (below: number) => Math.floor(random.below(below) / round) * round;
    const first = grains(GRAINS);
    const count = round + grains(8);
    const user = grains((USER_PAGES - 8) * perPage);
    const length = bytes(count);
    switch (random.below(8)) {
      case 0: {
        const area: ModelArea = { first, count, user };
        const expected = model.canMap(first, [area]);
        const call = () => fd.ioasMap({ ioasId, userVa: userVa + bytes(user), length, iova: bytes(first) });
        check('map', errnoOf(call), expected);
        if (expected === 0) model.areas.push(area);
        break;
      }
      case 1: {
        if (model.areas.length > 12) break;
        const place = model.autoPlace(count, user);
        const slice = { first: Math.max(place, 0), count, user };
        const expected = place < 0 ? -place : model.canHold([slice]);
        let where = 0n;
        const call = () => {
          where = fd.ioasMap({ ioasId, userVa: userVa + bytes(user), length }).iova;
        };
        check('auto', errnoOf(call), expected);
        if (expected !== 0) break;
        if (where !== bytes(place)) t.fail(`auto: ${where}, expected grain ${place}`);
        model.areas.push(slice);
        break;
      }
      case 2:
      case 3: {
        let gone = 0n;
        const result = model.unmap(first, count * 2);
        const call = () => {
          gone = fd.ioasUnmap({ ioasId, iova: bytes(first), length: length * 2n }).length;
        };
        check('unmap', errnoOf(call), result.errno);
        if (result.errno === 0) t.is(gone, bytes(result.gone));
        break;
      }
      case 4: {
        const to = grains(GRAINS);
        const slices = model.slices(first, count, to);
        const expected = slices === undefined ? ENOENT : other.canMap(to, slices);
        const call = () =>
          fd.ioasCopy({
            dstIoasId: ioas[1 - which]!,
            srcIoasId: ioasId,
            srcIova: bytes(first),
            length,
            dstIova: bytes(to),
          });
        check('copy', errnoOf(call), expected);
        if (expected === 0) other.areas.push(...slices!);
        break;
      }
      case 5: {
        if (first === 0) break;
        const source = fd.ctx.get<Ioas>(ioasId, 0)!;
        check('cut', -source.iopt.cutIova([bytes(first) - 1n]), model.cut(first));
        fd.ctx.put(source);
        break;
      }
      case 6: {
        if (!random.chance(0.2)) break;
        const on = random.chance(0.5);
        const call = () => fd.setOption(HUGE_PAGES, on ? 1n : 0n, ioasId);
        check('large', errnoOf(call), model.setLargePages(on));
        break;
      }
      default: {
        if (!random.chance(0.3)) break;
        if (model.attached) {
          vfios[which].detach();
          model.detach();
          done.attach++;
        } else {
          const regions: [number, number][] = which === 0 ? [[20 * perPage, 23 * perPage - 1]] : [];
          const expected = model.attach(regions);
          check(
            'attach',
            errnoOf(() => vfios[which].attach(ioasId)),
            expected,
          );
        }
      }
    }
    if (step % 50 === 0) verify();
  }
  verify();
  t.true(Math.min(...Object.values(done)) > 20, JSON.stringify(done));
  for (const vfio of vfios) vfio.close();
  fd.close();
  bench.assertNothingLeft(t, idle);

  /** Page tables hold exactly the model's pages, and pins are what attached IOAS need. */
  function verify(): void {
    const pinned = new Set<number>();
    models.forEach((model, which) => {
      if (!model.attached) return;
      const domain = bench.iommus[which]!.attached.get(which) as FakeDomain;
      const step = 2 ** (domain.unitLg2 - grainLg2);
      const expected = new Map<number, number>();
      for (const area of model.areas)
        for (let i = 0; i < area.count; i++) {
          const at = area.user + i;
          const pfn = pfns[Math.floor(at / perPage)]!;
          pinned.add(pfn);
          if (i % step === 0) expected.set((area.first + i) / step, (pfn * perPage + (at % perPage)) / step);
        }
      const found = new Map([...domain.entries].map(([unit, { pfn }]) => [unit, pfn]));
      if (found.size !== expected.size) t.fail(`${found.size} units mapped, expected ${expected.size}`);
      for (const [unit, pa] of expected)
        if (found.get(unit) !== pa) t.fail(`unit ${unit} is ${found.get(unit)}`);
    });
    for (const pfn of pfns) {
      const extra = bench.user.refs(pfn) - 1;
      if (extra > 0 !== pinned.has(pfn)) t.fail(`frame ${pfn} has ${extra} pins`);
    }
  }
}

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
