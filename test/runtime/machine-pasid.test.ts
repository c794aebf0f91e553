/** PASIDs of a device through the whole of it: configuration, GET_HW_INFO, VFIO, page tables, DMA. */
import test from 'ava';
import { createMachine, type Machine } from '../../runtime/machine.js';
import type { MachineConfig } from '../../runtime/machine-schema.js';
import { errnoOf } from '../kit/core-bench.js';

const BDF = '0000:01:00.0';
const [EINVAL, EOPNOTSUPP] = [22, 95];
const [DIRTY, EXEC, PRIV, NO_ATS] = [1n, 2n, 4n, 8n];
const ALLOC_PASID = 8;
const C_BAD_CD = 0x0a;
const C_BAD_SUBSTREAMID = 0x08;
const F_TRANSLATION = 0x10;
const IOVA = 0x10_0000n;

type DeviceConfig = Partial<NonNullable<MachineConfig['devices']>[number]>;

function scene(device: DeviceConfig = {}, iommu: Partial<MachineConfig['iommus'][number]> = {}) {
  const machine = createMachine({
    memory: '32MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3', ...iommu }],
    devices: [{ bdf: BDF, iommu: 'smmu0', pasidBits: 6, ...device }],
  });
  const label = machine.config.devices[0]!.label;
  const fd = machine.openIommufd();
  const vfio = machine.openVfio(label);
  const { devId } = vfio.bindIommufd(fd);
  const port = machine.dmaPort(label);
  /** An address space with one page, and its page table. */
  const space = () => {
    const { ioasId } = fd.ioasAlloc();
    const userVa = machine.user.alloc(0x1000);
    fd.ioasMap({ ioasId, userVa, length: 0x1000, iova: IOVA });
    const { hwptId } = fd.hwptAlloc({ devId, ptId: ioasId, flags: ALLOC_PASID });
    return { ioasId, userVa, hwptId };
  };
  const write = (byte: number, pasid?: number) =>
    port.write(IOVA, Uint8Array.of(byte), pasid === undefined ? {} : { pasid });
  return { machine, fd, vfio, devId, port, space, write };
}

const byteAt = (machine: Machine, va: bigint): number => {
  const byte = new Uint8Array(1);
  machine.user.copyIn(va, byte);
  return byte[0]!;
};

test('one device, three address spaces at one IOVA', (t) => {
  const { machine, fd, vfio, space, write } = scene();
  const [own, one, two] = [space(), space(), space()];
  vfio.attach(own.hwptId);
  vfio.attach(one.hwptId, { pasid: 1 });
  vfio.attach(two.hwptId, { pasid: 63 });
  t.deepEqual([write(1), write(2, 1), write(3, 63)], [0, 0, 0]);
  t.deepEqual(
    [own, one, two].map(({ userVa }) => byteAt(machine, userVa)),
    [1, 2, 3],
  );
  fd.ioasUnmap({ ioasId: one.ioasId, iova: IOVA, length: 0x1000 });
  t.is(write(4, 1), F_TRANSLATION, 'an unmap reaches the PASID');
  t.is(write(5, 63), 0);
  vfio.attach(two.hwptId, { pasid: 1 });
  t.is(write(6, 1), 0, 'a move');
  t.is(byteAt(machine, two.userVa), 6);
  vfio.detach({ pasid: 63 });
  t.is(write(7, 63), C_BAD_CD);
  t.is(write(8, 64), C_BAD_SUBSTREAMID);
  machine.reset();
  t.is(write(9, 1), 0, 'attachments survive a reset');
  t.is(byteAt(machine, two.userVa), 9);
  machine.close();
});

test('GET_HW_INFO: the smaller of the device’s width and the SMMU’s, and what the capability has on', (t) => {
  const info = (device: DeviceConfig, ssidBits = 20) => {
    const { machine, fd, devId } = scene(device, { ssidBits });
    const { maxPasidLog2, capabilities } = fd.getHwInfo({ devId });
    machine.close();
    return [maxPasidLog2, capabilities & ~(DIRTY | NO_ATS)];
  };
  t.deepEqual(info({ pasidBits: 0 }), [0, 0n]);
  t.deepEqual(info({ pasidBits: 20 }), [20, 0n]);
  t.deepEqual(info({ pasidBits: 20 }, 12), [12, 0n]);
  t.deepEqual(info({ pasidBits: 8, pasidExec: true }), [8, EXEC]);
  t.deepEqual(info({ pasidBits: 8, pasidExec: true, pasidPriv: true }), [8, EXEC | PRIV]);
});

test('GET_HW_INFO: dirty tracking where the walk keeps dirty state', (t) => {
  for (const [httu, dirty] of [
    ['none', 0n],
    ['access', 0n],
    ['dirty', DIRTY],
  ] as const) {
    const { machine, fd, devId } = scene({}, { httu });
    t.is(fd.getHwInfo({ devId }).capabilities & DIRTY, dirty);
    machine.close();
  }
});

test('a platform device: its PASIDs are counted, and VFIO does not attach them', (t) => {
  const { machine, fd, vfio, devId, space } = scene({ bdf: undefined, name: 'nic', streamId: 5 });
  t.is(fd.getHwInfo({ devId }).maxPasidLog2, 6);
  const { hwptId } = space();
  for (const call of [() => vfio.attach(hwptId, { pasid: 5 }), () => vfio.detach({ pasid: 5 })])
    t.is(errnoOf(call), EOPNOTSUPP);
  machine.close();
});

test('configuration: what is of a PCI device with PASIDs is refused elsewhere, by name', (t) => {
  for (const device of [
    { pasidBits: 0, pasidExec: true },
    { bdf: undefined, name: 'nic', streamId: 5, pasidPriv: true },
  ])
    t.throws(() => scene(device), { message: /^devices\[0\]\.pasid(Exec|Priv): is of a PCI device/ });
  t.throws(() => scene({ pasidBits: 21 }), { message: /^devices\[0\]\.pasidBits: / });
});

test('an IOAS is no page table for a PASID: it has to be allocated with ALLOC_PASID', (t) => {
  const { machine, vfio, space } = scene();
  const { ioasId, hwptId } = space();
  t.is(
    errnoOf(() => vfio.attach(ioasId, { pasid: 5 })),
    EINVAL,
  );
  t.is(vfio.attach(hwptId, { pasid: 5 }).ptId, hwptId);
  t.is(
    errnoOf(() => vfio.attach(ioasId)),
    EINVAL,
    'nor for the device itself, then',
  );
  machine.close();
});
