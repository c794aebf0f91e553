/** Guests whose devices send with SubstreamIDs (PASIDs): CD tables of a guest's own, nested over the host's stage 2. */
import test from 'ava';
import type { GuestDriver } from '../../../runtime/vmm/guest-driver.js';
import { ok } from '../../kit/vmm-fixture.js';
import { MachineFixture, type VmHost } from '../../kit/vmm-machine.js';

const NO_SSID = 0xffff_ffff;
const RW = 3;
const WRITE = 1;
const EINVAL = 22;
const C_BAD_SUBSTREAMID = 0x08;
const C_BAD_CD = 0x0a;
const F_TRANSLATION = 0x10;
const IOVA = 0x5000_0000n;
const IOVA_PAGE = 0x5_0000;
const V_SID = 7;

/** Writes one byte at IOVA. @returns 0 or the fault */
function send(fixture: MachineFixture, ssid: number, byte: number, device = 0): number {
  const port = fixture.machine.dmaPort(fixture.label(device));
  port.prepare(0, Number(IOVA), 0, WRITE, port.streamId, ssid);
  port.translate(1);
  const status = port.status(0);
  if (status === 0) fixture.machine.memory.u8[fixture.machine.memory.linearOf(port.pa(0), 1)] = byte;
  port.end();
  return status;
}

function started(ssidBits: number) {
  const fixture = new MachineFixture([0]);
  const host = fixture.vm();
  host.vm.attachDevice(0, V_SID);
  const driver = fixture.driver(host);
  const [base, other] = [mapped(host, driver), mapped(host, driver)];
  return { fixture, host, driver, base, other, setup: driver.setupStream(V_SID, base.space, { ssidBits }) };
}

function mapped(host: VmHost, driver: GuestDriver) {
  const space = ok(driver.createSpace());
  const pfn = host.ram.allocZeroed();
  driver.map(space, IOVA_PAGE, pfn, 1, RW);
  return { space, byte: () => host.ram.view(pfn * 4096, 1)![0] };
}

for (const [ssidBits, ssids, table] of [
  [3, [1, 7], 'one array'],
  [12, [5, 3000], 'two levels'],
] as const)
  test(`guest substreams: two spaces under two SubstreamIDs, CD table of ${table}`, (t) => {
    const { fixture, host, driver, base, other, setup } = started(ssidBits);
    t.is(setup, 0);
    const third = mapped(host, driver);
    t.is(driver.setSubstream(V_SID, ssids[0], other.space), 0);
    t.is(driver.setSubstream(V_SID, ssids[1], third.space), 0);
    t.is(send(fixture, NO_SSID, 1), 0);
    t.is(send(fixture, ssids[0], 2), 0);
    t.is(send(fixture, ssids[1], 3), 0);
    t.deepEqual([base.byte(), other.byte(), third.byte()], [1, 2, 3]);
    // One space goes; the others stay.
    t.is(driver.unmap(other.space, IOVA_PAGE, 1), 1);
    t.is(send(fixture, ssids[0], 9), F_TRANSLATION);
    t.is(send(fixture, ssids[1], 4), 0);
    t.is(send(fixture, NO_SSID, 5), 0);
    t.deepEqual([base.byte(), other.byte(), third.byte()], [5, 2, 4]);
    // A substream changes its space.
    t.is(driver.setSubstream(V_SID, ssids[0], third.space), 0);
    t.is(send(fixture, ssids[0], 6), 0);
    t.is(third.byte(), 6);
    t.is(driver.setSubstream(V_SID, ssids[0], null), 0);
    t.is(send(fixture, ssids[0], 9), C_BAD_CD);
    t.is(host.end(), 0);
  });

test('guest substreams: faults come to the guest with their SubstreamID', (t) => {
  const { fixture, host, driver, other } = started(4);
  driver.setSubstream(V_SID, 9, other.space);
  driver.unmap(other.space, IOVA_PAGE, 1);
  t.is(send(fixture, 9, 1), F_TRANSLATION);
  t.is(send(fixture, 16, 1), C_BAD_SUBSTREAMID);
  fixture.machine.poll();
  host.vm.pollEvents();
  t.deepEqual(
    driver.takeEvents().map(({ id, sid, ssid }) => [id, sid, ssid]),
    [
      [F_TRANSLATION, V_SID, 9],
      [C_BAD_SUBSTREAMID, V_SID, 16],
    ],
  );
  t.is(host.end(), 0);
});

test('guest substreams: the ID registers say how many there are, and no more are taken', (t) => {
  const fixture = new MachineFixture([0], {
    iommus: [{ name: 'smmu0', model: 'smmuv3', ssidBits: 5 }],
  });
  const host = fixture.vm();
  host.vm.attachDevice(0, V_SID);
  const mmio = host.vm.smmus[0]!;
  t.is((mmio.read32(0x04) >>> 6) & 0x1f, 5, 'IDR1.SSIDSIZE');
  const driver = fixture.driver(host);
  const space = ok(driver.createSpace());
  t.is(driver.setupStream(V_SID, space, { ssidBits: 6 }), -EINVAL);
  t.is(driver.setupStream(V_SID, space, { ssidBits: 5 }), 0);
  t.is(driver.setSubstream(V_SID, 32, space), -EINVAL);
  t.is(host.end(), 0);
});
