/** A struct that can be read and not written: copy_to_user at the end of a call fails, and what it made goes. */
import test from 'ava';
import { FaultAlloc } from '../../../uapi/iommufd/fault.js';
import { IoasAlloc, IoasMap } from '../../../uapi/iommufd/ioas.js';
import { CoreBench } from '../../kit/core-bench.js';

const [ENOENT, EFAULT, EEXIST] = [2, 14, 17];

function scene() {
  const bench = new CoreBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const readOnly = Object.assign(Object.create(bench.core.own) as typeof bench.core.own, {
    structReadOnly: true,
  });
  const call = (cmd: number, bytes: Uint8Array) => bench.core.as(readOnly, () => bench.fd.ioctl(cmd, bytes));
  return { ...bench, bench, fd: bench.fd, ioasId, call };
}

test('read-only struct: an object whose ID cannot be told is not there, nor its descriptor', (t) => {
  const { bench, call } = scene();
  const before = bench.fd.ctx.objectCount;
  for (const [cmd, bytes] of [
    [0x3b81, IoasAlloc.toBytes({ size: 12 })],
    [0x3b8e, FaultAlloc.toBytes({ size: 16 })],
  ] as const) {
    const given = [...bytes];
    t.is(call(cmd, bytes), -EFAULT);
    t.deepEqual([...bytes], given);
  }
  t.is(bench.fd.ctx.objectCount, before);
  t.is(bench.core.own.files.get(bench.fd.fd + 1), undefined);
});

test('read-only struct: other errors come first, and a mapping stays', (t) => {
  const { fd, user, ioasId, call } = scene();
  const userVa = user.alloc(0x1000);
  const bytes = IoasMap.toBytes({ size: 40, flags: 7, ioasId: 99, userVa, length: 0x1000n, iova: 0x5000n });
  t.is(call(0x3b85, bytes), -ENOENT);
  IoasMap.put(bytes, 'ioasId', ioasId);
  t.is(call(0x3b85, bytes), -EFAULT);
  t.is(call(0x3b85, bytes), -EEXIST);
  t.is(fd.ioasUnmap({ ioasId, iova: 0x5000n, length: 0x1000n }).length, 0x1000n);
});
