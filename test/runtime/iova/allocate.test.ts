/** Where a mapping goes when the core chooses, against Linux's rules written out over plain lists. */
import test from 'ava';
import type { IoptArea } from '../../../runtime/iova/area.js';
import { IovaSpace } from '../../../runtime/iova/iova-space.js';
import { OrderedSpans } from '../../../runtime/iova/ordered-spans.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import { Random, SEED } from '../../kit/random.js';

const [EINVAL, ENOSPC, EOVERFLOW] = [22n, 28n, 75n];
const U64_MAX = (1n << 64n) - 1n;
const PAGE = 4096n;
const HPAGE = 1n << 21n;

type Range = readonly [first: bigint, last: bigint];

const span = ([first, last]: Range) => ({
  firstPage: Number(first >> 12n),
  firstOffset: Number(first & 0xfffn),
  lastPage: Number(last >> 12n),
  lastOffset: Number(last & 0xfffn),
});

/** Sorted, with neighbours and overlaps joined, and cut to [first, last]. */
function joined(ranges: readonly Range[], first: bigint, last: bigint): Range[] {
  const out: [bigint, bigint][] = [];
  for (const [a, b] of [...ranges].sort((x, y) => (x[0] < y[0] ? -1 : 1))) {
    if (b < first || a > last) continue;
    const [from, to] = [a > first ? a : first, b < last ? b : last];
    const end = out.at(-1);
    if (end !== undefined && from <= end[1] + 1n) {
      if (to > end[1]) end[1] = to;
    } else out.push([from, to]);
  }
  return out;
}

/** iopt_alloc_iova(). */
function allocIova(
  used: readonly Range[],
  allowed: readonly Range[],
  alignmentOfTable: bigint,
  addr: bigint,
  length: bigint,
): bigint {
  if (length === 0n || length >= U64_MAX / 2n) return -EOVERFLOW;
  let alignment = 1n;
  while (alignment < length) alignment *= 2n;
  if (addr !== 0n) {
    let low = 1n;
    while (addr % (low * 2n) === 0n) low *= 2n;
    if (low < alignment) alignment = low;
  }
  if (alignment > HPAGE) alignment = HPAGE;
  if (alignment < alignmentOfTable) return -EINVAL;
  const offset = addr % PAGE;
  const roomFor = (start: bigint, last: bigint): bigint | null => {
    if (start + alignment - 1n > U64_MAX) return null;
    const at = ((start + alignment - 1n) / alignment) * alignment;
    const aligned = at | offset;
    return aligned >= last || last - aligned < length - 1n ? null : aligned;
  };
  const everything: Range = [PAGE, U64_MAX - PAGE];
  for (const [first, last] of allowed.length === 0 ? [everything] : joined(allowed, ...everything)) {
    const start = roomFor(first, last);
    if (start === null) continue;
    let hole = start;
    for (const [a, b] of [...joined(used, start, last), [last + 1n, last] as const]) {
      const found = a > hole ? roomFor(hole, a - 1n) : null;
      if (found !== null) return found;
      hole = b + 1n;
    }
  }
  return -ENOSPC;
}

test('allocate: agrees with Linux on any mix of areas, reserved and allowed ranges', (t) => {
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  const outcomes = { placed: 0, full: 0, refused: 0 };
  for (let round = 0; round < 40; round++) {
    const space = new IovaSpace();
    const limit = 1n << BigInt(14 + random.below(8));
    const grain = BigInt(random.pick([1, 0x80, 0x800, 0x1000]));
    space.alignment = Number(grain);
    const areas: { range: Range; area: IoptArea }[] = [];
    const reserved: Range[] = [];
    let allowed: Range[] = [];
    const somewhere = (): Range => {
      const first = (BigInt(random.below(Number(limit))) / grain) * grain;
      return [first, first + grain * BigInt(1 + random.below(40)) - 1n];
    };
    const overlaps = (ranges: readonly Range[], [first, last]: Range) =>
      ranges.some(([a, b]) => a <= last && b >= first);
    const insert = (range: Range) => {
      const area = { ...span(range) } as IoptArea;
      space.insertArea(area);
      areas.push({ range, area });
    };
    for (let step = 0; step < 250; step++) {
      const used = () => [...areas.map(({ range }) => range), ...reserved];
      switch (random.below(8)) {
        case 0: {
          const range = somewhere();
          if (!overlaps(used(), range)) insert(range);
          break;
        }
        case 1: {
          if (areas.length === 0) break;
          const [gone] = areas.splice(random.below(areas.length), 1);
          space.removeArea(gone!.area);
          break;
        }
        case 2: {
          if (!random.chance(0.2)) break;
          const range = somewhere();
          const expected = overlaps(
            areas.map((area) => area.range),
            range,
          );
          const refused = overlaps(allowed, range) || expected;
          t.is(space.reserveBytes(...range, space), refused ? -98 : 0);
          if (!refused) reserved.push(range);
          break;
        }
        case 3: {
          if (!random.chance(0.2)) break;
          const list: Range[] = [];
          for (let i = random.below(4); i > 0; i--) {
            const range: Range = [somewhere()[0], somewhere()[1]];
            if (range[0] < range[1] && !overlaps(list, range)) list.push(range);
          }
          const spans = new OrderedSpans<ReturnType<typeof span>>();
          for (const range of list) spans.insert(span(range));
          const refused = list.some((range) => overlaps(reserved, range));
          t.is(space.setAllowed(spans), refused ? -98 : 0);
          if (!refused) allowed = list;
          break;
        }
        default: {
          const addr = BigInt(random.pick([0, 0x1000, 0x20_0000, 0x40_0000, random.below(2 ** 24)]));
          const length = random.chance(0.05)
            ? random.pick([0n, U64_MAX / 2n, U64_MAX])
            : grain * BigInt(1 + random.below(random.pick([3, 20, 3000])));
          const aligned = random.chance(0.3) ? addr : (addr / grain) * grain;
          const expected = allocIova(used(), allowed, grain, aligned, length);
          const found = space.allocate(aligned, length);
          if (found !== expected)
            t.fail(`round ${round} step ${step}: ${aligned}+${length} went to ${found}, not ${expected}`);
          if (found === -ENOSPC) outcomes.full++;
          else if (found < 0n) outcomes.refused++;
          else {
            outcomes.placed++;
            if (found + length < 1n << 60n) insert([found, found + length - 1n]);
          }
        }
      }
    }
  }
  t.true(Math.min(outcomes.placed, outcomes.full, outcomes.refused) > 30, JSON.stringify(outcomes));
});

test('allocate: alignment is that of the address, at most of the length, at most 2 MiB', (t) => {
  const bench = new CoreBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const auto = (userVa: bigint, length: bigint) => {
    const { iova } = bench.fd.ioasMap({ ioasId, userVa, length });
    bench.fd.ioasUnmap({ ioasId, iova, length });
    return iova;
  };
  t.is(auto(0x4000_0000n, 0x4000_0000n), 0x20_0000n, '1 GiB, aligned to 2 MiB');
  t.is(auto(0x4000_0000n, 0x6000n), 0x8000n, 'the next power of two of the length');
  t.is(auto(0x4000_2000n, 0x6000n), 0x2000n, 'the address has less');
  t.is(auto(0n, 0x6000n), 0x8000n, 'address 0 has all');
  t.is(auto(0x123n, 1n), 0x1123n, 'the offset in the page is kept');
});

test('allocate: EINVAL when the address or the length has less alignment than the IOAS asks for', (t) => {
  const bench = new CoreBench();
  const { ioasId } = bench.fd.ioasAlloc();
  bench.bind().vfio.attach(ioasId);
  const userVa = bench.user.alloc(0x2000);
  const errno = (va: bigint, length: bigint) =>
    errnoOf(() => bench.fd.ioasMap({ ioasId, userVa: va, length }));
  t.is(errno(userVa + 0x800n, 0x1000n), 22);
  t.is(errno(userVa, 0x800n), 22);
  t.is(errno(userVa, 0x1000n), 0);
});

test('allocate: the first and the last page of the address space are never chosen', (t) => {
  const space = new IovaSpace();
  const allow = (...ranges: Range[]) => {
    const allowed = new OrderedSpans<ReturnType<typeof span>>();
    for (const range of ranges) allowed.insert(span(range));
    t.is(space.setAllowed(allowed), 0);
  };
  const lastPage = U64_MAX - 0xfffn;
  allow([0n, 0xfffn], [lastPage, U64_MAX]);
  t.is(space.allocate(0n, 1n), -ENOSPC);
  allow([0n, 0x1fffn], [lastPage - PAGE, U64_MAX]);
  t.is(space.allocate(0n, PAGE), PAGE);
  space.insertArea(span([PAGE, 0x1fffn]) as IoptArea);
  t.is(space.allocate(0n, PAGE), lastPage - PAGE, 'the page before the last');
  t.is(space.allocate(0n, PAGE + 1n), -ENOSPC);
});
