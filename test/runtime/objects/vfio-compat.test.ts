/** VFIO's container API on an iommufd: what each call answers, byte for byte. */
import test from 'ava';
import { createMachine } from '../../../runtime/machine.js';
import { VfioIoas } from '../../../uapi/iommufd/vfio-ioas.js';
import { VfioIommuType1DmaMap, VfioIommuType1DmaUnmap } from '../../../uapi/vfio/container.js';
import { CoreBench, type CoreBenchOptions, errnoOf, errnoOfFailure } from '../../kit/core-bench.js';

const [ENOENT, EFAULT, EEXIST, ENODEV, EINVAL, ENOTTY, EOVERFLOW, EOPNOTSUPP] = [
  2, 14, 17, 19, 22, 25, 75, 95,
];
const [GET_API_VERSION, CHECK_EXTENSION, SET_IOMMU] = [0x3b64, 0x3b65, 0x3b66];
const [GET_INFO, MAP_DMA, UNMAP_DMA, DIRTY_PAGES] = [0x3b70, 0x3b71, 0x3b72, 0x3b75];
const VFIO_IOAS = 0x3b88;
const [TYPE1, TYPE1V2, DMA_CC, NESTING, NOIOMMU, UNMAP_ALL, UPDATE_VADDR] = [1, 3, 4, 6, 8, 9, 10];
const [GET, SET, CLEAR] = [0, 1, 2];
const READ_WRITE = 3;
const PAGE = 4096;
const CAP_IPC_LOCK = 14;
const IOVA = 0x100_0000n;

const number = (value: number): Uint8Array => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer);

function scene(options: CoreBenchOptions = {}) {
  const bench = new CoreBench(options);
  const { fd } = bench;
  const ioas = (op: number, ioasId = 0, reserved = 0) => {
    const bytes = VfioIoas.toBytes({ size: 12, op, ioasId, reserved });
    const status = fd.ioctl(VFIO_IOAS, bytes);
    return { status, ioasId: VfioIoas.getField(bytes, 'ioasId') };
  };
  const map = (vaddr: bigint, pages: number, iova = IOVA, flags = READ_WRITE, argsz = 32) =>
    fd.ioctl(
      MAP_DMA,
      VfioIommuType1DmaMap.toBytes({ argsz, flags, vaddr, iova, size: BigInt(pages * PAGE) }),
    );
  const unmap = (iova: bigint, size: bigint, flags = 0, argsz = 24) => {
    const bytes = VfioIommuType1DmaUnmap.toBytes({ argsz, flags, iova, size });
    const status = fd.ioctl(UNMAP_DMA, bytes);
    return { status, size: VfioIommuType1DmaUnmap.getField(bytes, 'size') };
  };
  return { bench, fd, ioas, map, unmap };
}

/** With a compatibility IOAS, and a device attached to it. */
function mapped(options: CoreBenchOptions = {}, type = TYPE1V2) {
  const s = scene(options);
  const { ioasId } = s.fd.ioasAlloc();
  s.ioas(SET, ioasId);
  if (s.fd.ioctl(SET_IOMMU, number(type)) !== 0) throw new Error('SET_IOMMU');
  const { vfio } = s.bench.bind();
  vfio.attach(ioasId);
  const va = s.bench.user.alloc('64KiB');
  return { ...s, ioasId, vfio, va };
}

test('VFIO container: what it answers before it has an IOAS', (t) => {
  const { fd, map, unmap } = scene();
  t.is(fd.ioctl(GET_API_VERSION, new Uint8Array(0)), 0);
  const extensions: [number, number][] = [
    [TYPE1, 1],
    [TYPE1V2, 1],
    [UNMAP_ALL, 1],
    [DMA_CC, -ENODEV],
    [NESTING, 0],
    [NOIOMMU, 0],
    [UPDATE_VADDR, 0],
    [2, 0],
    [4_000_000_000, 0],
    [2 ** 40 + TYPE1, 0],
  ];
  for (const [extension, answer] of extensions)
    t.is(fd.ioctl(CHECK_EXTENSION, number(extension)), answer, `extension ${extension}`);
  for (const type of [TYPE1, TYPE1V2]) t.is(fd.ioctl(SET_IOMMU, number(type)), -ENODEV);
  for (const type of [0, 2, NOIOMMU, 2 ** 32 + TYPE1]) t.is(fd.ioctl(SET_IOMMU, number(type)), -EINVAL);
  t.is(fd.ioctl(DIRTY_PAGES, new Uint8Array(64)), -ENOTTY);
  for (const cmd of [0x3b67, 0x3b7f, 0x3b95, 0x3b9f, 0x3bff, 0x40083b71, 0x3c71])
    t.is(fd.ioctl(cmd, new Uint8Array(64)), -ENOTTY, cmd.toString(16));
  t.is(fd.ioctl(MAP_DMA, new Uint8Array(31)), -EFAULT);
  t.is(map(0n, 1, IOVA, READ_WRITE, 31), -EINVAL);
  t.is(map(0n, 1, IOVA, 4), -EINVAL, 'VADDR');
  t.is(map(0n, 1), -ENODEV);
  t.is(fd.ioctl(UNMAP_DMA, new Uint8Array(23)), -EFAULT);
  t.is(unmap(0n, 0n, 0, 23).status, -EINVAL);
  t.is(unmap(0n, 0n, 1).status, -EINVAL, 'GET_DIRTY_BITMAP');
  t.is(unmap(0n, 0n).status, -ENODEV);
  t.is(fd.ioctl(GET_INFO, new Uint8Array(15)), -EFAULT);
  t.is(fd.ioctl(GET_INFO, new Uint8Array(16)), -EINVAL);
  t.is(fd.ioctl(GET_INFO, Uint8Array.of(16, ...new Uint8Array(15))), -ENODEV);
});

test('VFIO_IOAS: says which IOAS it is, sets it, forgets it, and forgets one that is destroyed', (t) => {
  const { fd, ioas, bench } = scene();
  const { ioasId } = fd.ioasAlloc();
  const { devId } = bench.bind();
  t.is(ioas(GET).status, -ENODEV);
  t.is(ioas(SET, 77).status, -ENOENT);
  t.is(ioas(SET, devId).status, -ENOENT, 'not an IOAS');
  t.is(ioas(3).status, -EOPNOTSUPP);
  t.is(ioas(GET, 0, 1).status, -EOPNOTSUPP, 'reserved');
  t.is(ioas(SET, ioasId).status, 0);
  t.deepEqual(ioas(GET), { status: 0, ioasId });
  t.is(ioas(CLEAR).status, 0);
  t.is(ioas(CLEAR).status, 0);
  t.is(ioas(GET).status, -ENODEV);
  ioas(SET, ioasId);
  fd.destroy(ioasId);
  t.is(ioas(GET).status, -ENODEV);
  t.is(fd.ioctl(SET_IOMMU, number(TYPE1V2)), -ENODEV);
});

for (const type of [TYPE1, TYPE1V2])
  test(`VFIO type ${type}: maps at the given IOVA, and unmaps what is there`, (t) => {
    const { bench, fd, map, unmap, va, vfio, ioasId } = mapped({}, type);
    const before = bench.frameRefs();
    t.is(fd.ioctl(CHECK_EXTENSION, number(DMA_CC)), 0, 'a page table that does not force coherence');
    t.is(map(va, 4), 0);
    t.is(map(va, 1, IOVA + 0x3000n), -EEXIST);
    t.is(map(va, 1, IOVA + 0x4001n), -EINVAL);
    t.is(map(va, 0), -EINVAL);
    t.is(map(0x10n ** 15n, 1, IOVA + 0x8000n), -EFAULT, 'nothing mapped there');
    t.deepEqual(unmap(IOVA, 0x4000n), { status: 0, size: 0x4000n });
    t.deepEqual(unmap(IOVA, 0x4000n), { status: 0, size: 0n }, 'nothing is no failure');
    t.deepEqual(unmap(IOVA, 0n), { status: -EINVAL, size: 0n });
    t.deepEqual(unmap(0xffff_ffff_ffff_f000n, 0x2000n), { status: -EOVERFLOW, size: 0n });
    map(va, 2);
    map(va, 3, IOVA + 0x10_0000n);
    t.deepEqual(unmap(IOVA, 0n, 2), { status: -EINVAL, size: 0n }, 'ALL takes no range');
    t.deepEqual(unmap(0n, 0x1000n, 2), { status: -EINVAL, size: 0x1000n }, 'and leaves its struct alone');
    t.deepEqual(unmap(0n, 0n, 2), { status: 0, size: 0x5000n });
    t.deepEqual(unmap(0n, 0n, 2), { status: 0, size: 0n });
    t.is(bench.frameRefs(), before);
    vfio.close();
    fd.destroy(ioasId);
  });

test('VFIO type 1 v2: a part of a mapping is ENOENT; v1 cuts it out, in any order', (t) => {
  const second = mapped({}, TYPE1V2);
  second.map(second.va, 16);
  t.deepEqual(second.unmap(IOVA + 0x2000n, 0x1000n), { status: -ENOENT, size: 0n });
  t.deepEqual(second.unmap(IOVA, 0x10000n), { status: 0, size: 0x10000n });
  second.vfio.close();

  const { bench, fd, map, unmap, va, vfio, ioasId } = mapped({}, TYPE1);
  const before = bench.frameRefs();
  t.is(map(va, 16), 0);
  const order = [5, 0, 15, 7, 6, 1, 14, 2, 3, 4, 13, 8, 10, 9, 12, 11];
  for (const [done, page] of order.entries()) {
    const at = IOVA + BigInt(page * PAGE);
    t.deepEqual(unmap(at, 0x1000n), { status: 0, size: 0x1000n }, `page ${page}`);
    t.deepEqual(unmap(at, 0x1000n), { status: 0, size: 0n });
    t.is(bench.frameRefs() - before, 15 - done);
  }
  map(va, 4);
  t.deepEqual(unmap(IOVA + 0x1000n, 0x10_0000n), { status: 0, size: 0x3000n }, 'an end outside');
  t.deepEqual(unmap(0n, IOVA + 0x1000n), { status: 0, size: 0x1000n }, 'from 0 on there is one cut');
  t.is(map(va + 1n, 1, IOVA), -EINVAL, 'areas are whole pages');
  vfio.close();
  fd.destroy(ioasId);
});

test('VFIO type 1: the first version comes too late once large pages may be mapped', (t) => {
  const { fd, map, va, vfio } = mapped({}, TYPE1V2);
  map(va, 2);
  t.is(fd.ioctl(SET_IOMMU, number(TYPE1)), -EINVAL);
  t.is(fd.ioctl(SET_IOMMU, number(TYPE1V2)), 0);
  vfio.close();
});

const u32 = (bytes: Uint8Array, at: number) => new DataView(bytes.buffer).getUint32(at, true);
const u64 = (bytes: Uint8Array, at: number) => new DataView(bytes.buffer).getBigUint64(at, true);

test('VFIO GET_INFO: page sizes, and the chain as far as argsz reaches, never beyond', (t) => {
  const reserved = [{ firstPage: 0x8000, lastPage: 0x80ff }];
  const { fd, vfio } = mapped({
    iommus: [{ pageSizesLg2: [12, 21, 30], reserved, aperture: { firstUnit: 0, lastUnit: 0xf_ffff } }],
  });
  const info = (argsz: number) => {
    const bytes = new Uint8Array(200).fill(0xaa);
    new DataView(bytes.buffer).setUint32(0, argsz, true);
    t.is(fd.ioctl(GET_INFO, bytes), 0);
    t.true(
      bytes.subarray(argsz).every((byte) => byte === 0xaa),
      `argsz ${argsz} stays inside`,
    );
    return bytes;
  };
  // 24, DMA_AVAIL 12 and 4 of padding, IOVA_RANGE 16 and two ranges.
  const WHOLE = 24 + 16 + 16 + 32;
  const first = info(16);
  t.deepEqual([u32(first, 0), u32(first, 4), u64(first, 8)], [WHOLE, 3, 0x4020_1000n]);
  for (let argsz = 24; argsz < WHOLE; argsz++) t.is(u32(info(argsz), 16), 0, 'no chain that does not end');
  const all = info(WHOLE);
  t.is(u32(all, 16), 24);
  t.deepEqual([u32(all, 24), u32(all, 28), u32(all, 32)], [0x1_0003, 40, 0xffff_ffff]);
  t.deepEqual([u32(all, 40), u32(all, 44), u32(all, 48), u32(all, 52)], [0x1_0001, 0, 2, 0]);
  t.deepEqual([u64(all, 56), u64(all, 64)], [0n, 0x7ff_ffffn]);
  t.deepEqual([u64(all, 72), u64(all, 80)], [0x810_0000n, 0xffff_ffffn]);
  const short = new Uint8Array(60);
  new DataView(short.buffer).setUint32(0, WHOLE, true);
  t.is(fd.ioctl(GET_INFO, short), -EFAULT, 'memory that ends before argsz');
  vfio.close();
});

test('VFIO GET_INFO: pages smaller than the CPU’s are told as its own; without a device, every size', (t) => {
  const { fd, vfio, ioasId } = mapped({ iommus: [{ pageSizesLg2: [11, 12, 21] }] });
  const sizes = () => {
    const bytes = Uint8Array.of(16, ...new Uint8Array(15));
    t.is(fd.ioctl(GET_INFO, bytes), 0);
    return u64(bytes, 8);
  };
  t.is(sizes(), 0x20_1000n);
  vfio.close();
  t.is(sizes(), 0xffff_ffff_ffff_f000n);
  fd.destroy(ioasId);
});

test('VFIO MAP_DMA: neither readable nor writeable is for the page table to refuse', (t) => {
  const s = scene();
  const { ioasId } = s.fd.ioasAlloc();
  s.ioas(SET, ioasId);
  const va = s.bench.user.alloc('4KiB');
  t.is(s.map(va, 1, IOVA, 0), 0, 'no page table yet');
});

test('VFIO container on a machine: the first device makes its IOAS; v1 cuts and DMA finds the hole', (t) => {
  const machine = createMachine({
    memory: '64MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [
      { bdf: '0000:01:00.0', iommu: 'smmu0' },
      { bdf: '0000:02:00.0', iommu: 'smmu0' },
    ],
  });
  const container = machine.openVfioContainer();
  t.is(container.apiVersion(), 0);
  t.is(container.checkExtension(TYPE1), 1);
  t.is(container.ioasId, null);
  t.is(
    errnoOf(() => container.setIommu(TYPE1)),
    ENODEV,
  );
  const vfio = container.openDevice(machine.device('0000:01:00.0'));
  const other = container.openDevice(machine.device('0000:02:00.0'));
  t.is(container.iommufd.ctx.objectCount, 4, 'an IOAS, a page table, two devices');
  container.setIommu(TYPE1);
  const info = container.info();
  t.is(info.dmaAvail, 0xffff_ffff);
  t.is(info.pageSizes & 0xfffn, 0n);
  t.true((info.pageSizes & 0x1000n) !== 0n);
  t.is(info.ranges[0]!.start, 0n);
  const vaddr = machine.user.alloc('4MiB');
  machine.core.own.capabilities.delete(CAP_IPC_LOCK);
  t.is(machine.core.own.mm.account.lockedVm, 0);
  container.mapDma({ vaddr, iova: 0x4000_0000n, size: '4MiB' });
  t.is(machine.core.own.mm.account.lockedVm, 1024, 'charged to the process, as VFIO does');
  for (const label of ['0000:01:00.0', '0000:02:00.0']) {
    const dma = machine.dmaPort(label);
    t.is(dma.write(0x4010_0000n, Uint8Array.of(1)), 0);
  }
  t.is(container.unmapDma({ iova: 0x4010_0000n, size: 4096 }).size, 4096n);
  const dma = machine.dmaPort('0000:01:00.0');
  t.is(dma.write(0x400f_f000n, Uint8Array.of(1)), 0);
  t.is(dma.write(0x4010_0000n, Uint8Array.of(1)), 0x10, 'F_TRANSLATION');
  t.is(dma.write(0x4010_1000n, Uint8Array.of(1)), 0);
  t.is(
    errnoOf(() =>
      container.mapDma({ vaddr, iova: 0x5000_0000n, size: 4096, readable: false, writeable: false }),
    ),
    EINVAL,
  );
  t.is(container.unmapDma().size, BigInt(4 * 2 ** 20 - 4096));
  t.is(machine.core.own.mm.account.lockedVm, 0);
  vfio.close();
  other.close();
  container.close();
  machine.close();
});

test('VFIO container: whichever allocation fails, nothing is left behind', (t) => {
  let fired = 0;
  for (let nth = 1; ; nth++) {
    const bench = new CoreBench();
    const before = bench.frameRefs();
    const vaddr = bench.user.alloc('64KiB');
    const { failNth } = bench.core.own;
    const container = bench.core.openContainer();
    const answers: number[] = [];
    failNth.arm(nth);
    const device = bench.devices[0]!;
    let vfio: ReturnType<typeof container.openDevice> | null = null;
    answers.push(
      errnoOf(() => {
        vfio = container.openDevice(device);
      }),
    );
    const { ioasId } = container;
    if (ioasId !== null) {
      answers.push(errnoOf(() => container.setIommu(TYPE1)));
      answers.push(errnoOf(() => container.mapDma({ vaddr, iova: IOVA, size: '64KiB' })));
      answers.push(errnoOf(() => container.unmapDma({ iova: IOVA + 0x2000n, size: 0x3000 })));
      answers.push(errnoOf(() => container.info()));
      answers.push(errnoOf(() => container.unmapDma()));
    }
    const site = failNth.failedAt;
    failNth.arm(0);
    (vfio as { close(): void } | null)?.close();
    container.close();
    bench.user.free(vaddr, 64 * 1024);
    bench.assertNothingLeft(t, before);
    t.is(bench.core.openDevices.size, 0, `${site} keeps the device`);
    if (site === null) {
      t.deepEqual(answers, [0, 0, 0, 0, 0, 0]);
      break;
    }
    fired++;
    const failed = answers.filter((errno) => errno !== 0);
    t.is(failed[0], errnoOfFailure(site), `${site}: ${answers}`);
  }
  t.true(fired > 8, `${fired} places`);
});
