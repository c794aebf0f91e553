import test from 'ava';
import { CoreBench } from '../../kit/core-bench.js';

const EFAULT = 14;
const EINVAL = 22;
const E2BIG = 7;
const ENOTTY = 25;
const ENOENT = 2;
const EBADF = 9;

/** nr, sizeof, smallest accepted size: include/uapi/linux/iommufd.h and the IOCTL_OP rows of main.c. */
const STRUCTS: readonly [name: string, nr: number, size: number, minSize: number][] = [
  ['DESTROY', 0x80, 8, 8],
  ['IOAS_ALLOC', 0x81, 12, 12],
  ['IOAS_ALLOW_IOVAS', 0x82, 24, 24],
  ['IOAS_COPY', 0x83, 40, 40],
  ['IOAS_IOVA_RANGES', 0x84, 32, 32],
  ['IOAS_MAP', 0x85, 40, 40],
  ['IOAS_UNMAP', 0x86, 24, 24],
  ['OPTION', 0x87, 24, 24],
  ['VFIO_IOAS', 0x88, 12, 12],
  ['HWPT_ALLOC', 0x89, 48, 24],
  ['GET_HW_INFO', 0x8a, 40, 32],
  ['HWPT_SET_DIRTY_TRACKING', 0x8b, 16, 16],
  ['HWPT_GET_DIRTY_BITMAP', 0x8c, 48, 48],
  ['HWPT_INVALIDATE', 0x8d, 32, 32],
  ['FAULT_QUEUE_ALLOC', 0x8e, 16, 16],
  ['IOAS_MAP_FILE', 0x8f, 40, 40],
  ['VIOMMU_ALLOC', 0x90, 40, 24],
  ['VDEVICE_ALLOC', 0x91, 24, 24],
  ['IOAS_CHANGE_PROCESS', 0x92, 8, 8],
  ['VEVENTQ_ALLOC', 0x93, 32, 28],
  ['HW_QUEUE_ALLOC', 0x94, 40, 40],
];

const cmdOf = (nr: number): number => (0x3b << 8) | nr;

/** A struct of `bytes` bytes that says it is `size` long, otherwise zero. */
function sized(size: number, bytes = size): Uint8Array {
  const struct = new Uint8Array(Math.max(bytes, 4));
  new DataView(struct.buffer).setUint32(0, size, true);
  return struct.subarray(0, bytes);
}

for (const [name, nr, size, minSize] of STRUCTS)
  test(`${name}: too short is EINVAL, unreadable EFAULT, a dirty tail E2BIG, a clean tail is the same struct`, (t) => {
    const { fd } = new CoreBench();
    const cmd = cmdOf(nr);
    t.is(fd.ioctl(cmd, new Uint8Array(0)), -EFAULT);
    t.is(fd.ioctl(cmd, new Uint8Array(3)), -EFAULT);
    t.is(fd.ioctl(cmd, sized(minSize - 1)), -EINVAL);
    t.is(fd.ioctl(cmd, sized(0, 4)), -EINVAL);
    t.is(fd.ioctl(cmd, sized(size, size - 1)), -EFAULT);
    const dirty = sized(size + 1);
    dirty[size] = 1;
    t.is(fd.ioctl(cmd, dirty), -E2BIG);
    t.is(fd.ioctl(cmd, sized(size + 8, size + 4)), -EFAULT);
    t.is(fd.ctx.objectCount, 0);

    const exact = fd.ioctl(cmd, sized(size));
    t.is(fd.ioctl(cmd, sized(size + 1)), exact);
    t.is(fd.ioctl(cmd, sized(minSize)), exact);
    t.is(fd.ioctl(cmd | (1 << 30), sized(size)), -ENOTTY);
  });

test('a number that is neither of iommufd nor of a VFIO container is ENOTTY, whatever the bytes', (t) => {
  const { fd } = new CoreBench();
  for (const nr of [0x00, 0x63, 0x67, 0x6b, 0x75, 0x7f, 0x95, 0xa0, 0xff])
    t.is(fd.ioctl(cmdOf(nr), new Uint8Array(0)), -ENOTTY);
});

test('with the test ioctl, the numbers up to it are looked up: an unreadable struct is EFAULT before ENOTTY', (t) => {
  const { fd } = new CoreBench({ testIoctl: true });
  for (const nr of [0x95, 0x9f]) {
    t.is(fd.ioctl(cmdOf(nr), new Uint8Array(3)), -EFAULT);
    t.is(fd.ioctl(cmdOf(nr), sized(0, 4)), -ENOTTY);
  }
  for (const nr of [0x7f, 0xa1]) t.is(fd.ioctl(cmdOf(nr), new Uint8Array(0)), -ENOTTY);
});

test('an older, shorter struct gets only what it holds written back', (t) => {
  const { bind, fd } = benchWithDevice();
  const { devId } = bind;
  // GET_HW_INFO of 32 bytes: out_capabilities lies beyond.
  const bytes = sized(32, 40);
  const view = new DataView(bytes.buffer);
  view.setUint32(8, devId, true);
  bytes.fill(0xee, 32);
  t.is(fd.ioctl(cmdOf(0x8a), bytes), 0);
  t.is(view.getUint32(12, true), 40, 'data_len is what the kernel has');
  t.is(view.getUint32(24, true), 2, 'out_data_type');
  t.deepEqual([...bytes.subarray(32)], [0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]);
});

function benchWithDevice() {
  const bench = new CoreBench();
  return { bind: bench.bind(), fd: bench.fd };
}

test('IDs count from 1, the lowest free one first; 0 and unknown ones are ENOENT', (t) => {
  const { fd } = new CoreBench();
  t.is(fd.ioasAlloc().ioasId, 1);
  t.is(fd.ioasAlloc().ioasId, 2);
  t.is(fd.ioasAlloc().ioasId, 3);
  fd.destroy(2);
  t.is(fd.ioasAlloc().ioasId, 2);
  for (const id of [0, 4, 4096, 4097, 0xffff_ffff]) {
    const destroy = sized(8);
    new DataView(destroy.buffer).setUint32(4, id, true);
    t.is(fd.ioctl(cmdOf(0x80), destroy), -ENOENT);
  }
});

test('a closed fd answers EBADF, and its index is used again', (t) => {
  const { core, fd } = new CoreBench();
  const other = core.open();
  t.is(other.index, 1);
  fd.ioasAlloc();
  fd.close();
  fd.close();
  t.is(fd.ioctl(cmdOf(0x81), sized(12)), -EBADF);
  const again = core.open();
  t.is(again.index, 0);
  t.is(again.ioasAlloc().ioasId, 1);
});

test('open: EMFILE when every object table is in use', (t) => {
  const { core } = new CoreBench();
  core.open();
  core.open();
  t.throws(() => core.open(), { code: 'EMFILE' });
});

test('the object table is full at 4096 objects: ENOMEM, and a destroy makes room', (t) => {
  const { fd } = new CoreBench();
  for (let i = 0; i < 4096; i++) fd.ioasAlloc();
  t.throws(() => fd.ioasAlloc(), { code: 'ENOMEM' });
  fd.destroy(77);
  t.is(fd.ioasAlloc().ioasId, 77);
  fd.close();
  t.is(fd.ctx.objectCount, 0);
});
