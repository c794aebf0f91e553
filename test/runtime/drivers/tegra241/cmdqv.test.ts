import test from 'ava';
import { createMachine } from '../../../../runtime/machine.js';
import type { MachineConfig } from '../../../../runtime/machine-schema.js';
import { errnoOf, errnoOfFailure } from '../../../kit/core-bench.js';

const [EIO, EFAULT, EBUSY, EEXIST, EINVAL, ENOSPC, EOPNOTSUPP] = [5, 14, 16, 17, 22, 28, 95];
const TEGRA = 2;
const NEST_PARENT = 1;
const RAM = 0x4000_0000n;
const VINTF = (v: number): number => 0x1000 + 0x100 * v;

function bench(cmdqv: NonNullable<MachineConfig['iommus'][number]['cmdqv']> = true, extra: object = {}) {
  const machine = createMachine({
    memory: '64MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3', cmdqv }],
    devices: [0, 1, 2].map((i) => ({ bdf: `0000:00:0${i}.0`, iommu: 'smmu0' })),
    ...extra,
  });
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const bind = (i: number) => {
    const vfio = machine.openVfio(`0000:00:0${i}.0`);
    return { vfio, devId: vfio.bindIommufd(fd).devId };
  };
  const { devId } = bind(0);
  const hwptId = fd.hwptAlloc({ devId, ptId: ioasId, flags: NEST_PARENT }).hwptId;
  const userVa = machine.user.alloc('1MiB', { contiguous: true });
  fd.ioasMap({ ioasId, userVa, length: '1MiB', iova: RAM });
  const viommu = (data = new Uint8Array(16)) => {
    const made = fd.viommuAlloc({ devId, hwptId, type: TEGRA, data });
    const view = new DataView(made.data.buffer);
    const mmap = { offset: view.getBigUint64(0, true), length: Number(view.getBigUint64(8, true)) };
    return { viommuId: made.viommuId, mmap };
  };
  const queue = (viommuId: number, index: number, fields: object = {}) =>
    fd.hwQueueAlloc({ viommuId, type: 1, index, iova: RAM, length: 4096, ...fields }).hwQueueId;
  return { machine, fd, ioasId, bind, devId, hwptId, viommu, queue };
}

test('cmdqv: a configuration that cannot be is refused by its key', (t) => {
  const key = (cmdqv: unknown) => {
    const config = { iommus: [{ name: 'a', model: 'smmuv3', cmdqv }], devices: [] };
    return t.throws(() => createMachine(config as MachineConfig), { name: 'ConfigError' })?.message;
  };
  t.regex(key(1)!, /^iommus\[0\]\.cmdqv/);
  t.regex(key({ vintfs: 3 })!, /^iommus\[0\]\.cmdqv\.vintfs: 3 is not a power of two up to 64/);
  t.regex(key({ vintfs: 64, vcmdqsPerVintf: 4 })!, /^iommus\[0\]\.cmdqv\.vcmdqsPerVintf: /);
  t.regex(key({ sidsPerVintf: 17 })!, /^iommus\[0\]\.cmdqv\.sidsPerVintf: /);
});

test('cmdqv: hardware info is given on request; what an SMMU is without one it refuses', (t) => {
  const { fd, devId } = bench({ vintfs: 8, vcmdqsPerVintf: 4, sidsPerVintf: 8 });
  const info = fd.getHwInfo({ devId, dataType: 3 });
  t.is(info.dataType, 3);
  t.deepEqual([...info.data], [0, 0, 0, 0, 1, 2, 3, 0]);
  t.is(fd.getHwInfo({ devId }).dataType, 2, 'the SMMU’s own unless asked');
  t.is(
    errnoOf(() => fd.getHwInfo({ devId, dataType: 4 })),
    EOPNOTSUPP,
  );
  const plain = bench(false);
  t.is(
    errnoOf(() => plain.fd.getHwInfo({ devId: plain.devId, dataType: 3 })),
    EOPNOTSUPP,
  );
  t.is(
    errnoOf(() => plain.viommu()),
    EOPNOTSUPP,
  );
});

test('cmdqv: a vIOMMU has a VINTF with its VMID, and says what to map', (t) => {
  const { machine, fd, viommu, devId, hwptId } = bench({ vintfs: 4 });
  const errno = (data?: Uint8Array) =>
    errnoOf(() => fd.viommuAlloc({ devId, hwptId, type: TEGRA, ...(data && { data }) }));
  t.is(errno(), EINVAL, 'without data');
  t.is(errno(new Uint8Array(8)), EINVAL);
  t.is(errno(new Uint8Array(24)), EINVAL);
  const made = viommu();
  t.deepEqual(made.mmap, { offset: 0x1000n, length: 0x1_0000 });
  const { cmdqv } = machine.iommu('smmu0');
  const config = cmdqv!.read32(VINTF(1));
  t.is(config & 1, 1);
  t.is((config >>> 17) & 1, 0, 'not the hypervisor’s');
  t.not((config >>> 1) & 0xffff, 0);
  t.is(cmdqv!.read32(VINTF(0)), (1 << 17) | 1, 'the kernel’s own');
  viommu();
  viommu();
  t.is(
    errnoOf(() => viommu()),
    ENOSPC,
    'VINTF 0 is nobody’s',
  );
  fd.destroy(made.viommuId);
  t.is(cmdqv!.read32(VINTF(1)), 0);
  t.is(viommu().mmap.offset, 0x1000n);
});

test('cmdqv: data that cannot be written leaves no VINTF behind', (t) => {
  const { fd, devId, hwptId, viommu } = bench({ vintfs: 2 });
  const bytes = new Uint8Array(40);
  const view = new DataView(bytes.buffer);
  [40, 0, TEGRA, devId, hwptId, 0, 16].forEach((word, i) => {
    view.setUint32(i * 4, word, true);
  });
  view.setBigUint64(32, 0x10n, true);
  t.is(fd.ioctl(0x3b90, bytes), -EFAULT);
  t.notThrows(() => viommu());
});

test('cmdqv: queues begin at index 0 and end with the last; sizes, alignment', (t) => {
  const { fd, viommu, queue } = bench({ vcmdqsPerVintf: 4 });
  const { viommuId } = viommu();
  const errno = (index: number, fields = {}) => errnoOf(() => queue(viommuId, index, fields));
  t.is(errno(4), EINVAL);
  t.is(errno(1), EIO);
  t.is(errno(0, { length: 16 }), EINVAL, 'shorter than two commands');
  t.is(errno(0, { length: 48 }), EINVAL, 'no power of two');
  t.is(errno(0, { length: 0x8000 }), EINVAL, 'more than IDR1.CMDQS');
  t.is(errno(0, { iova: RAM + 0x800n }), EINVAL, 'not aligned to its length');
  t.is(errno(0, { iova: RAM + 0x810n, length: 32 }), EINVAL);
  t.is(errno(0, { type: 2 }), EOPNOTSUPP);
  const queues = [0, 1, 2].map((index) => queue(viommuId, index, { iova: RAM + 0x4000n * BigInt(index) }));
  t.is(errno(1), EEXIST);
  for (const id of [queues[0]!, queues[1]!])
    t.is(
      errnoOf(() => fd.destroy(id)),
      EBUSY,
    );
  t.is(
    errnoOf(() => fd.destroy(viommuId)),
    EBUSY,
  );
  for (const id of queues.reverse()) fd.destroy(id);
  t.is(errno(0, { length: 32, iova: RAM + 0x20n }), 0);
});

test('cmdqv: the queue’s memory stays mapped as long as it lives', (t) => {
  const { fd, ioasId, viommu, queue } = bench();
  const { viommuId } = viommu();
  const id = queue(viommuId, 0);
  const unmap = () => errnoOf(() => fd.ioasUnmap({ ioasId, iova: RAM, length: '1MiB' }));
  t.is(unmap(), EBUSY);
  fd.destroy(id);
  t.is(unmap(), 0);
});

test('cmdqv: the hardware gets the queue’s physical address, and the next guest nothing of it', (t) => {
  const { machine, fd, viommu, queue } = bench();
  const { viommuId, mmap } = viommu();
  const id = queue(viommuId, 0, { iova: RAM + 0x1000n });
  const { cmdqv } = machine.iommu('smmu0');
  const page1 = 0x30000 + 0x20000 + 0x10000;
  const base = cmdqv!.read64(page1);
  t.is(base & 0x1fn, 8n);
  t.is(cmdqv!.read32(0x200 + 4 * 2), (1 << 15) | 1);
  const mapping = fd.mmap(mmap);
  const page = new Int32Array(mapping.view.buffer, mapping.view.byteOffset, 6);
  t.is(page[3], 0, 'it is the guest that enables it');
  page.fill(-1);
  machine.poll();
  mapping.unmap();
  fd.destroy(id);
  t.is(cmdqv!.read32(0x200 + 4 * 2), 1 << 15);
  const again = fd.mmap(mmap);
  t.deepEqual([...again.view.subarray(0, 16)], new Array(16).fill(0));
  again.unmap();
  queue(viommuId, 0);
  t.is(cmdqv!.read64(page1) & 0x1fn, 8n);
});

test('cmdqv: a vDEVICE takes a StreamID slot, of which there are few', (t) => {
  const { machine, fd, bind, devId, viommu } = bench({ sidsPerVintf: 2 });
  const { viommuId } = viommu();
  const { cmdqv } = machine.iommu('smmu0');
  const slots = () =>
    [0, 1].map((i) => [cmdqv!.read32(VINTF(1) + 0x40 + 4 * i), cmdqv!.read32(VINTF(1) + 0x80 + 4 * i)]);
  const [second, third] = [bind(1).devId, bind(2).devId];
  const alloc = (dev: number, virtId: number | bigint) =>
    errnoOf(() => fd.vdeviceAlloc({ viommuId, devId: dev, virtId }));
  t.is(alloc(devId, 2n ** 32n), EINVAL);
  t.is(alloc(devId, 2n ** 31n), EINVAL, 'the slot has 31 bits');
  const { vdeviceId } = fd.vdeviceAlloc({ viommuId, devId, virtId: 0x1234 });
  t.deepEqual(slots()[0], [(0x1234 << 1) | 1, 0]);
  t.is(alloc(second, 7), 0);
  t.deepEqual(slots()[1], [(7 << 1) | 1, 8]);
  t.is(alloc(third, 8), ENOSPC);
  fd.destroy(vdeviceId);
  t.deepEqual(slots()[0], [0, 0]);
  t.is(alloc(third, 8), 0);
  t.deepEqual(slots()[0], [(8 << 1) | 1, 16]);
});

test("cmdqv: compat '7.0' shifts the top bit of a virtual StreamID out", (t) => {
  const { machine, fd, devId, viommu } = bench(true, { compat: '7.0' });
  const { viommuId } = viommu();
  t.notThrows(() => fd.vdeviceAlloc({ viommuId, devId, virtId: 2n ** 31n + 5n }));
  t.is(machine.iommu('smmu0').cmdqv!.read32(VINTF(1) + 0x40), (5 << 1) | 1);
});

test('cmdqv: the nth allocation fails, and no VINTF, slot or queue stays taken', (t) => {
  const { machine, fd, viommu, queue, devId } = bench({ vintfs: 2, sidsPerVintf: 1, vcmdqsPerVintf: 1 });
  const { failNth } = machine.core.own;
  const objects = fd.ctx.objectCount;
  for (let nth = 1; ; nth++) {
    const made: number[] = [];
    failNth.arm(nth);
    const errno = errnoOf(() => {
      const { viommuId } = viommu();
      made.push(viommuId);
      made.push(fd.vdeviceAlloc({ viommuId, devId, virtId: 5 }).vdeviceId);
      made.push(queue(viommuId, 0));
    });
    const { failedAt } = failNth;
    failNth.arm(0);
    const expected = failedAt === null ? 0 : errnoOfFailure(failedAt);
    t.is(errno, expected, `${nth}: ${failedAt}`);
    for (const id of made.reverse()) fd.destroy(id);
    t.is(fd.ctx.objectCount, objects, `${nth}: ${failedAt}`);
    if (failedAt === null) break;
  }
  t.notThrows(() => viommu());
});
