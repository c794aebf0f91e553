import test from 'ava';
import { Random, SEED } from '../../kit/random.js';
import { IOMMU_TEST_CMD, TestBench } from '../../kit/test-ioctl.js';

const CALLS = 20_000;

test(`whatever a caller puts into the test ioctl is an errno, and closing leaves nothing (SEED=${SEED})`, (t) => {
  const random = new Random(SEED);
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const { stdevId, idevId } = bench.mockDomain(ioasId, 4);
  const parent = bench.fd.hwptAlloc({ devId: idevId, ptId: ioasId, flags: 3 }).hwptId;
  const data = Uint8Array.of(1, 0, 0, 0);
  const viommuId = bench.fd.viommuAlloc({ devId: idevId, hwptId: parent, type: 0xdeadbeef }).viommuId;
  bench.fd.hwptAlloc({ devId: idevId, ptId: viommuId, dataType: 0xdead, data });
  bench.fd.vdeviceAlloc({ viommuId, devId: idevId, virtId: 5 });
  const va = bench.user.alloc(65536);
  bench.fd.ioasMap({ ioasId, userVa: va, length: 65536, iova: 0x100_0000n });
  const access = bench.createAccess(ioasId);

  const word = (): number =>
    random.chance(0.7)
      ? random.pick([
          0,
          1,
          2,
          3,
          4,
          5,
          8,
          access,
          access + 1,
          ioasId,
          stdevId,
          idevId,
          parent,
          viommuId,
          1024,
        ])
      : random.pick([0xffff_ffff, 0x8000_0000, 4096, random.u32()]);
  const quad = (): bigint =>
    random.pick([
      0n,
      1n,
      2048n,
      4096n,
      65536n,
      va,
      va + 4096n,
      0x100_0000n,
      0x100_0800n,
      2n ** 64n - 1n,
      1n << 63n,
    ]);
  const answers = new Map<number, number>();
  for (let i = 0; i < CALLS; i++) {
    const bytes = new Uint8Array(72);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, 72, true);
    view.setUint32(4, random.chance(0.98) ? 1 + random.below(23) : word(), true);
    view.setUint32(8, word(), true);
    for (let at = 16; at < 64; at += 8) {
      if (random.chance(0.6)) view.setBigUint64(at, quad(), true);
      else {
        view.setUint32(at, word(), true);
        view.setUint32(at + 4, word(), true);
      }
    }
    const status = bench.fd.ioctl(IOMMU_TEST_CMD, bytes);
    t.true(Number.isInteger(status), `${bytes}`);
    answers.set(status, (answers.get(status) ?? 0) + 1);
    // Room for more of what succeeds.
    if (random.chance(0.3)) {
      view.setUint32(0, 8, true);
      view.setUint32(4, 1 + random.below(64), true);
      bench.fd.ioctl(0x3b80, bytes.subarray(0, 8));
    }
    if (random.chance(0.3)) bench.core.own.files.close(4 + random.below(64));
  }
  t.true(answers.size > 6, JSON.stringify([...answers]));
  t.true((answers.get(0) ?? 0) > CALLS / 100);
  for (let fd = 3; fd < 4096; fd++) bench.core.own.files.close(fd);
  bench.fd.close();
  t.is(bench.fd.ctx.objectCount, 0);
  t.is(bench.mock?.deviceCount, 0);
  t.is(bench.checkPins(va, 16), 0);
});
