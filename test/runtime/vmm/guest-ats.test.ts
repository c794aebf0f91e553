/** Guests that let a device keep translations in its ATC, and take them out again. */
import test from 'ava';
import { Xlat } from '../../../hw/iotlb/port-layout.js';
import { ok } from '../../kit/vmm-fixture.js';
import { MachineFixture } from '../../kit/vmm-machine.js';

const FROM_ATC = 5;
const RW = 3;
const V_SID = 9;
const IOVA = 0x7000_3000n;
const IOVA_PAGE = 0x7_0003;
const ATS_BIT = 1 << 10;

function started(vmAts: boolean, streamAts: boolean, deviceAts = true, bugs = {}) {
  const fixture = new MachineFixture([0], {
    iommus: [{ name: 'smmu0', model: 'smmuv3', ats: true }],
    devices: [{ bdf: '0000:00:00.0', iommu: 'smmu0', ats: deviceAts }],
    bugs,
  });
  const host = fixture.vm({ ats: vmAts });
  host.vm.attachDevice(0, V_SID);
  const driver = fixture.driver(host);
  const space = ok(driver.createSpace());
  const pfn = host.ram.allocZeroed(4, 4);
  driver.map(space, IOVA_PAGE, pfn, 4, RW);
  const setup = driver.setupStream(V_SID, space, { ats: streamAts });
  const port = fixture.machine.dmaPort('0000:00:00.0');
  return { fixture, host, driver, space, setup, port };
}

test('guest ATS: a device’s translations are its own until the guest unmaps', (t) => {
  const { fixture, host, driver, space, setup, port } = started(true, true);
  t.is(setup, 0);
  t.is(host.vm.smmus[0]!.read32(0) & ATS_BIT, ATS_BIT);
  t.true(port.ats.enabled);
  for (let i = 0; i < 2; i++) t.is(fixture.write(0, IOVA, 8, i), 0);
  t.is(port.field(0, Xlat.at.source), FROM_ATC);
  t.is(driver.unmap(space, IOVA_PAGE, 1), 1);
  t.not(fixture.write(0, IOVA, 8, 1), 0);
  t.is(fixture.write(0, IOVA + 0x1000n, 8, 1), 0);
  t.is(host.end(), 0);
  t.false(port.ats.enabled);
});

test('guest ATS: host memory that is taken away is gone from the ATC, whatever the guest does', (t) => {
  const { fixture, host } = started(true, true);
  t.is(fixture.write(0, IOVA, 8, 1), 0);
  t.is(host.end(), 0);
  t.not(fixture.write(0, IOVA, 8, 1), 0);
});

test('guest ATS: not offered, or not in its STE, or not in the device: the device asks for nothing', (t) => {
  for (const [vm, stream, device] of [
    [false, true, true],
    [true, false, true],
    [true, true, false],
  ] as const) {
    const { fixture, host, driver, space, port } = started(vm, stream, device);
    t.false(port.ats.enabled, `${vm} ${stream} ${device}`);
    for (let i = 0; i < 2; i++) t.is(fixture.write(0, IOVA, 8, i), 0);
    t.not(port.field(0, Xlat.at.source), FROM_ATC);
    t.is(driver.unmap(space, IOVA_PAGE, 1), 1);
    t.not(fixture.write(0, IOVA, 8, 1), 0);
    t.is(host.end(), 0);
  }
});

test('guest ATS: the deliberate defect leaves the guest’s ATC_INV out, and tells it that it was done', (t) => {
  const { fixture, driver, space } = started(true, true, true, { skipAtcInv: true });
  for (let i = 0; i < 2; i++) t.is(fixture.write(0, IOVA, 8, i), 0);
  t.is(driver.unmap(space, IOVA_PAGE, 1), 1);
  t.is(fixture.write(0, IOVA, 8, 1), 0);
});
