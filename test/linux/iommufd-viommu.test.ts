/** iommufd_viommu: vIOMMUs, vDEVICEs, their events and caches, and hardware queues. */
import { EBUSY, EEXIST, EINVAL, EIO, ENOENT, ENXIO, EOPNOTSUPP, EOVERFLOW } from '../../uapi/abi/errno.js';
import {
  HwptSelftest,
  ViommuEventSelftest,
  ViommuInvalidateSelftest,
  ViommuSelftest,
} from '../../uapi/drivers/selftest.js';
import { HwQueueAlloc, IOMMU_HW_QUEUE_ALLOC } from '../../uapi/iommufd/hw-queue.js';
import { IOMMU_TEST_OP_TRIGGER_VEVENT, TestTriggerVevent } from '../../uapi/iommufd/test.js';
import { IOMMU_VDEVICE_ALLOC, VdeviceAlloc } from '../../uapi/iommufd/vdevice.js';
import { IOMMU_VEVENTQ_ALLOC, VeventHeader, VeventqAlloc } from '../../uapi/iommufd/veventq.js';
import { IOMMU_VIOMMU_ALLOC, ViommuAlloc } from '../../uapi/iommufd/viommu.js';
import { fixture } from './fixture.js';
import { triggerIopf } from './iopf.js';
import { PAGE, Program, U64_MAX } from './program.js';

const APERTURE_START = 0x100_0000n;
const [NEST_PARENT, FAULT_ID_VALID] = [1, 4];
const SELFTEST = 0xdeadbeef;
const VEVENTQ_SELFTEST = 0xbeefbeef;
const INVALIDATE_INVALID = 0xdadbeef;
const DATA_SELFTEST = 0xdead;
const CACHE_DEFAULT = 0xbaddad;
const LOST_EVENTS = 1;

interface Self {
  readonly p: Program;
  readonly ioasId: number;
  readonly stdevId: number;
  readonly deviceId: number;
  readonly hwptId: number;
  readonly viommuId: number;
  readonly nestedId: number;
}

function viommuAlloc(p: Program, devId: number, hwptId: number, type = SELFTEST, dataUptr = 0n, dataLen = 0) {
  return p.call(IOMMU_VIOMMU_ALLOC, ViommuAlloc, { type, devId, hwptId, dataUptr, dataLen });
}

function vdeviceAlloc(p: Program, viommuId: number, devId: number, virtId: bigint) {
  return p.call(IOMMU_VDEVICE_ALLOC, VdeviceAlloc, { viommuId, devId, virtId });
}

/** Data of a nested page table, in user memory. */
function nestedData(p: Program) {
  p.write(p.buffer, HwptSelftest.toBytes({ iotlb: 0xbadbeef }));
  return { type: DATA_SELFTEST, va: p.buffer, len: HwptSelftest.size };
}

/** Reads up to `count` events. @returns their sequence numbers and virtual IDs, null for a LOST_EVENTS header */
function readEvents(p: Program, fd: number, count: number) {
  const file = p.machine.core.own.files.get(fd);
  p.t.is((file?.poll?.() ?? 0) & 1, 1, 'readable');
  const bytes = file?.read?.(count * 12);
  if (!(bytes instanceof Uint8Array)) throw new Error('nothing was read');
  const events: { sequence: number; virtId: number | null }[] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const { flags, sequence } = VeventHeader.decode(bytes, at);
    at += VeventHeader.size;
    if (flags === LOST_EVENTS) events.push({ sequence, virtId: null });
    else {
      events.push({ sequence, virtId: ViommuEventSelftest.decode(bytes, at).virtId });
      at += ViommuEventSelftest.size;
    }
  }
  return events;
}

fixture('iommufd_viommu', {
  variants: { no_viommu: false, mock_viommu: true },
  setup: (t, viommu): Self => {
    const p = new Program(t);
    const ioasId = p.ioasAlloc();
    p.memoryLimit(65536);
    if (!viommu) return { p, ioasId, stdevId: 0, deviceId: 0, hwptId: 0, viommuId: 0, nestedId: 0 };
    const { errno, stdevId, deviceId } = p.mockDomain(ioasId);
    t.is(errno, 0);
    const hwptId = p.ok(p.hwptAlloc(deviceId, ioasId, NEST_PARENT)).outHwptId;
    const viommuId = p.ok(viommuAlloc(p, deviceId, hwptId)).outViommuId;
    const nestedId = p.ok(p.hwptAlloc(deviceId, viommuId, 0, nestedData(p))).outHwptId;
    return { p, ioasId, stdevId, deviceId, hwptId, viommuId, nestedId };
  },
  teardown: (_t, { p }) => p.finish(),
  tests: {
    viommu_auto_destroy: (t) => {
      t.pass('teardown finds nothing left');
    },

    viommu_negative_tests: (t, { p, ioasId, deviceId, hwptId, viommuId }) => {
      t.is(viommuAlloc(p, deviceId, 0).errno, ENOENT);
      if (deviceId === 0) return;
      const plain = p.ok(p.hwptAlloc(deviceId, ioasId)).outHwptId;
      t.is(viommuAlloc(p, deviceId, plain).errno, EINVAL, 'no nest parent');
      t.is(p.destroy(plain), 0);
      t.is(viommuAlloc(p, deviceId, hwptId, 0xdead).errno, EOPNOTSUPP);
      t.is(p.destroy(hwptId), EBUSY);
      t.is(p.destroy(viommuId), EBUSY);
    },

    viommu_alloc_nested_iopf: (t, { p, ioasId, stdevId, deviceId, viommuId }) => {
      const fault = p.faultAlloc();
      const alloc = (flags: number, faultId: number) =>
        p.hwptAlloc(deviceId, viommuId, flags, nestedData(p), faultId);
      t.is(alloc(FAULT_ID_VALID, 0xffff_ffff).errno, ENOENT);
      t.is(alloc(0x8000_0004, fault.faultId).errno, EOPNOTSUPP);
      const iopf = p.ok(alloc(FAULT_ID_VALID, fault.faultId)).outHwptId;
      t.is(p.mockReplace(stdevId, iopf), ENOENT, 'a vDEVICE comes first');
      p.ok(vdeviceAlloc(p, viommuId, deviceId, 0x99n));
      t.is(p.mockReplace(stdevId, iopf), 0);
      t.is(p.destroy(iopf), EBUSY);
      triggerIopf(p, deviceId, fault.fd);
      t.is(p.mockReplace(stdevId, ioasId), 0);
      t.is(p.destroy(iopf), 0);
      p.closeFd(fault.fd);
      t.is(p.destroy(fault.faultId), 0);
    },

    viommu_alloc_with_data: (t, { p, deviceId, hwptId }) => {
      p.write(p.buffer, ViommuSelftest.toBytes({ inData: 0xbeef }));
      const { outViommuId } = p.ok(viommuAlloc(p, deviceId, hwptId, SELFTEST, p.buffer, ViommuSelftest.size));
      const data = ViommuSelftest.decode(p.read(p.buffer, ViommuSelftest.size));
      t.is(data.outData, 0xbeef);
      const length = Number(data.outMmapLength);
      const mmap = (offset: bigint, bytes: number) => {
        const file = p.machine.core.own.files.get(p.fd.fd);
        return file?.mmap?.(offset, bytes, true, false);
      };
      t.is(mmap(data.outMmapOffset + PAGE, length), -ENXIO);
      t.is(mmap(data.outMmapOffset + 2n * PAGE, length), -ENXIO);
      t.is(mmap(data.outMmapOffset, length / 2), -ENXIO);
      t.is(mmap(data.outMmapOffset, length * 2), -ENXIO);
      const mapping = mmap(data.outMmapOffset, length);
      if (typeof mapping !== 'object') {
        t.fail('the page cannot be mapped');
        return;
      }
      t.is(new DataView(p.machine.memory.u8.buffer).getUint32(mapping.linear, true), 0xbeef);
      t.is(p.destroy(outViommuId), EBUSY, 'while it is mapped');
      mapping.unmap();
      t.is(p.destroy(outViommuId), 0);
    },

    vdevice_alloc: (t, { p, ioasId, stdevId, deviceId, viommuId, nestedId }) => {
      if (deviceId === 0) {
        t.is(vdeviceAlloc(p, viommuId, deviceId, 0x99n).errno, ENOENT);
        return;
      }
      t.is(p.mockReplace(stdevId, nestedId), ENOENT, 'a vDEVICE comes first');
      const queueOf = { viommuId, type: VEVENTQ_SELFTEST, veventqDepth: 2 };
      const queue = p.ok(p.call(IOMMU_VEVENTQ_ALLOC, VeventqAlloc, queueOf));
      t.is(p.call(IOMMU_VEVENTQ_ALLOC, VeventqAlloc, queueOf).errno, EEXIST);
      const trigger = (count: number) => {
        for (let i = 0; i < count; i++)
          p.ok(p.test(IOMMU_TEST_OP_TRIGGER_VEVENT, 0, TestTriggerVevent, { devId: deviceId }));
      };
      const first = p.ok(vdeviceAlloc(p, viommuId, deviceId, 0x99n)).outVdeviceId;
      t.is(p.mockReplace(stdevId, nestedId), 0);
      trigger(1);
      t.deepEqual(readEvents(p, queue.outVeventqFd, 1), [{ sequence: 0, virtId: 0x99 }]);
      t.is(vdeviceAlloc(p, viommuId, deviceId, 0x99n).errno, EEXIST);
      t.is(p.mockReplace(stdevId, ioasId), 0);
      t.is(p.destroy(first), 0);

      const second = p.ok(vdeviceAlloc(p, viommuId, deviceId, 0x88n)).outVdeviceId;
      t.is(p.mockReplace(stdevId, nestedId), 0);
      trigger(3);
      t.deepEqual(readEvents(p, queue.outVeventqFd, 3), [
        { sequence: 1, virtId: 0x88 },
        { sequence: 2, virtId: 0x88 },
        { sequence: 3, virtId: null },
      ]);
      trigger(1);
      t.deepEqual(readEvents(p, queue.outVeventqFd, 1), [{ sequence: 4, virtId: 0x88 }]);
      p.closeFd(queue.outVeventqFd);
      t.is(p.mockReplace(stdevId, ioasId), 0);
      t.is(p.destroy(second), 0);
      t.is(p.destroy(queue.outVeventqId), 0);
    },

    vdevice_cache: (t, { p, deviceId, viommuId }) => {
      const vdevice = p.ok(vdeviceAlloc(p, viommuId, deviceId, 0x99n)).outVdeviceId;
      const full = CACHE_DEFAULT;
      p.checkDevCache(deviceId, [full, full, full, full]);
      type Entry = Partial<{ flags: number; vdevId: number; cacheId: number }>;
      const invalidate = (entries: readonly Entry[], { type = SELFTEST, va = p.buffer, len = 12 } = {}) => {
        entries.forEach((entry, i) => {
          p.write(p.buffer + BigInt(12 * i), ViommuInvalidateSelftest.toBytes({ vdevId: 0x99, ...entry }));
        });
        const { errno, out } = p.invalidate(viommuId, type, va, len, entries.length);
        return [errno, out.entryNum];
      };
      const ALL = 0xffff_ffff;
      t.deepEqual(invalidate([]), [0, 0]);
      t.deepEqual(invalidate([{}], { type: INVALIDATE_INVALID }), [EINVAL, 0]);
      t.deepEqual(invalidate([{ vdevId: 0 }], { len: 13 }), [EINVAL, 0], 'a longer entry, of no device');
      t.deepEqual(invalidate([{}], { len: 1 }), [EINVAL, 0]);
      t.deepEqual(invalidate([{ flags: ALL }]), [EOPNOTSUPP, 0]);
      t.deepEqual(invalidate([{}], { va: 0n }), [EINVAL, 0]);
      t.deepEqual(invalidate([{}], { len: 0 }), [EINVAL, 0]);
      t.deepEqual(invalidate([{ cacheId: 4 }]), [EINVAL, 0]);
      t.deepEqual(invalidate([{ vdevId: 9 }]), [EINVAL, 0]);
      t.deepEqual(invalidate([{}, { flags: ALL, cacheId: 1 }]), [EOPNOTSUPP, 1]);
      p.checkDevCache(deviceId, [0, full, full, full]);
      t.deepEqual(invalidate([{}, { cacheId: 4 }]), [EINVAL, 1]);
      p.checkDevCache(deviceId, [0, full, full, full]);
      t.deepEqual(invalidate([{ cacheId: 1 }]), [0, 1]);
      p.checkDevCache(deviceId, [0, 0, full, full]);
      t.deepEqual(invalidate([{ cacheId: 2 }, { cacheId: 3 }]), [0, 2]);
      p.checkDevCache(deviceId, [0, 0, 0, 0]);
      t.deepEqual(invalidate([{ flags: 1 }]), [0, 1]);
      p.checkDevCache(deviceId, [0, 0, 0, 0]);
      t.is(p.destroy(vdevice), 0);
    },

    hw_queue: (t, { p, ioasId, viommuId }) => {
      const alloc = (index: number, nestingParentIova: bigint, length: bigint, type = SELFTEST) =>
        p.call(IOMMU_HW_QUEUE_ALLOC, HwQueueAlloc, { viommuId, type, index, nestingParentIova, length });
      t.is(alloc(0, APERTURE_START, PAGE, 0).errno, EOPNOTSUPP);
      t.is(alloc(0, APERTURE_START, 0n).errno, EINVAL);
      t.is(alloc(0, U64_MAX, PAGE).errno, EOVERFLOW);
      t.is(alloc(0, APERTURE_START, PAGE).errno, ENOENT, 'nothing is mapped there');
      const { iova } = p.ok(p.map(ioasId, p.buffer, PAGE));
      const { iova: free } = p.ok(p.map(ioasId, p.buffer + PAGE, PAGE));
      t.is(alloc(1, iova, PAGE).errno, EIO, 'the first index is 0');
      t.is(alloc(2, iova, PAGE).errno, EINVAL, 'there are two');
      const first = p.ok(alloc(0, iova, PAGE)).outHwQueueId;
      t.is(alloc(0, iova, PAGE).errno, EEXIST);
      t.is(p.unmap(ioasId, iova, PAGE).errno, EBUSY, 'the queue lies there');
      p.ok(p.unmap(ioasId, free, PAGE));
      const second = p.ok(alloc(1, iova + PAGE / 2n, PAGE / 2n)).outHwQueueId;
      t.is(p.destroy(first), EBUSY, 'last come, first gone');
      t.is(p.destroy(second), 0);
      t.is(p.destroy(first), 0);
      p.ok(p.unmap(ioasId, iova, PAGE));
    },

    vdevice_tombstone: (t, { p, stdevId, deviceId, viommuId }) => {
      const vdevice = p.ok(vdeviceAlloc(p, viommuId, deviceId, 0x99n)).outVdeviceId;
      t.is(p.destroy(stdevId), 0);
      t.is(p.destroy(vdevice), ENOENT);
    },
  },
});
