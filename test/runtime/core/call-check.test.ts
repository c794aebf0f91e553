import test from 'ava';
import { createMachine } from '../../../runtime/machine.js';
import { IommufdError } from '../../../uapi/abi/iommufd-error.js';
import { HwptInvalidate } from '../../../uapi/iommufd/hwpt-invalidate.js';
import { IoasMap } from '../../../uapi/iommufd/ioas.js';

const EINVAL = 22;
const IOMMU_IOAS_MAP = 0x3b85;
const IOMMU_HWPT_INVALIDATE = 0x3b8d;
const NEST_PARENT = 1;
const ARM_SMMUV3 = 1;
const HWPT_DATA_ARM_SMMUV3 = 2;
const BDF = '0000:01:00.0';
const IOVA = 0x10_0000n;

function setUp() {
  const machine = createMachine({
    memory: '32MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [
      { bdf: BDF, iommu: 'smmu0' },
      { bdf: '0000:02:00.0', iommu: 'smmu0' },
    ],
  });
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const vfio = machine.openVfio(BDF);
  const { devId } = vfio.bindIommufd(fd);
  const userVa = machine.user.alloc('64KiB');
  return { machine, fd, ioasId, vfio, devId, userVa };
}

test('typed map: an EINVAL names the field at fault, once pages are what counts', (t) => {
  const { fd, ioasId, vfio, userVa } = setUp();
  vfio.attach(ioasId);
  const good = { ioasId, userVa, length: 0x1000n, iova: IOVA };
  const cases: [object, string, string][] = [
    [{ iova: IOVA + 5n }, 'iova', 'must be a multiple of 4096 bytes'],
    [{ userVa: userVa + 8n }, 'userVa', 'must be a multiple of 4096 bytes'],
    [{ userVa: userVa + 8n, iova: undefined }, 'userVa', 'must be a multiple of 4096 bytes'],
    [{ length: 100 }, 'length', 'must be a multiple of 4096 bytes'],
    [{ length: 0 }, 'length', 'must not be 0'],
    [{ readable: false, writeable: false }, 'flags', 'neither readable nor writeable'],
    [{ iova: 1n << 60n }, 'iova', 'the range is reserved or outside the aperture (ioasIovaRanges tells)'],
  ];
  for (const [change, field, detail] of cases) {
    const error = t.throws(() => fd.ioasMap({ ...good, ...change }), { instanceOf: IommufdError });
    t.is(error.field, field);
    t.is(error.message, `EINVAL: IOMMU_IOAS_MAP (${field}): ${detail}`);
  }
  fd.ioasMap(good);
  t.throws(() => fd.ioasMap(good), {
    message: 'EEXIST: IOMMU_IOAS_MAP (iova): part of the range is mapped',
  });
});

test('typed map: without a device nothing has to be aligned, and nothing says so', (t) => {
  const { fd, ioasId, userVa } = setUp();
  t.is(fd.ioasMap({ ioasId, userVa: userVa + 1n, length: 3, iova: 7n }).iova, 7n);
  t.throws(() => fd.ioasMap({ ioasId: 99, userVa, length: 3 }), { message: 'ENOENT: IOMMU_IOAS_MAP' });
});

test('typed copy: its own fields are named, and of the source nothing is guessed', (t) => {
  const { fd, ioasId, vfio, userVa } = setUp();
  const { ioasId: srcIoasId } = fd.ioasAlloc();
  vfio.attach(ioasId);
  fd.ioasMap({ ioasId: srcIoasId, userVa, length: 0x2000n, iova: IOVA });
  const good = { dstIoasId: ioasId, srcIoasId, srcIova: IOVA, length: 0x1000n, dstIova: IOVA };
  t.throws(() => fd.ioasCopy({ ...good, dstIova: 3n }), {
    message: 'EINVAL: IOMMU_IOAS_COPY (dstIova): must be a multiple of 4096 bytes',
  });
  t.throws(() => fd.ioasCopy({ ...good, srcIova: IOVA + 8n }), { message: 'EINVAL: IOMMU_IOAS_COPY' });
  fd.ioasCopy(good);
  t.throws(() => fd.ioasCopy(good), {
    message: 'EEXIST: IOMMU_IOAS_COPY (dstIova): part of the range is mapped',
  });
});

test('typed unmap: ENOENT tells a missing IOAS from a missing mapping', (t) => {
  const { fd, ioasId, userVa } = setUp();
  fd.ioasMap({ ioasId, userVa, length: 0x2000n, iova: IOVA });
  const unmap = (change: object) => () => fd.ioasUnmap({ ioasId, iova: IOVA, length: 0x1000n, ...change });
  const nothing = { message: 'ENOENT: IOMMU_IOAS_UNMAP (iova): nothing is mapped there as a whole' };
  t.throws(unmap({}), nothing);
  t.throws(unmap({ iova: 0x9000n }), nothing);
  t.throws(unmap({ ioasId: 99 }), { message: 'ENOENT: IOMMU_IOAS_UNMAP (ioasId): there is no such IOAS' });
  t.throws(unmap({ length: 0 }), { message: 'EINVAL: IOMMU_IOAS_UNMAP (length): must not be 0' });
});

test('typed destroy: EBUSY says that something uses it', (t) => {
  const { fd, ioasId, vfio } = setUp();
  vfio.attach(ioasId);
  t.throws(() => fd.destroy(ioasId), { message: 'EBUSY: IOMMU_DESTROY: something still uses it' });
});

test('VFIO: attach before bind, a second bind, and an ID of nothing are said as such', (t) => {
  const { machine, fd, ioasId, vfio } = setUp();
  const other = machine.openVfio('0000:02:00.0');
  const unbound = {
    message: /^EINVAL: VFIO_DEVICE_.*0000:02:00\.0: not bound yet, bindIommufd comes first$/,
  };
  t.throws(() => other.attach(ioasId), unbound);
  t.throws(() => other.detach(), unbound);
  t.throws(() => vfio.bindIommufd(fd), { message: /^EINVAL: .*: it is bound already$/ });
  t.throws(() => machine.openVfio(BDF).bindIommufd(fd), {
    message: /^EINVAL: .*: another open file has it bound$/,
  });
  t.throws(() => vfio.attach(99), { message: /^ENOENT: .*: no IOAS or page table has the ID 99$/ });
  t.throws(() => vfio.attach({ ioasId } as never), {
    instanceOf: TypeError,
    message: 'attach takes the ID of an IOAS or page table',
  });
  vfio.close();
  t.throws(() => vfio.attach(ioasId), { message: `EBADF: VFIO_DEVICE_ATTACH_IOMMUFD_PT: ${BDF}` });
});

test('nesting: a bad STE, and an attach without a vDEVICE, are said as such', (t) => {
  const { fd, ioasId, vfio, devId } = setUp();
  const { hwptId } = fd.hwptAlloc({ devId, ptId: ioasId, flags: NEST_PARENT });
  const { viommuId } = fd.viommuAlloc({ devId, hwptId, type: ARM_SMMUV3 });
  const nested = (word0: number) =>
    fd.hwptAlloc({
      devId,
      ptId: viommuId,
      dataType: HWPT_DATA_ARM_SMMUV3,
      data: new Uint8Array(new BigUint64Array([BigInt(word0), 0n]).buffer),
    });
  t.throws(() => nested(0b1111), {
    message: 'EIO: IOMMU_HWPT_ALLOC (data): the STE is not one a guest may have',
  });
  // V, and stage 1 translates.
  const { hwptId: stage1 } = nested(0b1011);
  t.throws(() => vfio.attach(stage1), {
    message: /^ENOENT: .*: a nested page table needs a vDEVICE of the device$/,
  });
});

test('typed calls: what is no bytes, or not whole entries, is refused before the ioctl', (t) => {
  const { fd, devId, ioasId } = setUp();
  t.throws(() => fd.hwptAlloc({ devId, ptId: ioasId, data: 'abc' as never }), {
    instanceOf: TypeError,
    message: /^data must be a Uint8Array/,
  });
  const entries = new Uint8Array(20);
  t.throws(() => fd.hwptInvalidate({ hwptId: 1, dataType: 1, entryLen: 16, entries }), {
    instanceOf: RangeError,
    message: 'entries: 20 bytes are not whole entries of 16 bytes',
  });
  t.throws(() => fd.hwptInvalidate({ hwptId: 1, dataType: 1, entryLen: 16, entries: 'x' as never }), {
    instanceOf: TypeError,
    message: /^entries must be/,
  });
});

test('typed calls: an option that nobody knows is named', (t) => {
  const { fd } = setUp();
  const calls = [
    'ioasMap',
    'ioasUnmap',
    'ioasCopy',
    'hwptAlloc',
    'hwptInvalidate',
    'viommuAlloc',
    'vdeviceAlloc',
    'veventqAlloc',
    'getHwInfo',
  ] as const;
  for (const call of calls)
    t.throws(() => fd[call]({ iovaa: 1n } as never), {
      instanceOf: TypeError,
      message: new RegExp(`^${call}: there is no option 'iovaa', only \\w+`),
    });
});

test('ioctl: the raw call says nothing but its errno', (t) => {
  const { fd, ioasId } = setUp();
  t.is(fd.ioctl(IOMMU_IOAS_MAP, IoasMap.toBytes({ size: 40, ioasId })), -EINVAL);
  const odd = HwptInvalidate.toBytes({ size: 32, hwptId: ioasId, entryLen: 16, entryNum: 1 });
  t.true(fd.ioctl(IOMMU_HWPT_INVALIDATE, odd) < 0);
});
