import test from 'ava';
import { CoreBench } from '../../kit/core-bench.js';

const STE = Uint8Array.from([1, ...new Array(15).fill(0)]);

/** Everything that can fail in a driver, in one life of an iommufd. Throws where Linux would answer an errno. */
function life(bench: CoreBench): void {
  const { fd, user } = bench;
  const [first, second] = [fd.ioasAlloc().ioasId, fd.ioasAlloc().ioasId];
  // Scattered memory: several runs a map, so that a later run of one area can fail.
  const userVa = scattered(bench);
  fd.ioasMap({ ioasId: first, userVa, length: 0x6000n, iova: 0x1000n });
  const { vfio, devId } = bench.bind(0);
  vfio.attach(first);
  const other = bench.bind(1);
  other.vfio.attach(first);
  fd.ioasMap({ ioasId: first, userVa, length: 0x4000n, iova: 0x10000n });
  fd.ioasCopy({ dstIoasId: second, srcIoasId: first, srcIova: 0x2000n, length: 0x3000n });
  other.vfio.attach(second);
  fd.ioasCopy({ dstIoasId: second, srcIoasId: first, srcIova: 0x1000n, length: 0x6000n });
  const parent = fd.hwptAlloc({ devId, ptId: second, flags: 1 }).hwptId;
  const { viommuId } = fd.viommuAlloc({ devId, hwptId: parent, type: 1 });
  fd.vdeviceAlloc({ viommuId, devId, virtId: 3 });
  vfio.attach(fd.hwptAlloc({ devId, ptId: viommuId, dataType: 2, data: STE }).hwptId);
  fd.ioasUnmap({ ioasId: second, iova: 0n, length: 0xffff_ffff_ffff_ffffn });
  user.alloc(0x1000);
}

/** Six user pages none of which follows another physically. */
function scattered(bench: CoreBench): bigint {
  const holes = Array.from({ length: 12 }, () => bench.frames.alloc(12));
  for (const [i, pfn] of holes.entries()) if (i % 2 === 0) bench.frames.free(pfn, 1);
  return bench.user.alloc(0x6000);
}

function makeBench(): { bench: CoreBench; vfios: { close(): void }[] } {
  const bench = new CoreBench({
    iommus: [{ privateDomains: true }, { privateDomains: true }],
    devices: [{ iommu: 0 }, { iommu: 1 }],
  });
  const vfios: { close(): void }[] = [];
  const open = bench.core.openVfio.bind(bench.core);
  bench.core.openVfio = (device) => {
    const vfio = open(device);
    vfios.push(vfio);
    return vfio;
  };
  return { bench, vfios };
}

test('nth failure: whichever driver call fails, the ioctl says so and nothing leaks', (t) => {
  const { bench } = makeBench();
  life(bench);
  const total = bench.failures.calls;
  t.true(total > 30, `${total} places to fail`);
  for (let nth = 1; nth <= total + 1; nth++) {
    const scene = makeBench();
    scene.bench.failures.arm(nth);
    let code = '';
    try {
      life(scene.bench);
    } catch (error) {
      code = String((error as { code?: string }).code);
    }
    if (nth <= total ? code !== 'ENOMEM' : code !== '') t.fail(`failure ${nth}: '${code}'`);
    // Pins beyond the mappings themselves are what the areas hold.
    for (const vfio of scene.vfios) vfio.close();
    scene.bench.fd.close();
    scene.bench.assertNothingLeft(t, mappedPages(scene.bench));
  }
});

/** References that user memory itself holds. */
function mappedPages(bench: CoreBench): number {
  let pages = 0;
  const first = bench.memory.ram.basePa / 4096;
  for (let i = 0; i < bench.memory.ram.bytes / 4096; i++) if (bench.user.refs(first + i) > 0) pages++;
  return pages;
}

test('nth failure: after a failed call the same call succeeds, as if nothing had been', (t) => {
  const { bench } = makeBench();
  const { fd, user } = bench;
  const { ioasId } = fd.ioasAlloc();
  const { vfio } = bench.bind(0);
  vfio.attach(ioasId);
  bench.bind(1).vfio.attach(ioasId);
  const userVa = scattered(bench);
  const before = bench.frameRefs();
  const map = () => fd.ioasMap({ ioasId, userVa, length: 0x6000n, iova: 0x1000n });
  bench.failures.arm(0);
  map();
  const calls = bench.failures.calls;
  t.is(calls, 12, 'six runs in each of two page tables');
  fd.ioasUnmap({ ioasId, iova: 0x1000n, length: 0x6000n });
  for (let nth = 1; nth <= calls; nth++) {
    bench.failures.arm(nth);
    t.throws(map, { code: 'ENOMEM' });
    t.is(bench.frameRefs(), before);
    bench.failures.arm(0);
    map();
    fd.ioasUnmap({ ioasId, iova: 0x1000n, length: 0x6000n });
  }
  t.is(user.free(userVa, 0x6000), 0);
});
