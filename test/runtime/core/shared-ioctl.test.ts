import test from 'ava';
import { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { SharedIommufd } from '../../../runtime/core/shared-ioctl.js';
import { UserMemory } from '../../../runtime/user-memory.js';
import { HwptInvalidate } from '../../../uapi/iommufd/hwpt-invalidate.js';
import { CoreBench } from '../../kit/core-bench.js';
import { FakeInvalidator } from '../../kit/fake-driver.js';

const [ENOENT, EIO, E2BIG, EFAULT, EINVAL, EOPNOTSUPP, EBUSY] = [2, 5, 7, 14, 22, 95, 16];

/** Another thread's attachment to the machine: nothing in it belongs to the core. */
function elsewhere() {
  const bench = new CoreBench();
  const { fd } = bench;
  const { devId } = bench.bind();
  const parent = fd.hwptAlloc({ devId, ptId: fd.ioasAlloc().ioasId, flags: 1 }).hwptId;
  const { viommuId } = fd.viommuAlloc({ devId, hwptId: parent, type: 1 });
  const memory = MachineMemory.attach(bench.memory.handle());
  const invalidator = new FakeInvalidator();
  const make = (driver: string) =>
    new SharedIommufd(
      bench.env,
      memory,
      new UserMemory(memory, bench.env, null),
      fd.index,
      new Map([[driver, invalidator]]),
    );
  const va = bench.user.alloc(0x1000);
  const bytes = (fields: object) =>
    HwptInvalidate.toBytes({
      size: 32,
      hwptId: viommuId,
      dataUptr: va,
      dataType: 1,
      entryLen: 16,
      entryNum: 2,
      ...fields,
    });
  return {
    bench,
    fd,
    viommuId,
    parent,
    shared: make('fake'),
    foreign: make('other'),
    invalidator,
    va,
    bytes,
  };
}

test('an invalidation runs without the core, on what lies in shared memory', (t) => {
  const { bench, shared, invalidator, va, bytes } = elsewhere();
  bench.user.copyOut(
    va,
    Uint8Array.from({ length: 32 }, (_, i) => i),
  );
  const struct = bytes({});
  t.is(shared.hwptInvalidate(struct), 0);
  t.is(HwptInvalidate.getField(struct, 'entryNum'), 2);
  t.deepEqual(
    [...invalidator.calls[0]!.entries],
    Array.from({ length: 32 }, (_, i) => i),
  );
  t.is(invalidator.calls[0]!.viommuBase, bench.iommus[0]!.viommus[0]!.sharedBase);
  t.is(bench.invalidator.calls.length, 0, "the core's own was not asked");
});

test('it checks its struct and answers as the core would', (t) => {
  const { bench, shared, foreign, va, bytes, parent } = elsewhere();
  const call = (struct: Uint8Array) => [shared.hwptInvalidate(struct), struct[24]];
  t.is(shared.hwptInvalidate(new Uint8Array(3)), -EFAULT);
  t.deepEqual(call(bytes({ size: 31 })), [-EINVAL, 2], 'a bad size leaves the struct alone');
  t.deepEqual(call(bytes({ size: 33 })), [-EFAULT, 2]);
  const long = new Uint8Array(33).fill(1, 32);
  long.set(bytes({ size: 33 }));
  t.is(shared.hwptInvalidate(long), -E2BIG);
  t.deepEqual(call(bytes({ hwptId: 4097 })), [-ENOENT, 0]);
  t.deepEqual(call(bytes({ hwptId: parent })), [-EINVAL, 0]);
  t.deepEqual(call(bytes({ dataUptr: 8n })), [-EFAULT, 0]);
  bench.user.copyOut(va + 16n, Uint8Array.of(0xff));
  t.deepEqual(call(bytes({})), [-EIO, 1]);
  t.is(foreign.hwptInvalidate(bytes({})), -EOPNOTSUPP, "no code for this vIOMMU's driver");
});

test('a vIOMMU cannot be destroyed while a thread is inside an invalidation of it', (t) => {
  const { fd, viommuId, shared, invalidator, bytes } = elsewhere();
  const destroy = new Uint8Array(8);
  const view = new DataView(destroy.buffer);
  view.setUint32(0, 8, true);
  view.setUint32(4, viommuId, true);
  let inside = 0;
  invalidator.cacheInvalidate = (_base, _entries, _stride, count, handled) => {
    inside = fd.ioctl(0x3b80, destroy);
    handled[0] = count;
    return 0;
  };
  t.is(shared.hwptInvalidate(bytes({})), 0);
  t.is(inside, -EBUSY);
  t.is(fd.ioctl(0x3b80, destroy), 0);
  t.is(shared.hwptInvalidate(bytes({})), -ENOENT);
});
