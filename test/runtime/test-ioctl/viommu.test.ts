import test from 'ava';
import { errnoOf } from '../../kit/core-bench.js';
import { TestBench } from '../../kit/test-ioctl.js';

const [ENOENT, EIO, ENXIO, ENOMEM, EBUSY, EEXIST] = [2, 5, 6, 12, 16, 17];
const [EINVAL, EOPNOTSUPP, E2BIG] = [22, 95, 7];
const [REPLACE, CHECK_IOTLB, CHECK_CACHE, TRIGGER_VEVENT] = [10, 14, 16, 17];
const TYPE = 0xdeadbeef;
const EVENTS = 0xbeefbeef;
const DATA = { dataType: 0xdead, data: Uint8Array.of(0xef, 0xbe, 0xad, 0x0b) };
const IOTLB = 0x0badbeef;
const CACHE = 0xbaddad;
const PAGE = 4096n;

/** A device, a nest parent and a vIOMMU on it. */
function guest() {
  const bench = new TestBench();
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  const { stdevId, idevId, hwptId } = bench.mockDomain(ioasId);
  const parent = fd.hwptAlloc({ devId: idevId, ptId: ioasId, flags: 1 }).hwptId;
  const { viommuId } = fd.viommuAlloc({ devId: idevId, hwptId: parent, type: TYPE });
  const word = (op: number, id: number, index: number, value: number) =>
    bench.run(op, id, [
      [0, 4, index],
      [4, 4, value],
    ]).status;
  const replace = (ptId: number) => bench.run(REPLACE, stdevId, [[0, 4, ptId]]).status;
  return { bench, fd, ioasId, stdevId, idevId, hwptId, parent, viommuId, word, replace };
}

/** u32 words as bytes. */
const words = (...values: number[]) => new Uint8Array(Uint32Array.from(values).buffer);

function invalidate(
  bench: TestBench,
  hwptId: number,
  dataType: number,
  entryLen: number,
  entries: Uint8Array,
) {
  const va = bench.user.alloc(4096);
  bench.user.copyOut(va, entries);
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 32, true);
  view.setUint32(4, hwptId, true);
  view.setBigUint64(8, va, true);
  view.setUint32(16, dataType, true);
  view.setUint32(20, entryLen, true);
  view.setUint32(24, entryLen === 0 ? 0 : Math.floor(entries.byteLength / entryLen), true);
  const status = bench.fd.ioctl(0x3b8d, bytes);
  return [status, view.getUint32(24, true)];
}

test('VIOMMU_ALLOC: of type SELFTEST, on a parent of the mock', (t) => {
  const { fd, idevId, parent, hwptId } = guest();
  const alloc = (type: number, hwpt: number, flags = 0) =>
    errnoOf(() => fd.viommuAlloc({ devId: idevId, hwptId: hwpt, type, flags }));
  t.is(alloc(TYPE, parent), 0);
  t.is(alloc(1, parent), EOPNOTSUPP);
  t.is(alloc(TYPE, parent, 1), EOPNOTSUPP);
  t.is(alloc(TYPE, hwptId), EINVAL, 'no nest parent');
});

test('VIOMMU_ALLOC: data comes back, and is seen in a page to be mapped', (t) => {
  const { bench, fd, idevId, parent } = guest();
  // The typed calls take a page for arguments, once.
  fd.getHwInfo({ devId: idevId });
  const free = () => bench.frames.freePages();
  const before = free();
  const made = fd.viommuAlloc({
    devId: idevId,
    hwptId: parent,
    type: TYPE,
    data: words(0x12345678, 0, 0, 0, 0, 0),
  });
  const view = new DataView(made.data.buffer, made.data.byteOffset);
  t.is(view.getUint32(4, true), 0x12345678);
  const offset = view.getBigUint64(8, true);
  const length = view.getBigUint64(16, true);
  t.is(length, 2n * PAGE);
  t.is(
    errnoOf(() => fd.mmap({ offset: offset + PAGE, length })),
    ENXIO,
  );
  t.is(
    errnoOf(() => fd.mmap({ offset, length: PAGE })),
    ENXIO,
  );
  const page = fd.mmap({ offset, length });
  t.deepEqual([...page.view.subarray(0, 5)], [0x78, 0x56, 0x34, 0x12, 0]);
  t.is(
    errnoOf(() => fd.destroy(made.viommuId)),
    EBUSY,
  );
  page.unmap();
  fd.destroy(made.viommuId);
  t.is(free(), before, 'the page is given back');
  const alloc = (data: Uint8Array) =>
    errnoOf(() => fd.viommuAlloc({ devId: idevId, hwptId: parent, type: TYPE, data }));
  t.is(alloc(words(1)), EINVAL, 'shorter than its first version');
  t.is(alloc(words(1, 2)), 0);
  t.is(alloc(words(1, 2, 3, 4, 5, 6, 7)), EINVAL, 'longer than any');
});

test('a nested page table on a vIOMMU needs a vDEVICE to be attached', (t) => {
  const { fd, idevId, viommuId, replace, word } = guest();
  const nested = fd.hwptAlloc({ devId: idevId, ptId: viommuId, ...DATA }).hwptId;
  t.is(word(CHECK_IOTLB, nested, 0, IOTLB), 0);
  t.is(replace(nested), -ENOENT);
  fd.vdeviceAlloc({ viommuId, devId: idevId, virtId: 0x99 });
  t.is(replace(nested), 0);
  t.is(
    errnoOf(() => fd.hwptAlloc({ devId: idevId, ptId: viommuId, flags: 1, ...DATA })),
    EOPNOTSUPP,
  );
  t.is(
    errnoOf(() => fd.hwptAlloc({ devId: idevId, ptId: viommuId, ...DATA, dataType: 2 })),
    EOPNOTSUPP,
  );
});

test('HWPT_INVALIDATE of a nested page table: entry by entry, and how many is told', (t) => {
  const { bench, fd, idevId, parent, word } = guest();
  const nested = fd.hwptAlloc({ devId: idevId, ptId: parent, ...DATA }).hwptId;
  const inv = (bytes: Uint8Array, entryLen = 8, type = TYPE) =>
    invalidate(bench, nested, type, entryLen, bytes);
  t.deepEqual(inv(words(0, 1)), [0, 1]);
  t.is(word(CHECK_IOTLB, nested, 1, 0), 0);
  t.is(word(CHECK_IOTLB, nested, 0, IOTLB), 0);
  t.deepEqual(inv(words(0, 0, 0, 4)), [-EINVAL, 1], 'no fifth word');
  t.is(word(CHECK_IOTLB, nested, 0, 0), 0, 'the entry before it took effect');
  t.deepEqual(inv(words(0, 2, 2, 0)), [-EOPNOTSUPP, 1], 'an unknown flag');
  t.deepEqual(inv(words(1, 0)), [0, 1], 'all of them');
  t.is(word(CHECK_IOTLB, nested, 3, 0), 0);
  t.deepEqual(inv(words(0, 0), 8, 0xdadbeef), [-EINVAL, 0]);
  t.deepEqual(inv(new Uint8Array(0)), [0, 0], 'whether the type is known');
  t.deepEqual(inv(new Uint8Array(0), 8, 0xdadbeef), [-EINVAL, 0]);
  t.deepEqual(inv(words(0), 4), [-EINVAL, 0], 'entries that are too short');
  t.deepEqual(inv(words(0, 0, 0), 12), [-EINVAL, 0], 'too long');
});

test('HWPT_INVALIDATE of a vIOMMU: words of devices, by virtual ID, all entries read first', (t) => {
  const { bench, fd, idevId, viommuId, word } = guest();
  fd.vdeviceAlloc({ viommuId, devId: idevId, virtId: 0x99 });
  const inv = (bytes: Uint8Array, entryLen = 12, type = TYPE) =>
    invalidate(bench, viommuId, type, entryLen, bytes);
  t.deepEqual(inv(words(0, 0x99, 0, 0, 0x99, 2)), [0, 2]);
  for (const [index, value] of [0, CACHE, 0, CACHE].entries())
    t.is(word(CHECK_CACHE, idevId, index, value), 0);
  t.deepEqual(inv(words(0, 0x99, 1, 0, 0x98, 1)), [-EINVAL, 1], 'no such vDEVICE');
  t.is(word(CHECK_CACHE, idevId, 1, 0), 0);
  t.deepEqual(inv(words(0, 0x99, 4)), [-EINVAL, 0]);
  t.deepEqual(inv(words(2, 0x99, 0)), [-EOPNOTSUPP, 0]);
  t.deepEqual(inv(words(1, 0x99, 0)), [0, 1]);
  t.is(word(CHECK_CACHE, idevId, 3, 0), 0);
  t.deepEqual(inv(new Uint8Array(0)), [0, 0]);
  t.deepEqual(inv(new Uint8Array(0), 12, 0xdadbeef), [-EINVAL, 0]);
  t.deepEqual(inv(words(0, 0x99, 0, 0), 16), [0, 1], 'a longer entry that ends in zeroes');
  t.deepEqual(inv(words(0, 0x99, 0, 1), 16), [-E2BIG, 0]);
});

test('HWPT_INVALIDATE of anything else of the mock is EINVAL', (t) => {
  const { bench, parent } = guest();
  t.deepEqual(invalidate(bench, parent, TYPE, 8, words(0, 0)), [-EINVAL, 0]);
});

test('TRIGGER_VEVENT reaches the queue of the vIOMMU that the device is on', (t) => {
  const { bench, fd, idevId, viommuId, replace } = guest();
  const trigger = () => bench.run(TRIGGER_VEVENT, 0, [[0, 4, idevId]]).status;
  fd.vdeviceAlloc({ viommuId, devId: idevId, virtId: 0x99 });
  t.is(trigger(), -ENOENT, 'not attached through the vIOMMU');
  const nested = fd.hwptAlloc({ devId: idevId, ptId: viommuId, ...DATA }).hwptId;
  t.is(replace(nested), 0);
  t.is(trigger(), -EOPNOTSUPP, 'nobody listens');
  const queue = fd.veventqAlloc({ viommuId, type: EVENTS, depth: 2 });
  t.is(trigger(), 0);
  t.deepEqual([...queue.read(100)], [...words(0, 0, 0x99)]);
  // The first place is the look-up of the device.
  bench.core.own.failNth.arm(2);
  t.is(trigger(), -ENOMEM);
  bench.core.own.failNth.arm(0);
  t.deepEqual([...queue.read(100)], [...words(1, 1)], 'lost, which the queue says');
  t.is(bench.run(TRIGGER_VEVENT, 0, [[0, 4, 99]]).status, -ENOENT);
});

test('HW_QUEUE_ALLOC: two queues, the second after the first', (t) => {
  const { bench, fd, ioasId, viommuId } = guest();
  const userVa = bench.user.alloc(16384, { contiguous: true });
  const iova = 0x200_0000n;
  fd.ioasMap({ ioasId, userVa, length: 2n * PAGE, iova });
  const queue = (index: number, at = iova, type = TYPE) =>
    fd.hwQueueAlloc({ viommuId, type, index, iova: at, length: PAGE }).hwQueueId;
  t.is(
    errnoOf(() => queue(0, iova, 1)),
    EOPNOTSUPP,
  );
  t.is(
    errnoOf(() => queue(2)),
    EINVAL,
  );
  t.is(
    errnoOf(() => queue(1)),
    EIO,
  );
  t.is(
    errnoOf(() => queue(0, iova + 4n * PAGE)),
    ENOENT,
  );
  const first = queue(0);
  t.is(
    errnoOf(() => queue(0)),
    EEXIST,
  );
  const second = queue(1, iova + 100n);
  t.is(
    errnoOf(() => fd.destroy(first)),
    EBUSY,
  );
  t.is(
    errnoOf(() => fd.ioasUnmap({ ioasId, iova, length: 2n * PAGE })),
    EBUSY,
  );
  fd.destroy(second);
  fd.destroy(first);
  fd.ioasUnmap({ ioasId, iova, length: 2n * PAGE });
});

test('a page table of the mock can be the one with large pages alone', (t) => {
  const { bench, fd, idevId, ioasId } = guest();
  const alloc = (type: number, flags = 0) =>
    fd.hwptAlloc({ devId: idevId, ptId: ioasId, flags, dataType: 0xdead, data: words(0, type) }).hwptId;
  const huge = alloc(1);
  t.is(fd.ioasIovaRanges(ioasId).alignment, PAGE);
  const userVa = bench.user.alloc('4MiB');
  const iova = 0x200_0000n;
  fd.ioasMap({ ioasId, userVa, length: 0x20_0000n, iova });
  t.is(bench.checkMap(huge, iova, 0x20_0000n, userVa), 0);
  t.is(bench.checkMap(huge, iova, 2048n, userVa), -EINVAL, 'its smallest page has 4 KiB');
  t.is(
    errnoOf(() => alloc(2)),
    EOPNOTSUPP,
  );
  t.is(
    errnoOf(() => fd.hwptAlloc({ devId: idevId, ptId: ioasId, dataType: 0xdead, data: words(0, 0, 0) })),
    EINVAL,
  );
});

test('wherever a vIOMMU with data can fail to be made, nothing is left', (t) => {
  const { bench, fd, idevId, parent } = guest();
  fd.getHwInfo({ devId: idevId });
  const objects = fd.ctx.objectCount;
  const frames = bench.frames.freePages();
  const { failNth } = bench.core.own;
  for (let nth = 1; ; nth++) {
    failNth.arm(nth);
    const data = words(1, 0, 0, 0, 0, 0);
    let made = 0;
    const errno = errnoOf(() => {
      made = fd.viommuAlloc({ devId: idevId, hwptId: parent, type: TYPE, data }).viommuId;
    });
    const fired = failNth.failedAt !== null;
    failNth.arm(0);
    if (!fired) {
      t.is(errno, 0);
      fd.destroy(made);
      break;
    }
    t.true(errno === ENOMEM || errno === ENOENT, `failure ${nth}`);
    t.is(fd.ctx.objectCount, objects);
    t.is(bench.frames.freePages(), frames);
  }
});
