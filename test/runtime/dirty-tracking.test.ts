/** What a VMM does while it copies a guest's memory away: track, read, clear, and find what was written since. */
import test from 'ava';
import { createMachine } from '../../runtime/machine.js';
import { errnoOf } from '../kit/core-bench.js';

const BDF = '0000:01:00.0';
const TRACK = 2;
const IOVA = 0x4000_0000n;
const PAGES = 64;

function scene(pages = PAGES, compat?: '7.0' | 'fixed') {
  const machine = createMachine({
    compat,
    memory: '64MiB',
    iommus: [{ name: 'smmu', model: 'smmuv3' }],
    devices: [{ bdf: BDF, iommu: 'smmu' }],
  });
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const vfio = machine.openVfio(BDF);
  const { devId } = vfio.bindIommufd(fd);
  const { hwptId } = fd.hwptAlloc({ devId, ptId: ioasId, flags: TRACK });
  vfio.attach(hwptId);
  const length = BigInt(pages) * 4096n;
  const userVa = machine.user.alloc(Number(length), { chunkLg2: 12 });
  fd.ioasMap({ ioasId, userVa, length, iova: IOVA });
  const port = machine.dmaPort(BDF);
  const write = (page: number, bytes = 1) => port.write(IOVA + BigInt(page) * 4096n, new Uint8Array(bytes));
  /** Pages found dirty. */
  const dirty = (options: { noClear?: boolean } = {}) => {
    const bitmap = fd.hwptGetDirtyBitmap({ hwptId, iova: IOVA, length, ...options });
    return Array.from({ length: pages }, (_, i) => i).filter((i) => (bitmap[i >> 3]! >> (i & 7)) & 1);
  };
  return { machine, fd, ioasId, hwptId, port, write, dirty, vfio };
}

test('dirty tracking: what a device wrote since the last read, and nothing else', (t) => {
  const { machine, fd, hwptId, port, write, dirty } = scene();
  write(1);
  fd.hwptSetDirtyTracking(hwptId, true);
  t.deepEqual(dirty(), [], 'from all clean');
  t.is(write(3), 0);
  t.is(write(10, 4097), 0);
  t.is(port.read(IOVA + 0x5000n, new Uint8Array(8)), 0);
  t.deepEqual(dirty({ noClear: true }), [3, 10, 11]);
  t.deepEqual(dirty(), [3, 10, 11]);
  t.deepEqual(dirty(), []);
  machine.close();
});

test('dirty tracking: a write through a translation that was cached before the read is found by the next', (t) => {
  const { machine, fd, hwptId, write, dirty } = scene();
  fd.hwptSetDirtyTracking(hwptId, true);
  for (let round = 0; round < 5; round++) {
    write(7);
    write(7);
    t.deepEqual(dirty(), [7], `round ${round}`);
  }
  machine.close();
});

test('dirty tracking: parts of the range, and areas of a copy, are told apart', (t) => {
  const { machine, fd, ioasId, hwptId, write, port } = scene();
  fd.ioasCopy({ dstIoasId: ioasId, srcIoasId: ioasId, srcIova: IOVA, length: 0x4000n, dstIova: 0x1000n });
  fd.hwptSetDirtyTracking(hwptId, true);
  write(2);
  port.write(0x2000n, new Uint8Array(1));
  const read = (iova: bigint, length: bigint) => [...fd.hwptGetDirtyBitmap({ hwptId, iova, length })];
  t.deepEqual(read(IOVA + 0x1000n, 0x1000n), [0]);
  t.deepEqual(
    read(0x1000n, 0x4000n),
    [0b0010],
    'the same frames under another address have marks of their own',
  );
  t.deepEqual(read(IOVA, 0x4000n), [0b0100]);
  machine.close();
});

test('dirty tracking: a new mapping counts as written, as Linux maps it', (t) => {
  const { machine, fd, ioasId, hwptId, dirty } = scene(8);
  fd.hwptSetDirtyTracking(hwptId, true);
  const userVa = machine.user.alloc(0x1000);
  fd.ioasMap({ ioasId, userVa, length: 0x1000n, iova: 0x1000n });
  t.deepEqual(dirty(), []);
  t.deepEqual([...fd.hwptGetDirtyBitmap({ hwptId, iova: 0x1000n, length: 0x1000n })], [1]);
  t.deepEqual([...fd.hwptGetDirtyBitmap({ hwptId, iova: 0x1000n, length: 0x1000n })], [0]);
  machine.close();
});

for (const [compat, errno] of [
  ['7.0', 22],
  ['fixed', 0],
] as const)
  test(`dirty tracking over a dma-buf that was taken back, compat ${compat}`, (t) => {
    const { machine, fd, ioasId, hwptId, write, dirty } = scene(16, compat);
    const { fd: buffer, revoke } = machine.core.dmabuf(0x1000);
    // Before the pages that are written to, right behind them, and what comes after.
    const at = IOVA + 0x10000n;
    fd.ioasMapFile({ ioasId, fd: buffer, length: 0x1000, iova: at });
    const userVa = machine.user.alloc(0x1000);
    fd.ioasMap({ ioasId, userVa, length: 0x1000, iova: at + 0x1000n });
    fd.hwptSetDirtyTracking(hwptId, true);
    revoke(true);
    write(1);
    write(17);
    const all = [...fd.hwptGetDirtyBitmap({ hwptId, iova: IOVA, length: 0x12000n })];
    t.deepEqual(all, errno === 0 ? [2, 0, 2] : [2, 0, 0], 'Linux 7.0 reads up to it');
    t.deepEqual(dirty(), []);
    write(2);
    t.is(
      errnoOf(() => fd.hwptSetDirtyTracking(hwptId, true)),
      errno,
    );
    t.deepEqual(dirty(), [], 'what lies before it is clean either way');
    machine.close();
  });
