/** A machine whose SMMUs are reset under the iommufd core. Register offsets: [IHI0070] 6.2. */
import test from 'ava';
import { Xlat } from '../../hw/iotlb/port-layout.js';
import { UnitLayout } from '../../hw/iotlb/unit-layout.js';
import { Smmuv3Layout } from '../../hw/smmuv3/smmuv3-layout.js';
import { openImage } from '../../runtime/image/opened-machine.js';
import { createMachine, type Machine } from '../../runtime/machine.js';
import { ok } from '../kit/vmm-fixture.js';
import { MachineFixture } from '../kit/vmm-machine.js';

const CR0ACK = 0x24;
const STRTAB_BASE = 0x80;
const EVENTQ_PROD = 0x100a8;
const EVENTQ_CONS = 0x100ac;
const SFM_ERR = 1 << 8;
const F_TRANSLATION = 0x10;
const ABORTED = 0xff;
const IOVA = 0x1000_0000n;
const DEVICES = ['0000:01:00.0', '0001:01:00.0'] as const;

function attached() {
  const logged: string[] = [];
  const machine = createMachine(
    {
      memory: '64MiB',
      iommus: [
        { name: 'smmu0', model: 'smmuv3' },
        { name: 'smmu1', model: 'smmuv3' },
      ],
      devices: DEVICES.map((bdf, i) => ({ bdf, iommu: `smmu${i}` })),
      debugLocks: true,
    },
    { log: (message) => logged.push(message) },
  );
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const userVa = machine.user.alloc(2 ** 16);
  fd.ioasMap({ ioasId, userVa, length: '64KiB', iova: IOVA });
  const vfios = DEVICES.map((bdf) => {
    const vfio = machine.openVfio(bdf);
    vfio.bindIommufd(fd);
    vfio.attach(ioasId);
    return vfio;
  });
  return { machine, fd, ioasId, vfios, logged };
}

const write = (machine: Machine, device: number, iova = IOVA): number =>
  machine.dmaPort(DEVICES[device]!).write(iova, new Uint8Array(4));
const walks = ({ memory }: Machine, iommu: number): number =>
  memory.words.load(memory.region(UnitLayout, `unit:${iommu}`).base + UnitLayout.at.fillSeq);

test('reset: what was attached translates again, out of empty caches, and the core goes on', (t) => {
  const { machine, fd, ioasId, vfios } = attached();
  t.is(write(machine, 0), 0);
  t.is(write(machine, 0, IOVA - 4096n), F_TRANSLATION);
  const { mmio } = machine.iommu('smmu0');
  const table = mmio.read64(STRTAB_BASE);
  const walked = walks(machine, 0);
  machine.reset();
  t.is(mmio.read32(CR0ACK) & 1, 1);
  t.is(mmio.read64(STRTAB_BASE), table);
  t.is(mmio.read32(EVENTQ_PROD), mmio.read32(EVENTQ_CONS), 'the event nobody read is gone');
  t.is(write(machine, 0), 0);
  t.true(walks(machine, 0) > walked, 'its translation was not cached any more');
  fd.ioasUnmap({ ioasId, iova: IOVA, length: '64KiB' });
  for (const device of [0, 1]) t.is(write(machine, device), F_TRANSLATION);
  for (const vfio of vfios) vfio.detach();
  t.is(write(machine, 0), ABORTED);
  machine.reset();
  machine.reset();
  t.is(write(machine, 0), ABORTED);
  vfios[0]!.attach(ioasId);
  t.is(write(machine, 0), F_TRANSLATION);
  machine.close();
});

test('reset: the ATC of a device is emptied, and ATS stays on', (t) => {
  const machine = createMachine({
    memory: '32MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3', ats: true }],
    devices: [{ bdf: DEVICES[0], iommu: 'smmu0', ats: true }],
  });
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  fd.ioasMap({ ioasId, userVa: machine.user.alloc(4096), length: 4096, iova: IOVA });
  const vfio = machine.openVfio(DEVICES[0]);
  vfio.bindIommufd(fd);
  vfio.attach(ioasId);
  const port = machine.dmaPort(DEVICES[0]);
  const sourceOf = (): number => {
    t.is(write(machine, 0), 0);
    return port.field(0, Xlat.at.source);
  };
  sourceOf();
  const FROM_ATC = 5;
  t.is(sourceOf(), FROM_ATC);
  const requests = walks(machine, 0);
  machine.reset();
  t.true(port.ats.enabled);
  sourceOf();
  t.is(walks(machine, 0), requests + 1);
  // So are images: with their ATC, or without.
  for (const [caches, walked] of [
    [true, 0],
    [false, 1],
  ] as const) {
    const opened = openImage(machine.saveImage({ caches }));
    const filled = (): number =>
      opened.memory.words.load(opened.memory.region(UnitLayout, 'unit:0').base + UnitLayout.at.fillSeq);
    const before = filled();
    t.is(opened.dmaPort(DEVICES[0]).write(IOVA, new Uint8Array(4)), 0);
    t.is(filled() - before, walked, `caches ${caches}`);
  }
  machine.close();
});

test('reset: one SMMU alone', (t) => {
  const { machine } = attached();
  for (const device of [0, 1]) t.is(write(machine, device), 0);
  const before = [walks(machine, 0), walks(machine, 1)];
  machine.reset('smmu1');
  for (const device of [0, 1]) t.is(write(machine, device), 0);
  t.deepEqual([walks(machine, 0), walks(machine, 1)], [before[0], before[1]! + 1]);
  t.throws(() => machine.reset('smmu2'), { instanceOf: RangeError });
  machine.close();
});

test('reset: brings back an SMMU that entered Service Failure Mode', (t) => {
  const { machine, logged } = attached();
  t.is(write(machine, 1), 0);
  const { memory } = machine;
  memory.words.xor(memory.region(Smmuv3Layout, 'smmuv3:1').base + Smmuv3Layout.at.gerror, SFM_ERR);
  machine.poll();
  machine.settle();
  t.true(
    logged.includes('smmu1: the SMMU has entered Service Failure Mode and was disabled'),
    logged.join('\n'),
  );
  t.is(machine.iommu('smmu1').mmio.read32(CR0ACK), 0);
  t.is(write(machine, 1), ABORTED);
  t.is(write(machine, 0), 0);
  machine.reset('smmu1');
  t.is(write(machine, 1), 0);
  machine.close();
});

test('reset: a guest’s stream is translated by the guest’s tables as before, and its invalidations work', (t) => {
  const fixture = new MachineFixture([0]);
  const host = fixture.vm();
  host.vm.attachDevice(0, 5);
  const driver = fixture.driver(host);
  const space = ok(driver.createSpace());
  driver.map(space, 0x10, host.ram.allocZeroed(), 1, 3);
  t.is(driver.setupStream(5, space), 0);
  t.is(fixture.write(0, 0x1_0000n, 8, 1), 0);
  fixture.machine.reset();
  t.is(fixture.write(0, 0x1_0000n, 8, 2), 0);
  t.is(driver.unmap(space, 0x10, 1), 1);
  t.is(fixture.write(0, 0x1_0000n, 8, 2), F_TRANSLATION);
  t.is(host.end(), 0);
});
