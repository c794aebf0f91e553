/** iommufd_ioas.alloc_hwpt_nested: nested page tables over a nest parent, their invalidation, and page faults on one. */
import { EBUSY, EFAULT, EINVAL, ENOENT, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import { HwptInvalidateSelftest, HwptSelftest } from '../../uapi/drivers/selftest.js';
import type { IoasSelf } from './iommufd-ioas.test.js';
import { triggerIopf } from './iopf.js';

const NEST_PARENT = 1;
const FAULT_ID_VALID = 4;
const DATA_SELFTEST = 0xdead;
const INVALIDATE_SELFTEST = 0xdeadbeef;
const INVALIDATE_INVALID = 0xdadbeef;
const FLAG_ALL = 1;
const DEFAULT = 0xbadbeef;

export function allocHwptNested({ p, ioasId, deviceId, stdevId }: IoasSelf): void {
  const { t } = p;
  const dataVa = p.buffer;
  const data = { type: DATA_SELFTEST, va: dataVa, len: 8 };
  p.write(dataVa, HwptSelftest.toBytes({ iotlb: DEFAULT }));
  if (stdevId === 0) {
    t.is(p.hwptAlloc(deviceId, ioasId).errno, ENOENT);
    t.is(p.hwptAlloc(deviceId, 0, 0, data).errno, ENOENT);
    t.is(p.mockReplace(stdevId, 0), ENOENT);
    return;
  }
  t.is(p.hwptAlloc(ioasId, deviceId).errno, ENOENT, 'no device');
  t.is(p.hwptAlloc(deviceId, deviceId).errno, EINVAL, 'no page table');
  t.is(p.hwptAlloc(deviceId, ioasId, NEST_PARENT | FAULT_ID_VALID).errno, EOPNOTSUPP);
  const parent = p.ok(p.hwptAlloc(deviceId, ioasId, NEST_PARENT)).outHwptId;
  const noParent = p.ok(p.hwptAlloc(deviceId, ioasId)).outHwptId;

  const nested = (fields: Partial<typeof data>, over = parent, flags = 0) =>
    p.hwptAlloc(deviceId, over, flags, { ...data, ...fields });
  t.is(nested({ type: 0 }).errno, EINVAL, 'data of no type');
  t.is(nested({ type: DATA_SELFTEST + 1 }).errno, EOPNOTSUPP);
  t.is(nested({ len: 3 }).errno, EINVAL);
  t.is(nested({ va: 0n }).errno, EFAULT);
  t.is(nested({}, parent, NEST_PARENT).errno, EOPNOTSUPP);
  t.is(nested({}, noParent).errno, EINVAL);

  const fault = p.faultAlloc();
  const first = p.ok(nested({})).outHwptId;
  const second = p.ok(nested({})).outHwptId;
  t.is(p.hwptAlloc(deviceId, parent, FAULT_ID_VALID, data, 0xffff_ffff).errno, ENOENT);
  const iopf = p.ok(p.hwptAlloc(deviceId, parent, FAULT_ID_VALID, data, fault.faultId)).outHwptId;
  p.checkIotlb(first, [DEFAULT, DEFAULT, DEFAULT, DEFAULT]);
  p.checkIotlb(second, [DEFAULT, DEFAULT, DEFAULT, DEFAULT]);
  t.is(nested({}, first).errno, EINVAL, 'nested on nested');
  t.is(p.destroy(parent), EBUSY);

  const entriesVa = p.buffer + 4096n;
  /** @param entries  [flags, iotlbId] each */
  const invalidate = (
    hwptId: number,
    entries: readonly (readonly [number, number])[],
    { type = INVALIDATE_SELFTEST, va = entriesVa, len = 8 } = {},
  ) => {
    entries.forEach(([flags, iotlbId], i) => {
      p.write(entriesVa + BigInt(8 * i), HwptInvalidateSelftest.toBytes({ flags, iotlbId }));
    });
    const { errno, out } = p.invalidate(hwptId, type, va, len, entries.length);
    return [errno, out.entryNum];
  };
  const one = [[0, 0]] as const;
  t.deepEqual(invalidate(parent, one), [EINVAL, 0], 'a nest parent');
  t.deepEqual(invalidate(first, []), [0, 0], 'no entries: the type is known');
  t.deepEqual(invalidate(first, one, { type: INVALIDATE_INVALID }), [EINVAL, 0]);
  t.deepEqual(invalidate(first, one, { len: 9 }), [EINVAL, 0]);
  t.deepEqual(invalidate(first, one, { len: 1 }), [EINVAL, 0]);
  t.deepEqual(invalidate(first, [[0xffff_ffff, 0]]), [EOPNOTSUPP, 0]);
  t.deepEqual(invalidate(first, one, { va: 0n }), [EINVAL, 0]);
  t.deepEqual(invalidate(first, one, { len: 0 }), [EINVAL, 0]);
  t.deepEqual(invalidate(first, [[0, 4]]), [EINVAL, 0]);

  t.deepEqual(
    invalidate(first, [
      [0, 0],
      [0xffff_ffff, 1],
    ]),
    [EOPNOTSUPP, 1],
  );
  p.checkIotlb(first, [0, DEFAULT, DEFAULT, DEFAULT]);
  t.deepEqual(
    invalidate(first, [
      [0, 0],
      [0, 4],
    ]),
    [EINVAL, 1],
  );
  p.checkIotlb(first, [0, DEFAULT, DEFAULT, DEFAULT]);
  t.deepEqual(invalidate(first, [[0, 1]]), [0, 1]);
  p.checkIotlb(first, [0, 0, DEFAULT, DEFAULT]);
  t.deepEqual(
    invalidate(first, [
      [0, 2],
      [0, 3],
    ]),
    [0, 2],
  );
  p.checkIotlb(first, [0, 0, 0, 0]);
  t.deepEqual(invalidate(second, [[FLAG_ALL, 0]]), [0, 1]);
  p.checkIotlb(second, [0, 0, 0, 0]);

  t.is(p.mockReplace(stdevId, first), 0);
  t.is(p.destroy(first), EBUSY);
  t.is(p.mockReplace(stdevId, second), 0);
  t.is(p.destroy(second), EBUSY);
  t.is(p.destroy(first), 0);
  t.is(p.mockReplace(stdevId, iopf), 0);
  t.is(p.destroy(iopf), EBUSY);
  triggerIopf(p, deviceId, fault.fd);

  t.is(p.mockReplace(stdevId, parent), 0);
  t.is(p.destroy(second), 0);
  t.is(p.destroy(iopf), 0);
  t.is(p.mockReplace(stdevId, ioasId), 0);
  t.is(p.destroy(parent), 0);
  t.is(p.destroy(noParent), 0);
  p.closeFd(fault.fd);
  t.is(p.destroy(fault.faultId), 0);
}
