/**
 * IOAS_MAP and IOAS_UNMAP of whole pages are served from the caller's bytes. A struct that is longer than it needs
 * to be takes the general way: whatever is asked, both must answer the same and leave the same behind.
 */
import test from 'ava';
import { CoreBench } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';
import { Random, SEED } from '../../kit/random.js';

const [MAP, UNMAP] = [0x3b85, 0x3b86];
const [MAP_BYTES, UNMAP_BYTES] = [40, 24];
const USER_BYTES = 0x40000;
const OPERATIONS = 4000;

/** One IOAS on a machine of its own, with a device attached or without. */
function side(withDevice: boolean) {
  const bench = new CoreBench();
  const { ioasId } = bench.fd.ioasAlloc();
  if (withDevice) bench.bind().vfio.attach(ioasId);
  // The second allocation lies apart from the first, physically too.
  const userVa = [bench.user.alloc(USER_BYTES), bench.user.alloc(USER_BYTES, { chunkLg2: 12 })];
  return { bench, fd: bench.fd, ioasId, userVa };
}

type Side = ReturnType<typeof side>;

const pages = (s: Side) =>
  [...((s.bench.iommus[0]!.attached.get(0) as FakeDomain | undefined)?.entries ?? [])].sort(
    ([a], [b]) => a - b,
  );

/** Little-endian words of a request, `extra` zero bytes behind it. */
function request(
  bytes: number,
  extra: number,
  words: readonly number[],
  quads: readonly bigint[],
): Uint8Array {
  const out = new Uint8Array(bytes + extra);
  const view = new DataView(out.buffer);
  view.setUint32(0, bytes + extra, true);
  words.forEach((word, i) => {
    view.setUint32(4 + 4 * i, word, true);
  });
  quads.forEach((quad, i) => {
    view.setBigUint64(4 + 4 * words.length + 8 * i, quad, true);
  });
  return out;
}

for (const withDevice of [false, true])
  test(`map and unmap: the direct way answers as the general one, ${withDevice ? 'with a device' : 'without'}`, (t) => {
    t.log(`SEED=${SEED}`);
    const random = new Random(SEED);
    const [direct, general] = [side(withDevice), side(withDevice)];
    t.deepEqual(direct.userVa, general.userVa);
    const end = 1n << 64n;
    const page = () => BigInt(random.below(48)) << 12n;
    const length = () =>
      random.pick([0x1000n, 0x1000n, 0x2000n, 0x5000n, 0n, 0x800n, end - 0x1000n, end - 1n]);
    const iova = () =>
      random.chance(0.9)
        ? 0x10_0000n + page()
        : random.pick([0n, 0x10_0800n, 1n << 48n, (1n << 48n) - 0x1000n, end - 0x1000n, end - 1n]);
    const va = () =>
      random.chance(0.9)
        ? random.pick(direct.userVa) + page()
        : random.pick([0n, direct.userVa[0]! + 0x800n, end - 0x1000n, end - 1n]);
    const outcomes = new Map<number, number>();
    for (let i = 0; i < OPERATIONS; i++) {
      const id = random.chance(0.98) ? direct.ioasId : 77;
      const map = random.chance(0.5);
      const flags = random.chance(0.9) ? 7 : random.below(16);
      const reserved = random.chance(0.98) ? 0 : 1;
      const build: (extra: number) => Uint8Array = map
        ? (
            (words, quads) => (extra: number) =>
              request(MAP_BYTES, extra, words, quads)
          )([flags, id, reserved], [va(), length(), iova()])
        : (
            (quads) => (extra: number) =>
              request(UNMAP_BYTES, extra, [id], quads)
          )([iova(), length()]);
      const [a, b] = [build(0), build(8)];
      const before = a.slice();
      const status = direct.fd.ioctl(map ? MAP : UNMAP, a);
      t.is(status, general.fd.ioctl(map ? MAP : UNMAP, b), `operation ${i}: ${before}`);
      t.deepEqual(a.subarray(4), b.subarray(4, a.length), `outputs of operation ${i}: ${before}`);
      outcomes.set(status, (outcomes.get(status) ?? 0) + 1);
      if (i % 500 === 0) t.deepEqual(pages(direct), pages(general));
    }
    t.deepEqual(pages(direct), pages(general));
    t.is(direct.bench.frameRefs(), general.bench.frameRefs());
    t.true((outcomes.get(0) ?? 0) > OPERATIONS / 20);
    t.true(outcomes.size >= 5, 'several kinds of refusal');
  });

test('map: a struct that ends before the caller says is -EFAULT, direct or not', (t) => {
  const { fd, ioasId, userVa } = side(false);
  const whole = request(MAP_BYTES, 0, [7, ioasId, 0], [userVa[0]!, 0x1000n, 0x1000n]);
  t.is(fd.ioctl(MAP, whole.subarray(0, 39)), -14);
  t.is(fd.ioctl(MAP, whole), 0);
});

test('map: a length whose pages cannot be counted is -EINVAL before what is mapped is looked at', (t) => {
  const { fd, ioasId, userVa } = side(false);
  t.is(fd.ioctl(MAP, request(MAP_BYTES, 0, [7, ioasId, 0], [userVa[0]!, 0x1000n, 0x1000n])), 0);
  for (const extra of [0, 8])
    t.is(fd.ioctl(MAP, request(MAP_BYTES, extra, [7, ioasId, 0], [0n, (1n << 64n) - 0x1000n, 0n])), -22);
});
