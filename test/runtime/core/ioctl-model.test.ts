import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import type { PagingDomain } from '../../../runtime/drivers/contract.js';
import type { Fields, Struct, StructInput } from '../../../uapi/abi/struct.js';
import { Destroy, IOMMU_DESTROY } from '../../../uapi/iommufd/destroy.js';
import { HwptAlloc, IOMMU_HWPT_ALLOC } from '../../../uapi/iommufd/hwpt.js';
import * as ioas from '../../../uapi/iommufd/ioas.js';
import { IOMMU_OPTION, Option } from '../../../uapi/iommufd/option.js';
import { VFIO_DEVICE_ATTACH_IOMMUFD_PT, VfioDeviceAttachIommufdPt } from '../../../uapi/vfio/cdev.js';
import { CoreBench } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';
import {
  type Area,
  DeviceModel,
  EINVAL,
  ENOENT,
  ENOSPC,
  EOPNOTSUPP,
  HwptModel,
  IoasModel,
  IommufdModel,
  type ObjectModel,
  PAGE,
  type Range,
  U64_MAX,
} from '../../kit/ioas-model.js';
import { SEED } from '../../kit/random.js';

/** IOVAs and user addresses are multiples of this, so that half of them fit no page. */
const STEP = 512n;
const USER_BYTES = 64n * PAGE;
const MAX_STEPS = 300;
const CALLS_IN_ALL = 100_000;
const RUNS = 1000;

const [READABLE, WRITEABLE, FIXED] = [4, 2, 1];

/** One call; what its numbers mean depends on the call. */
interface Call {
  readonly what: keyof typeof CALLS;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
}

class Scene {
  readonly bench = new CoreBench({
    iommus: [{ privateDomains: true }, { privateDomains: true, reserved: [{ firstPage: 20, lastPage: 22 }] }],
    devices: [{ iommu: 0 }, { iommu: 0 }, { iommu: 1 }],
  });
  readonly model = new IommufdModel();
  readonly userVa = this.bench.user.alloc(2n ** 21n);
  readonly scratch = this.bench.user.alloc(4096);
  readonly idle = this.bench.frameRefs();
  readonly devices: DeviceModel[] = [];
  readonly vfios;
  readonly t: ExecutionContext;
  refused = 0;

  constructor(t: ExecutionContext) {
    this.t = t;
    const reserved = [{ start: 20n * PAGE, last: 23n * PAGE - 1n }];
    this.vfios = [0, 1, 2].map((index) => {
      const device = new DeviceModel(index === 2 ? 1 : 0, index === 2 ? reserved : []);
      const { vfio, devId } = this.bench.bind(index);
      this.same('bind', devId, this.model.add(device));
      this.devices.push(device);
      return vfio;
    });
  }

  /** @throws Error they differ, so that fast-check looks for the shortest way there */
  same(what: string, got: unknown, expected: unknown): void {
    if (got !== expected) throw new Error(`${what}: ${String(got)}, the model says ${String(expected)}`);
  }

  errno(what: string, got: number, expected: number): void {
    this.same(`${what}: errno`, got, expected);
    if (expected !== 0) this.refused++;
  }

  call<F extends Fields>(cmd: number, struct: Struct<F>, fields: Partial<StructInput<F>>) {
    const bytes = struct.toBytes({ size: struct.size, ...fields } as Partial<StructInput<F>>);
    const ret = this.bench.fd.ioctl(cmd, bytes);
    return { errno: -ret || 0, out: struct.decode(bytes) };
  }

  /** One of the objects, or an ID that is none. */
  object(pick: number): { id: number; object: ObjectModel | undefined } {
    const ids = [...this.model.objects.keys(), 0, 77];
    const id = ids[pick % ids.length]!;
    return { id, object: this.model.objects.get(id) };
  }

  ioas(pick: number): { ioasId: number; of: IoasModel | undefined } {
    const ids = [...this.model.objects].filter(([, object]) => object.kind === 'ioas').map(([id]) => id);
    if (ids.length === 0 || pick % 16 === 15) return { ioasId: 77, of: undefined };
    const ioasId = ids[pick % ids.length]!;
    return { ioasId, of: this.model.objects.get(ioasId) as IoasModel };
  }

  /** Page tables and pins are what the model's areas make of them. */
  verify(): void {
    const { bench, model } = this;
    const pinned = new Map<object, Set<bigint>>();
    for (const [id, object] of model.objects) {
      if (object.kind !== 'hwpt') continue;
      const held = bench.fd.ctx.get(id, 0) as unknown as { domain: PagingDomain } | undefined;
      if (held === undefined) throw new Error(`page table ${id} does not exist`);
      bench.fd.ctx.objects.put(id);
      const { entries } = held.domain as FakeDomain;
      let pages = 0;
      for (const area of object.ioas.areas)
        for (let iova = area.start; iova < area.last; iova += PAGE) {
          const va = area.va + (iova - area.start);
          const entry = entries.get(Number(iova / PAGE));
          this.same(`page table ${id}, IOVA ${iova}`, entry?.pfn, bench.pfnOf(va));
          const of = pinned.get(area.source) ?? new Set();
          pinned.set(area.source, of.add(va / PAGE));
          pages++;
        }
      this.same(`entries of page table ${id}`, entries.size, pages);
    }
    let pins = 0;
    for (const pages of pinned.values()) pins += pages.size;
    this.same('pins', bench.frameRefs() - this.idle, pins);
  }

  close(): void {
    for (const vfio of this.vfios) vfio.close();
    this.bench.fd.close();
    this.same('objects left', this.bench.fd.ctx.objectCount, 0);
    this.same('pins left', this.bench.frameRefs(), this.idle);
  }
}

/** Mostly whole pages, now and then not. */
const bytesOf = (n: number) => (n % 4 === 0 ? BigInt(1 + (n % 80)) * STEP : BigInt(1 + (n % 7)) * PAGE);
const placeOf = (n: number) => (n % 5 === 0 ? BigInt(n % 512) * STEP : BigInt(n % 64) * PAGE);
const protOf = (n: number) => (n % 13 === 0 ? 0 : n % 3 === 0 ? READABLE : READABLE | WRITEABLE);

/** A map or copy whose place the kernel chooses. */
function checkChoice(
  s: Scene,
  of: IoasModel,
  va: bigint,
  length: bigint,
  errno: number,
  iova: bigint,
): boolean {
  const rule = s.model.autoRule(of, va, length);
  if (typeof rule === 'number') {
    s.errno('choose', errno, rule);
    return false;
  }
  const { alignment, offset } = rule;
  const fits = (start: bigint) => s.model.isChoice(of, { start, last: start + length - 1n });
  // Where the alignment is a page or more, the place is the lowest there is.
  const lowest = () => {
    for (let at = alignment; at < 4096n * PAGE; at += alignment) if (fits(at)) return at;
    return -1n;
  };
  if (errno === ENOSPC) {
    if (of.allowed.length === 0) throw new Error('ENOSPC although everything is allowed');
    if (alignment >= PAGE) s.same('no room', lowest(), -1n);
    return false;
  }
  if (errno !== 0) return true;
  if (iova % alignment !== 0n || (iova & offset) !== offset)
    throw new Error(`${iova} is not aligned as ${va}`);
  if (!fits(iova)) throw new Error(`${iova} is not free, or not allowed`);
  if (alignment >= PAGE) s.same('the lowest place', iova, lowest());
  return true;
}

const CALLS = {
  alloc(s: Scene, { a }: Call) {
    const flags = a % 9 === 0 ? 1 : 0;
    const { errno, out } = s.call(ioas.IOMMU_IOAS_ALLOC, ioas.IoasAlloc, { flags });
    s.errno('IOAS_ALLOC', errno, flags === 0 ? 0 : EOPNOTSUPP);
    if (errno === 0) s.same('ID', out.outIoasId, s.model.add(new IoasModel()));
  },

  destroy(s: Scene, { a }: Call) {
    const { id } = s.object(a);
    s.errno('DESTROY', s.call(IOMMU_DESTROY, Destroy, { id }).errno, s.model.destroy(id));
  },

  map(s: Scene, { a, b, c, d }: Call) {
    const { ioasId, of } = s.ioas(a);
    const [length, iova, prot] = [bytesOf(c), placeOf(b), protOf(d)];
    const va = s.userVa + (placeOf(d >> 4) % (USER_BYTES / 2n));
    const fixed = d % 2 === 0;
    const fields = { flags: prot | (fixed ? FIXED : 0), ioasId, userVa: va, length, iova: fixed ? iova : 0n };
    const { errno, out } = s.call(ioas.IOMMU_IOAS_MAP, ioas.IoasMap, fields);
    if (prot === 0 || of === undefined) return s.errno('MAP', errno, prot === 0 ? EINVAL : ENOENT);
    const write = (prot & WRITEABLE) !== 0;
    const slices: Area[] = [{ start: 0n, last: length - 1n, source: { va, writable: write }, va }];
    if (fixed) return s.errno('MAP', errno, s.model.mapAt(of, iova, slices, length, write));
    if (!checkChoice(s, of, va, length, errno, out.iova)) return;
    s.errno('MAP', errno, s.model.mapChosen(of, out.iova, slices, write));
  },

  unmap(s: Scene, { a, b, c, d }: Call) {
    const { ioasId, of } = s.ioas(a);
    const all = d % 23 === 0;
    // Two times out of three something that is mapped, whole.
    const areas = of?.areas ?? [];
    const area = d % 3 === 0 || areas.length === 0 ? undefined : areas[b % areas.length]!;
    const start = all ? 0n : (area?.start ?? placeOf(b));
    const last = all ? U64_MAX : (area?.last ?? start + bytesOf(c) - 1n);
    const length = all ? U64_MAX : last - start + 1n;
    const { errno, out } = s.call(ioas.IOMMU_IOAS_UNMAP, ioas.IoasUnmap, { ioasId, iova: start, length });
    if (of === undefined) return s.errno('UNMAP', errno, ENOENT);
    const expected = s.model.unmap(of, { start, last });
    s.errno('UNMAP', errno, expected.errno);
    if (errno === 0) s.same('bytes unmapped', out.length, expected.bytes);
  },

  copy(s: Scene, { a, b, c, d }: Call) {
    const from = s.ioas(a);
    const to = s.ioas(b);
    const [length, srcIova, dstIova, prot] = [bytesOf(c), placeOf(d), placeOf(c >> 3), protOf(d >> 2)];
    const fixed = b % 2 === 0;
    const { errno, out } = s.call(ioas.IOMMU_IOAS_COPY, ioas.IoasCopy, {
      flags: prot | (fixed ? FIXED : 0),
      srcIoasId: from.ioasId,
      dstIoasId: to.ioasId,
      length,
      srcIova,
      dstIova: fixed ? dstIova : 0n,
    });
    if (prot === 0) return s.errno('COPY', errno, EINVAL);
    const range = { start: srcIova, last: srcIova + length - 1n };
    const slices = from.of === undefined ? null : s.model.slices(from.of, range);
    if (slices === null || to.of === undefined) return s.errno('COPY', errno, ENOENT);
    const write = (prot & WRITEABLE) !== 0;
    if (fixed) return s.errno('COPY', errno, s.model.mapAt(to.of, dstIova, slices, length, write));
    if (!checkChoice(s, to.of, slices[0]!.va, length, errno, out.dstIova)) return;
    s.errno('COPY', errno, s.model.mapChosen(to.of, out.dstIova, slices, write));
  },

  allow(s: Scene, { a, b, c, d }: Call) {
    const { ioasId, of } = s.ioas(a);
    const ranges: Range[] = [b, c].slice(0, d % 3).map((n, i) => {
      const start = placeOf(n);
      return { start, last: start + (n % 11 === 0 ? 0n : bytesOf(n >> 2) * BigInt(3 * i + 2)) - 1n };
    });
    const bytes = new Uint8Array(16 * ranges.length + 1);
    ranges.forEach(({ start, last }, i) => {
      ioas.IovaRange.encode({ start, last: last < 0n ? 0n : last }, bytes, 16 * i);
    });
    s.bench.user.copyOut(s.scratch, bytes);
    const { errno } = s.call(ioas.IOMMU_IOAS_ALLOW_IOVAS, ioas.IoasAllowIovas, {
      ioasId,
      numIovas: ranges.length,
      allowedIovas: s.scratch,
    });
    s.errno('ALLOW_IOVAS', errno, of === undefined ? ENOENT : s.model.allow(of, ranges));
  },

  ranges(s: Scene, { a }: Call) {
    const { ioasId, of } = s.ioas(a);
    const { errno, out } = s.call(ioas.IOMMU_IOAS_IOVA_RANGES, ioas.IoasIovaRanges, {
      ioasId,
      numIovas: 16,
      allowedIovas: s.scratch,
    });
    if (of === undefined) return s.errno('IOVA_RANGES', errno, ENOENT);
    const expected = s.model.usable(of);
    s.errno('IOVA_RANGES', errno, 0);
    s.same('how many ranges', out.numIovas, expected.length);
    s.same('alignment', out.outIovaAlignment, s.model.alignment(of));
    const bytes = new Uint8Array(16 * expected.length);
    s.bench.user.copyIn(s.scratch, bytes);
    expected.forEach(({ start, last }, i) => {
      const range = ioas.IovaRange.decode(bytes, 16 * i);
      s.same(`range ${i}`, `${range.start}-${range.last}`, `${start}-${last}`);
    });
  },

  hugePages(s: Scene, { a, b }: Call) {
    const { ioasId, of } = s.ioas(a);
    const val64 = BigInt(b % 3);
    const { errno } = s.call(IOMMU_OPTION, Option, { optionId: 1, op: 0, objectId: ioasId, val64 });
    s.errno('OPTION', errno, of === undefined ? ENOENT : s.model.setHugePages(of, val64));
  },

  hwptAlloc(s: Scene, { a, b, c }: Call) {
    const device = s.object(a);
    const target = s.object(b);
    const flags = c % 7 === 0 ? 0x8000_0000 : c % 2;
    const { errno, out } = s.call(IOMMU_HWPT_ALLOC, HwptAlloc, { devId: device.id, ptId: target.id, flags });
    const refuse = (expected: number) => s.errno('HWPT_ALLOC', errno, expected);
    if (device.object?.kind !== 'device') return refuse(ENOENT);
    if (target.object === undefined || target.object.kind === 'device') return refuse(EINVAL);
    // A nested table needs data.
    if (target.object.kind === 'hwpt' || flags > 1) return refuse(EOPNOTSUPP);
    const made = s.model.hwptAlloc(target.object, device.object, false);
    if (typeof made === 'number') return refuse(made);
    refuse(0);
    s.same('ID', out.outHwptId, made.id);
  },

  attach(s: Scene, { a, b }: Call) {
    const device = s.devices[a % 3]!;
    const { id, object } = s.object(b);
    const bytes = VfioDeviceAttachIommufdPt.toBytes({ argsz: VfioDeviceAttachIommufdPt.size, ptId: id });
    const errno = -s.vfios[a % 3]!.ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT, bytes) || 0;
    const expected = s.model.attach(device, object);
    s.errno('ATTACH', errno, expected.errno);
    if (errno === 0) s.same('in use', VfioDeviceAttachIommufdPt.getField(bytes, 'ptId'), expected.used);
  },

  detach(s: Scene, { a }: Call) {
    s.vfios[a % 3]!.detach();
    s.model.detach(s.devices[a % 3]!);
  },
} as const;

const WEIGHTS: Readonly<Record<keyof typeof CALLS, number>> = {
  alloc: 4,
  destroy: 4,
  map: 30,
  unmap: 16,
  copy: 14,
  allow: 3,
  ranges: 4,
  hugePages: 2,
  hwptAlloc: 3,
  attach: 8,
  detach: 4,
};

const callArbitrary = fc.record({
  what: fc.oneof(
    ...Object.entries(WEIGHTS).map(([name, weight]) => ({
      weight,
      arbitrary: fc.constant(name as keyof typeof CALLS),
    })),
  ),
  a: fc.nat(0xffff),
  b: fc.nat(0xffff),
  c: fc.nat(0xffff),
  d: fc.nat(0xffff),
});

/** The seed, what went wrong, and the shortest calls that lead there. */
function reporter(details: fc.RunDetails<[Call[]]>): void {
  if (!details.failed) return;
  const calls = details.counterexample?.[0].map(({ what, a, b, c, d }) => `${what}(${a}, ${b}, ${c}, ${d})`);
  const { errorInstance, seed, numShrinks } = details;
  throw new Error(`${String(errorInstance)}; seed ${seed}, after ${numShrinks} steps: ${calls?.join(' ')}`);
}

test('random ioctls agree with a model of IOASes and page tables, 100 000 of them', (t) => {
  t.log(`SEED=${SEED}`);
  const done = new Map<string, number>();
  let refused = 0;
  let mostTables = 0;
  fc.assert(
    fc.property(fc.array(callArbitrary, { maxLength: MAX_STEPS, size: 'max' }), (calls) => {
      const scene = new Scene(t);
      calls.forEach((call, step) => {
        CALLS[call.what](scene, call);
        done.set(call.what, (done.get(call.what) ?? 0) + 1);
        if (step % 25 === 24) scene.verify();
      });
      const tables = [...scene.model.objects.values()].filter((object) => object instanceof HwptModel);
      mostTables = Math.max(mostTables, tables.length);
      refused += scene.refused;
      scene.close();
    }),
    { seed: SEED, numRuns: RUNS, reporter },
  );
  t.log(`${refused} refused; ${JSON.stringify(Object.fromEntries(done))}`);
  const total = [...done.values()].reduce((sum, n) => sum + n, 0);
  t.true(total >= CALLS_IN_ALL, `${total} calls`);
  t.true(refused > total / 20 && refused < total * 0.9);
  t.true(mostTables >= 3, 'several page tables at once');
});
