import test from 'ava';
import { HwptInvalidate } from '../../../uapi/iommufd/hwpt-invalidate.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import { FakeDomain, FakeNested } from '../../kit/fake-driver.js';

const [ENOENT, EIO, E2BIG, ENOMEM, EFAULT, EBUSY] = [2, 5, 7, 12, 14, 16];
const [EEXIST, EINVAL, EOPNOTSUPP] = [17, 22, 95];
const NEST_PARENT = 1;
const INVALIDATE = 0x3b8d;
const STE = Uint8Array.from([1, ...new Array(15).fill(0)]);

/** A nest parent and a vIOMMU over it, for device 0; device 1 is behind another IOMMU. */
function nesting(options: ConstructorParameters<typeof CoreBench>[0] = {}) {
  const bench = new CoreBench({
    iommus: [{}, {}],
    devices: [{ iommu: 0 }, { iommu: 1 }, { iommu: 0 }],
    ...options,
  });
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  const { vfio, devId } = bench.bind(0);
  const parent = fd.hwptAlloc({ devId, ptId: ioasId, flags: NEST_PARENT }).hwptId;
  const { viommuId } = fd.viommuAlloc({ devId, hwptId: parent, type: 1 });
  const fake = bench.iommus[0]!.viommus[0]!;
  return { bench, fd, ioasId, vfio, devId, parent, viommuId, fake };
}

test('hwpt alloc: on an IOAS', (t) => {
  const bench = new CoreBench();
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  const { devId } = bench.bind();
  const errno = (fields: object) => errnoOf(() => fd.hwptAlloc({ devId, ptId: ioasId, ...fields }));
  t.is(errno({ flags: 1 << 4 }), EOPNOTSUPP);
  t.is(errno({ flags: 1 << 1 }), EOPNOTSUPP, 'dirty tracking without the capability');
  t.is(errno({ flags: (1 << 2) | NEST_PARENT }), EOPNOTSUPP);
  t.is(errno({ flags: 1 << 2, faultId: 5 }), ENOENT, 'no such fault queue');
  t.is(errno({ dataType: 2 }), EINVAL, 'a type without data');
  t.is(errno({ data: STE }), EINVAL, 'data without a type');
  t.is(errno({ dataType: 2, data: STE }), EOPNOTSUPP);
  t.is(errno({ devId: ioasId }), ENOENT);
  t.is(errno({ ptId: 99 }), EINVAL, 'a bad pt_id is EINVAL here, not ENOENT');
  t.is(errno({ ptId: devId }), EINVAL);
  t.is(bench.iommus[0]!.liveDomains, 0);
  t.is(fd.ctx.objectCount, 2);
  t.is(errno({ flags: NEST_PARENT | (1 << 3) }), 0);
});

test('hwpt alloc: dirty tracking is there when the IOMMU has it', (t) => {
  const bench = new CoreBench({ iommus: [{ capabilities: 1n }] });
  const { devId } = bench.bind();
  const { ioasId } = bench.fd.ioasAlloc();
  t.notThrows(() => bench.fd.hwptAlloc({ devId, ptId: ioasId, flags: 1 << 1 }));
});

test('hwpt alloc: nested straight on a parent is for drivers that offer it, on manual nest parents', (t) => {
  const { fd, devId, ioasId, parent, vfio } = nesting();
  const errno = (ptId: number, fields = {}) =>
    errnoOf(() => fd.hwptAlloc({ devId, ptId, dataType: 2, data: STE, ...fields }));
  t.is(errno(parent), EOPNOTSUPP);
  t.is(errno(parent, { flags: NEST_PARENT }), EOPNOTSUPP);
  t.is(errno(parent, { dataType: 0, data: new Uint8Array(0) }), EOPNOTSUPP, 'length 0');
  const plain = fd.hwptAlloc({ devId, ptId: ioasId }).hwptId;
  t.is(errno(plain), EINVAL, 'not a nest parent');
  t.is(errno(vfio.attach(ioasId).ptId), EINVAL, 'automatic');
});

test('hwpt alloc: nested on a vIOMMU', (t) => {
  const { bench, fd, devId, viommuId, parent } = nesting();
  const other = bench.bind(1).devId;
  const errno = (fields: object) =>
    errnoOf(() => fd.hwptAlloc({ devId, ptId: viommuId, dataType: 2, data: STE, ...fields }));
  t.is(errno({ devId: other }), EINVAL, 'a device behind another IOMMU');
  t.is(errno({ flags: NEST_PARENT }), EOPNOTSUPP);
  t.is(errno({ flags: 1 << 1 }), EOPNOTSUPP);
  t.is(errno({ dataType: 0, data: new Uint8Array(0) }), EOPNOTSUPP);
  t.is(errno({ dataType: 1 }), EINVAL);
  t.is(errno({ data: new Uint8Array(17) }), EINVAL);
  t.is(errno({ data: new Uint8Array(9000) }), EINVAL);
  t.is(errno({ data: new Uint8Array(16) }), EIO, 'the driver looks at the contents');
  t.is(errno({ flags: 1 << 2 }), ENOENT);
  t.is(bench.iommus[0]!.liveNested, 0);
  const { hwptId } = fd.hwptAlloc({ devId, ptId: viommuId, dataType: 2, data: STE });
  t.is(
    errnoOf(() => fd.destroy(viommuId)),
    EBUSY,
    'held by the nested table',
  );
  t.is(
    errnoOf(() => fd.destroy(parent)),
    EBUSY,
    'held by the vIOMMU',
  );
  t.is(errno({ ptId: hwptId }), EINVAL, 'no nesting on nested');
  fd.destroy(hwptId);
  fd.destroy(viommuId);
  fd.destroy(parent);
});

test('viommu alloc: arguments', (t) => {
  const { bench, fd, devId, ioasId, parent } = nesting({
    iommus: [{ privateDomains: true }, { privateDomains: true }],
  });
  const other = bench.bind(1).devId;
  const errno = (fields: object) =>
    errnoOf(() => fd.viommuAlloc({ devId, hwptId: parent, type: 1, ...fields }));
  t.is(errno({ flags: 1 }), EOPNOTSUPP);
  t.is(errno({ type: 0 }), EOPNOTSUPP);
  t.is(errno({ type: 9 }), EOPNOTSUPP);
  t.is(errno({ devId: 99 }), ENOENT);
  t.is(errno({ hwptId: ioasId }), ENOENT);
  t.is(errno({ hwptId: fd.hwptAlloc({ devId, ptId: ioasId }).hwptId }), EINVAL, 'not a nest parent');
  t.is(errno({ devId: other }), EINVAL, "another IOMMU's parent");
  t.is(bench.iommus[0]!.liveViommus, 1);
});

test('vdevice: one per device and one per virtual ID; attach to a nested table needs it', (t) => {
  const { bench, fd, vfio, devId, viommuId, fake } = nesting();
  const other = bench.bind(1).devId;
  const third = bench.bind(2).devId;
  const nested = fd.hwptAlloc({ devId, ptId: viommuId, dataType: 2, data: STE }).hwptId;
  t.is(
    errnoOf(() => vfio.attach(nested)),
    ENOENT,
  );
  const errno = (fields: object) => errnoOf(() => fd.vdeviceAlloc({ viommuId, devId, virtId: 5, ...fields }));
  t.is(errno({ viommuId: devId }), ENOENT);
  t.is(errno({ devId: viommuId }), ENOENT);
  t.is(errno({ devId: other }), EINVAL, 'behind another IOMMU');
  const { vdeviceId } = fd.vdeviceAlloc({ viommuId, devId, virtId: 5 });
  t.is(errno({ virtId: 6 }), EEXIST, 'the device has one');
  t.is(errno({ devId: third }), EEXIST, 'the ID is taken');
  t.is(fake.virtIds.get(5n), bench.devices[0]);
  t.is(vfio.attach(nested).ptId, nested);
  t.true(bench.iommus[0]!.attached.get(0) instanceof FakeNested);
  t.is(
    errnoOf(() => fd.destroy(viommuId)),
    EBUSY,
  );
  vfio.detach();
  fd.destroy(vdeviceId);
  t.is(errno({ devId: third }), 0);
});

test('vdevice: unbind takes it away and leaves its ID reserved until the fd is closed', (t) => {
  const { bench, fd, vfio, devId, viommuId, fake } = nesting();
  const { vdeviceId } = fd.vdeviceAlloc({ viommuId, devId, virtId: 5 });
  vfio.close();
  t.is(fake.virtIds.size, 0);
  t.is(
    errnoOf(() => fd.destroy(vdeviceId)),
    ENOENT,
  );
  const ids = [fd.ioasAlloc().ioasId, fd.ioasAlloc().ioasId, fd.ioasAlloc().ioasId];
  t.false(ids.includes(vdeviceId));
  t.true(ids.includes(devId), "the device's own ID is free again");
  fd.close();
  const again = bench.core.open();
  const fresh = Array.from({ length: vdeviceId }, () => again.ioasAlloc().ioasId);
  t.true(fresh.includes(vdeviceId));
});

test('get hw info: lengths, types and reserved fields', (t) => {
  const { fd, devId, bench } = nesting();
  const info = fd.getHwInfo({ devId });
  t.is(info.dataType, 2);
  t.is(info.data.byteLength, 40);
  t.is(info.data[39], 40);
  t.is(fd.getHwInfo({ devId, dataType: 2 }).dataType, 2);
  t.is(
    errnoOf(() => fd.getHwInfo({ devId, dataType: 1 })),
    EOPNOTSUPP,
  );
  t.is(
    errnoOf(() => fd.getHwInfo({ devId: 99 })),
    ENOENT,
  );
  const va = bench.user.alloc(0x1000);
  bench.user.copyOut(va, new Uint8Array(0x1000).fill(0xee));
  const call = (fields: Record<number, number>, dataUptr: bigint, dataLen: number) => {
    const struct = new Uint8Array(40);
    const view = new DataView(struct.buffer);
    view.setUint32(0, 40, true);
    view.setUint32(8, devId, true);
    view.setUint32(12, dataLen, true);
    view.setBigUint64(16, dataUptr, true);
    for (const [at, value] of Object.entries(fields)) struct[Number(at)] = value;
    return { ret: fd.ioctl(0x3b8a, struct), dataLen: view.getUint32(12, true) };
  };
  t.deepEqual(call({}, va, 4), { ret: 0, dataLen: 40 });
  const bytes = new Uint8Array(6);
  bench.user.copyIn(va, bytes);
  t.deepEqual([...bytes], [1, 2, 3, 4, 0xee, 0xee], 'only what fits');
  t.deepEqual(call({}, va, 0x1000), { ret: 0, dataLen: 40 });
  const all = new Uint8Array(0x1000);
  bench.user.copyIn(va, all);
  t.true(
    all.subarray(40).every((byte) => byte === 0),
    'the rest is zeroed',
  );
  t.deepEqual(call({}, 0n, 4), { ret: -EFAULT, dataLen: 4 });
  t.deepEqual(call({}, va, 0x1001), { ret: -EFAULT, dataLen: 0x1001 });
  t.deepEqual(call({}, 0n, 0), { ret: 0, dataLen: 40 }, 'asking for the length only');
  t.is(call({ 4: 2 }, va, 40).ret, -EOPNOTSUPP);
  for (const at of [29, 30, 31]) t.is(call({ [at]: 1 }, va, 40).ret, -EOPNOTSUPP);
});

test('hwpt invalidate: errnos, and entry_num is written whatever happens', (t) => {
  const { bench, fd, devId, ioasId, viommuId, parent, fake } = nesting();
  const nested = fd.hwptAlloc({ devId, ptId: viommuId, dataType: 2, data: STE }).hwptId;
  const va = bench.user.alloc(0x1000);
  const call = (fields: object) => {
    const bytes = HwptInvalidate.toBytes({
      size: 32,
      hwptId: viommuId,
      dataUptr: va,
      dataType: 1,
      entryLen: 16,
      entryNum: 3,
      ...fields,
    });
    return [fd.ioctl(INVALIDATE, bytes), HwptInvalidate.getField(bytes, 'entryNum')];
  };
  t.deepEqual(call({ reserved: 1 }), [-EOPNOTSUPP, 0]);
  t.deepEqual(call({ dataUptr: 0n }), [-EINVAL, 0]);
  t.deepEqual(call({ entryLen: 0 }), [-EINVAL, 0]);
  t.deepEqual(call({ hwptId: 99 }), [-ENOENT, 0]);
  t.deepEqual(call({ hwptId: nested }), [-EOPNOTSUPP, 0]);
  for (const hwptId of [parent, ioasId, devId]) t.deepEqual(call({ hwptId }), [-EINVAL, 0]);
  t.deepEqual(call({ dataType: 7 }), [-EINVAL, 0]);
  t.deepEqual(call({ entryNum: 0 }), [-EINVAL, 0]);
  t.deepEqual(call({ dataUptr: va + 0xff0n }), [-EFAULT, 0]);
  t.deepEqual(call({ entryNum: 0xffff_ffff }), [-ENOMEM, 0]);
  t.deepEqual(call({ entryLen: 5000, entryNum: 1 }), [-E2BIG, 0]);
  t.is(bench.invalidator.calls.length, 0);
  t.deepEqual(call({}), [0, 3]);
  t.is(bench.invalidator.calls[0]!.viommuBase, fake.sharedBase);
  bench.user.copyOut(va + 32n, Uint8Array.of(0xff));
  t.deepEqual(call({}), [-EIO, 2], 'two were handled before the bad one');
});

test('hwpt invalidate: an array too long to hold is ENOMEM, before its type is looked at; 7.0 calls all handled', (t) => {
  for (const compat of ['fixed', '7.0'] as const) {
    const { bench, fd, viommuId } = nesting({ compat });
    const dataUptr = bench.user.alloc(0x1000);
    const call = (fields: object) => {
      const base = { size: 32, hwptId: viommuId, dataUptr, dataType: 1, entryLen: 16, entryNum: 3 };
      const bytes = HwptInvalidate.toBytes({ ...base, ...fields });
      return [fd.ioctl(INVALIDATE, bytes), HwptInvalidate.getField(bytes, 'entryNum')];
    };
    const told = (given: number) => (compat === '7.0' ? given : 0);
    // KMALLOC_MAX_SIZE is 4 MiB, 2^18 commands.
    const many = 2 ** 18 + 1;
    t.deepEqual(call({ entryNum: many }), [-ENOMEM, told(many)]);
    t.deepEqual(call({ entryNum: many, dataType: 7 }), [-ENOMEM, told(many)]);
    t.deepEqual(call({ entryNum: many - 1, dataType: 7 }), [-EINVAL, 0]);
    bench.core.own.failNth.arm(2);
    t.deepEqual(call({}), [0, 3], 'an object looked up through shared memory cannot fail');
    bench.core.own.failNth.arm(1);
    t.deepEqual(call({ dataType: 7 }), [-ENOMEM, told(3)]);
    bench.core.own.failNth.arm(1);
    t.deepEqual(call({ entryNum: 0 }), [-EINVAL, 0], 'no entries need no memory');
    bench.core.own.failNth.arm(0);
  }
});

test('hwpt invalidate: of a longer entry the tail is looked at first, up to where it is not zero', (t) => {
  const { bench, fd, viommuId } = nesting();
  const va = bench.user.alloc(0x1000);
  const call = (dataUptr: bigint) =>
    fd.ioctl(
      INVALIDATE,
      HwptInvalidate.toBytes({
        size: 32,
        hwptId: viommuId,
        dataUptr,
        dataType: 1,
        entryLen: 64,
        entryNum: 1,
      }),
    );
  bench.user.copyOut(va, Uint8Array.of(1));
  t.is(call(va - 16n), -E2BIG, 'the head is nowhere');
  bench.user.copyOut(va, Uint8Array.of(0));
  t.is(call(va - 16n), -EFAULT);
  t.is(call(va + 0xfd0n), -EFAULT, 'the tail ends in nothing');
  bench.user.copyOut(va + 0xff0n, Uint8Array.of(1));
  t.is(call(va + 0xfd0n), -E2BIG, 'after a byte that is not zero');
  t.is(bench.invalidator.calls.length, 0);
});

test('hwpt invalidate: longer entries need a zero tail, shorter ones are extended', (t) => {
  const { bench, fd, viommuId } = nesting();
  const entries = (entryLen: number, bytes: Uint8Array) =>
    errnoOf(() => fd.hwptInvalidate({ hwptId: viommuId, dataType: 1, entryLen, entries: bytes }));
  const long = new Uint8Array(48);
  long[0] = 1;
  long[24] = 2;
  t.is(entries(24, long), 0);
  t.deepEqual([bench.invalidator.calls[0]!.entries[0], bench.invalidator.calls[0]!.entries[16]], [1, 2]);
  long[23] = 1;
  t.is(entries(24, long), E2BIG);
  t.is(
    entries(
      8,
      Uint8Array.from({ length: 16 }, (_, i) => i + 1),
    ),
    0,
  );
  const { entries: seen } = bench.invalidator.calls[1]!;
  t.deepEqual([...seen.subarray(0, 9)], [1, 2, 3, 4, 5, 6, 7, 8, 0]);
  t.is(seen[16], 9);
});

test('veventq: arguments, one per type, and a reader keeps it alive', (t) => {
  const { bench, fd, viommuId, devId } = nesting();
  const errno = (fields: object) =>
    errnoOf(() => fd.veventqAlloc({ viommuId, type: 1, depth: 4, ...fields }));
  t.is(errno({ type: 0 }), EOPNOTSUPP);
  t.is(errno({ depth: 0 }), EINVAL);
  t.is(errno({ viommuId: devId }), ENOENT);
  const queue = fd.veventqAlloc({ viommuId, type: 1, depth: 4 });
  t.is(errno({}), EEXIST);
  t.is(
    errnoOf(() => fd.destroy(queue.veventqId)),
    EBUSY,
    'its file is open',
  );
  t.is(
    errnoOf(() => fd.destroy(viommuId)),
    EBUSY,
  );
  queue.close();
  queue.close();
  fd.destroy(queue.veventqId);
  t.is(errno({}), 0);
  t.is(bench.fd.ctx.objectCount, 5);
  t.is(errno({ type: 7 }), 0, 'any type: one that the driver never feeds stays empty');
});

/** Records as (flags, sequence, first data byte or none). */
function records(bytes: Uint8Array, dataBytes: number): [number, number, number | null][] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const list: [number, number, number | null][] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const [flags, sequence] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
    list.push([flags, sequence, flags & 1 ? null : bytes[at + 8]!]);
    at += 8 + (flags & 1 ? 0 : dataBytes);
  }
  return list;
}

test('veventq: overflow keeps one LOST_EVENTS header at the tail, and sequences tell how many were lost', (t) => {
  const { bench, fd, viommuId, fake } = nesting();
  const queue = fd.veventqAlloc({ viommuId, type: 1, depth: 2 });
  const raise = (byte: number) =>
    bench.iommus[0]!.onEvent!({ viommu: fake, type: 1, data: new Uint8Array(32).fill(byte) });
  t.false(queue.poll());
  t.is(queue.read(4096).byteLength, 0);
  for (let i = 0; i < 6; i++) raise(i);
  t.true(queue.poll());
  t.deepEqual(records(queue.read(40), 32), [[0, 0, 0]]);
  t.deepEqual(records(queue.read(4096), 32), [
    [0, 1, 1],
    [1, 5, null],
  ]);
  t.false(queue.poll());
  for (let i = 6; i < 9; i++) raise(i);
  t.deepEqual(records(queue.read(40), 32), [[0, 6, 6]]);
  raise(9);
  t.deepEqual(records(queue.read(4096), 32), [
    [0, 7, 7],
    [0, 9, 9],
  ]);
  bench.iommus[0]!.onEvent!({ viommu: fake, type: 2, data: new Uint8Array(32) });
  t.false(queue.poll(), 'an event of another type is not for this queue');
});

test('veventq: a record that does not fit stays, down to a lone LOST_EVENTS header', (t) => {
  const { bench, fd, viommuId, fake } = nesting();
  const queue = fd.veventqAlloc({ viommuId, type: 1, depth: 1 });
  const raise = () => bench.iommus[0]!.onEvent!({ viommu: fake, type: 1, data: new Uint8Array(32) });
  raise();
  raise();
  for (const bytes of [0, 7, 8, 39]) t.is(queue.read(bytes).byteLength, 0);
  t.deepEqual(records(queue.read(47), 32), [[0, 0, 0]]);
  t.is(queue.read(7).byteLength, 0);
  t.true(queue.poll());
  bench.core.own.failNth.arm(1);
  t.is(queue.read(8).byteLength, 0, 'no memory for a copy of the header: it stays');
  t.deepEqual(records(queue.read(8), 32), [[1, 1, null]]);
  t.false(queue.poll());
});

test('veventq: a read into memory that ends loses nothing; 7.0 counts a header whose record stays', (t) => {
  for (const compat of ['fixed', '7.0'] as const) {
    const { bench, fd, viommuId, fake } = nesting({ compat });
    const queue = fd.veventqAlloc({ viommuId, type: 1, depth: 2 });
    const file = bench.core.own.files.get(queue.fd)!;
    for (let byte = 0; byte < 3; byte++)
      bench.iommus[0]!.onEvent!({ viommu: fake, type: 1, data: new Uint8Array(32).fill(byte) });
    const memory = new Uint8Array(256);
    const upTo = (end: number) => (offset: number, bytes: Uint8Array) => {
      if (offset + bytes.byteLength > end) return -EFAULT;
      memory.set(bytes, offset);
      return 0;
    };
    t.is(file.readTo!(256, upTo(7)), -EFAULT, 'no header');
    t.is(file.readTo!(256, upTo(39)), compat === '7.0' ? 8 : -EFAULT, 'no data');
    t.is(file.readTo!(256, upTo(79)), compat === '7.0' ? 48 : 40, 'the second of them');
    t.is(file.readTo!(256, upTo(40)), 40, 'no room for the header of those that were lost');
    t.is(file.readTo!(256, upTo(7)), -EFAULT);
    t.true(queue.poll());
    t.is(file.readTo!(256, upTo(256)), 8);
    t.deepEqual(records(memory.subarray(0, 8), 32), [[1, 2, null]]);
    t.false(queue.poll());
  }
});

test('events after the vIOMMU is gone go nowhere', (t) => {
  const { bench, fd, viommuId, fake } = nesting();
  fd.destroy(viommuId);
  t.notThrows(() => bench.iommus[0]!.onEvent!({ viommu: fake, type: 1, data: new Uint8Array(32) }));
});

test('closing the fd destroys leaves first, whatever was built', (t) => {
  const scene = nesting();
  const { bench, fd, vfio, devId, viommuId, ioasId, parent } = scene;
  const refs = bench.frameRefs();
  fd.ioasMap({ ioasId, userVa: bench.user.alloc(0x2000), length: 0x2000n });
  const queue = fd.veventqAlloc({ viommuId, type: 1, depth: 2 });
  fd.vdeviceAlloc({ viommuId, devId, virtId: 1 });
  vfio.attach(fd.hwptAlloc({ devId, ptId: viommuId, dataType: 2, data: STE }).hwptId);
  t.true((bench.fd.ctx.get(parent, 0) as unknown as { domain: FakeDomain }).domain instanceof FakeDomain);
  bench.fd.ctx.objects.put(parent);
  fd.close();
  vfio.close();
  t.true(fd.ctx.objectCount > 0, 'the event queue still holds the file');
  queue.close();
  bench.assertNothingLeft(t, refs + 2);
});
