import test from 'ava';
import { IommufdCore } from '../../../runtime/core/core.js';
import { OBJ_ACCESS } from '../../../runtime/core/objects-layout.js';
import type { Access } from '../../../runtime/objects/access.js';
import { CoreBench, errnoOfFailure } from '../../kit/core-bench.js';

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

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** A bench whose program has no privilege but a limit, so that everything is charged, and whose drivers fail too. */
function wholeBench() {
  const scene = makeBench();
  const { bench } = scene;
  const { own } = bench.core;
  own.capabilities.delete(14);
  own.memlockBytes = 2 ** 20;
  bench.failures.hit = () => bench.core.allocFails('driver');
  // What the program holds of memory itself, to give back at the end.
  const held: [bigint, number][] = [];
  const { alloc, map } = bench.user;
  bench.user.alloc = (bytes, options) => {
    const va = alloc.call(bench.user, bytes, options);
    held.push([va, Number(bytes)]);
    return va;
  };
  bench.user.map = (file, offset, bytes) => {
    const va = map.call(bench.user, file, offset, bytes);
    held.push([va, Number(bytes ?? file.sizeBytes)]);
    return va;
  };
  const userVa = scattered(bench);
  return { ...scene, held, userVa };
}

/** Every ioctl and every kernel call of the core, in one life of an iommufd. */
function wholeLife({ bench, userVa }: ReturnType<typeof wholeBench>): void {
  const { fd, user, core } = bench;
  fd.setOption(0, 0n);
  const [first, second] = [fd.ioasAlloc().ioasId, fd.ioasAlloc().ioasId];
  fd.ioasAllowIovas(first, [
    { start: 0n, last: 0xff_ffffn },
    { start: 0x200_0000n, last: 0x2ff_ffffn },
  ]);
  fd.ioasIovaRanges(first);
  fd.ioasMap({ ioasId: first, userVa, length: 0x6000n, iova: 0x1000n });
  const { fd: memfd, file } = core.memfd(0x4000);
  user.map(file);
  fd.ioasMapFile({ ioasId: first, fd: memfd, length: 0x4000, iova: 0x20000n });
  const { fd: dmabuf, revoke } = core.dmabuf(0x2000);
  fd.ioasMapFile({ ioasId: first, fd: dmabuf, length: 0x2000, iova: 0x30000n });
  const held: [bigint, bigint][] = [];
  const access = fd.createAccess({
    needsPinPages: true,
    unmap: () => {
      for (const range of held.splice(0)) access.unpinPages(...range);
    },
  });
  const pin = (iova: bigint, length: bigint): void => {
    access.pinPages(iova, length, { writable: true });
    held.push([iova, length]);
  };
  access.attach(first);
  pin(0x2000n, 0x3000n);
  access.write(0x1000n, new Uint8Array(0x5000), { slowPath: true });
  access.read(0x1000n, new Uint8Array(0x10), { slowPath: true });
  access.read(0x21000n, new Uint8Array(0x2000));

  const { vfio, devId } = bench.bind(0);
  vfio.attach(first);
  const other = bench.bind(1);
  other.vfio.attach(first);
  pin(0x1000n, 0x6000n);
  pin(0x21000n, 0x1000n);
  fd.ioasMap({ ioasId: first, userVa, length: 0x4000n, iova: 0x10000n });
  fd.ioasMapFile({ ioasId: first, fd: memfd, start: 0x1000n, length: 0x2000 });
  fd.ioasMapFile({ ioasId: first, fd: dmabuf, length: 0x1000 });
  fd.ioasCopy({ dstIoasId: second, srcIoasId: first, srcIova: 0x2000n, length: 0x3000n });
  access.replace(second);
  other.vfio.attach(second);
  fd.ioasCopy({ dstIoasId: second, srcIoasId: first, srcIova: 0x1000n, length: 0x6000n });
  revoke(true);

  const parent = fd.hwptAlloc({ devId, ptId: second, flags: 1 }).hwptId;
  const guestVa = user.alloc(0x4000, { contiguous: true });
  fd.ioasMap({ ioasId: second, userVa: guestVa, length: 0x4000, iova: 0x100_0000n });
  const { viommuId } = fd.viommuAlloc({ devId, hwptId: parent, type: 2, data: new Uint8Array(16) });
  fd.vdeviceAlloc({ viommuId, devId, virtId: 3 });
  fd.veventqAlloc({ viommuId, type: 1, depth: 4 });
  fd.faultQueueAlloc();
  fd.hwQueueAlloc({ viommuId, type: 1, index: 0, iova: 0x100_0000n, length: 4096 });
  vfio.attach(fd.hwptAlloc({ devId, ptId: viommuId, dataType: 2, data: STE }).hwptId);
  fd.ioasUnmap({ ioasId: first, iova: 0x1000n, length: 0x6000n });
  access.destroy();
}

test('nth failure: wherever the core allocates, the call says so, and nothing leaks', (t) => {
  const sites = new Map<string, number>();
  const { allocFails } = IommufdCore.prototype;
  const counted = wholeBench();
  counted.bench.core.allocFails = (site) => {
    sites.set(site, (sites.get(site) ?? 0) + 1);
    return allocFails.call(counted.bench.core, site);
  };
  wholeLife(counted);
  t.log([...sites].map(([site, count]) => `${site} ${count}`).join(', '));
  const total = [...sites.values()].reduce((sum, count) => sum + count);
  t.true(total > 200, `${total} places to fail`);
  for (let nth = 1; nth <= total + 1; nth++) {
    const scene = wholeBench();
    const { bench } = scene;
    const { own } = bench.core;
    own.failNth.arm(nth);
    let errno = 0;
    try {
      wholeLife(scene);
    } catch (error) {
      errno = Number((error as { errno?: number }).errno ?? -1);
      if (errno < 0) throw error;
    }
    const { failedAt } = own.failNth;
    own.failNth.arm(0);
    const what = `failure ${nth} at ${failedAt}`;
    const expected = nth > total ? [0] : [errnoOfFailure(failedAt!)];
    // HWPT_ALLOC says so of a page table that is not found.
    if (failedAt === 'get_object') expected.push(22);
    // A page table that does not suit a device leads to the next one.
    if (failedAt === 'enforce_resv_regions') expected.push(0);
    if (!expected.includes(errno)) t.fail(`${what}: errno ${errno}`);
    for (const vfio of scene.vfios) vfio.close();
    // What is destroyed by its owner only: the access, if it was made.
    for (const access of bench.fd.ctx.published(OBJ_ACCESS) as Access[])
      if (!access.internal) {
        access.notifyUnmap(0n, U64_MAX);
        access.destroyAccess();
      }
    bench.fd.close();
    for (let fd = 3; fd < 32; fd++) own.files.close(fd);
    for (const [va, bytes] of scene.held) bench.user.free(va, bytes);
    if (bench.frameRefs() !== 0 || bench.user.account.pinnedVm !== 0 || own.user.lockedVm !== 0)
      t.fail(`${what}: ${bench.frameRefs()} frames, ${bench.user.account.pinnedVm} pinned left`);
    bench.assertNothingLeft(t, 0);
  }
});
