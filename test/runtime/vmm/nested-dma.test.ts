import test, { type ExecutionContext } from 'ava';
import type { VsmmuStrategy } from '../../../runtime/vmm/dispatch.js';
import type { GuestDriver } from '../../../runtime/vmm/guest-driver.js';
import { ok } from '../../kit/vmm-fixture.js';
import { MachineFixture, pattern, type VmHost } from '../../kit/vmm-machine.js';

const READ = 1;
const READ_WRITE = 3;
const F_TRANSLATION = 0x10;
const F_PERMISSION = 0x13;
const ABORT = 0xff;
const PAGE = 4096;
const IOVA = 0x7_0000_3000n;
const IOVA_PAGE = 0x70_0003;

const bytesAt = (host: VmHost, pfn: number, bytes: number): Uint8Array =>
  host.ram.view(pfn * PAGE, bytes)!.slice();

test('nested DMA: IOVA to IPA to RAM, both directions, across pages that do not lie together', (t) => {
  const fixture = new MachineFixture([0]);
  const host = fixture.vm();
  t.is(host.vm.attachDevice(0, 5), 0);
  const driver = fixture.driver(host);
  const space = ok(driver.createSpace());
  t.is(driver.setupStream(5, space), 0);
  const a = host.ram.allocZeroed(1, 1);
  const b = host.ram.allocZeroed(4, 4);
  t.is(driver.map(space, IOVA_PAGE, b + 2, 1, READ_WRITE), 0);
  t.is(driver.map(space, IOVA_PAGE + 1, a, 1, READ_WRITE), 0);
  t.is(fixture.write(0, IOVA, 2 * PAGE, 1), 0);
  t.deepEqual(bytesAt(host, b + 2, PAGE), pattern(2 * PAGE, 1).subarray(0, PAGE));
  t.deepEqual(bytesAt(host, a, PAGE), pattern(2 * PAGE, 1).subarray(PAGE));
  host.ram.view(a * PAGE, PAGE)!.set(pattern(PAGE, 9));
  t.deepEqual(fixture.read(0, IOVA + BigInt(PAGE), PAGE), pattern(PAGE, 9));
  t.is(host.end(), 0);
});

test('before the SMMU is enabled a device reaches guest RAM by IPA, and nothing else', (t) => {
  const fixture = new MachineFixture([0]);
  const host = fixture.vm();
  host.vm.attachDevice(0, 5);
  t.is(fixture.write(0, 0x4000_5000n, 64, 3), 0);
  t.deepEqual(bytesAt(host, 0x40005, 64), pattern(64, 3));
  t.not(fixture.write(0, 0x4000_0000n + 8n * 0x10_0000n, 64, 3), 0);
  t.not(fixture.write(0, 0x3fff_f000n, 64, 3), 0);
  fixture.driver(host);
  t.is(fixture.write(0, 0x4000_5000n, 64, 4), ABORT);
  t.is(host.end(), 0);
});

function checkUnmap(t: ExecutionContext, rangeInvalidate: boolean): void {
  const fixture = new MachineFixture([0]);
  const host = fixture.vm();
  host.vm.attachDevice(0, 5);
  const driver = fixture.driver(host, 0, { rangeInvalidate });
  const space = ok(driver.createSpace());
  driver.setupStream(5, space);
  const pfn = host.ram.allocZeroed(40, 8);
  driver.map(space, IOVA_PAGE, pfn, 40, READ_WRITE);
  for (let page = 0; page < 40; page++) t.is(fixture.write(0, IOVA + BigInt(page * PAGE), 8, page), 0);
  t.is(driver.unmap(space, IOVA_PAGE, 37), 37);
  for (let page = 0; page < 40; page++)
    t.is(fixture.write(0, IOVA + BigInt(page * PAGE), 8, 99), page < 37 ? F_TRANSLATION : 0);
  for (let page = 0; page < 37; page++) t.deepEqual(bytesAt(host, pfn + page, 8), pattern(8, page));
  fixture.machine.poll();
  t.is(host.vm.pollEvents(), 37);
  const events = driver.takeEvents();
  t.is(events.length, 37);
  for (const [page, event] of events.entries()) {
    t.is(event.id, F_TRANSLATION);
    t.is(event.sid, 5, 'the virtual StreamID');
    t.is(event.inputAddr, IOVA + BigInt(page * PAGE));
    t.false(event.s2);
    t.false(event.rnw);
  }
  t.is(host.end(), 0);
}

test('guest unmap: DMA faults from then on, and the guest reads why (one TLBI per page)', (t) => {
  checkUnmap(t, false);
});

test('guest unmap: DMA faults from then on, and the guest reads why (range TLBI)', (t) => {
  checkUnmap(t, true);
});

test('guest unmap over an SMMU that ignores TLBI: DMA still gets through, so the tests above mean something', (t) => {
  const fixture = new MachineFixture([0], { bugs: { skipTlbi: true } });
  const host = fixture.vm();
  host.vm.attachDevice(0, 5);
  const driver = fixture.driver(host);
  const space = ok(driver.createSpace());
  driver.setupStream(5, space);
  driver.map(space, IOVA_PAGE, host.ram.allocZeroed(), 1, READ_WRITE);
  t.is(fixture.write(0, IOVA, 8, 1), 0);
  t.is(driver.unmap(space, IOVA_PAGE, 1), 1);
  t.is(fixture.write(0, IOVA, 8, 1), 0);
});

test('invalidations that do not pass through the core have the same effect', (t) => {
  const fixture = new MachineFixture([0, 1]);
  const host = fixture.vm({}, 8 * 2 ** 20, true);
  host.vm.attachDevice(0, 5);
  host.vm.attachDevice(1, 6);
  const driver = fixture.driver(host);
  const space = ok(driver.createSpace());
  for (const vSid of [5, 6]) t.is(driver.setupStream(vSid, space), 0);
  const pfn = host.ram.allocZeroed(2, 2);
  driver.map(space, IOVA_PAGE, pfn, 2, READ_WRITE);
  for (const device of [0, 1]) t.is(fixture.write(device, IOVA, 8, 1), 0);
  t.is(driver.unmap(space, IOVA_PAGE, 1), 1);
  for (const device of [0, 1]) t.is(fixture.write(device, IOVA, 8, 1), F_TRANSLATION);
  for (const device of [0, 1]) t.is(fixture.write(device, IOVA + 0x1000n, 8, 1), 0);
  t.is(host.end(), 0);
});

test('permission: a DMA write through a read-only mapping is F_PERMISSION at stage 1', (t) => {
  const fixture = new MachineFixture([0]);
  const host = fixture.vm();
  host.vm.attachDevice(0, 7);
  const driver = fixture.driver(host);
  const space = ok(driver.createSpace());
  driver.setupStream(7, space);
  const pfn = host.ram.allocZeroed();
  driver.map(space, IOVA_PAGE, pfn, 1, READ);
  t.is(typeof fixture.read(0, IOVA, 16), 'object');
  t.is(fixture.write(0, IOVA, 16, 1), F_PERMISSION);
  fixture.machine.poll();
  host.vm.pollEvents();
  t.deepEqual(
    driver.takeEvents().map(({ id, sid, s2 }) => ({ id, sid, s2 })),
    [{ id: F_PERMISSION, sid: 7, s2: false }],
  );
  t.is(host.end(), 0);
});

test('switchTable: the next DMA uses the other space, and neither ASID sees the other', (t) => {
  const fixture = new MachineFixture([0, 0]);
  const host = fixture.vm();
  host.vm.attachDevice(0, 5);
  host.vm.attachDevice(1, 6);
  const driver = fixture.driver(host);
  const one = ok(driver.createSpace());
  const two = ok(driver.createSpace());
  const [a, b] = [host.ram.allocZeroed(), host.ram.allocZeroed()];
  driver.map(one, IOVA_PAGE, a, 1, READ_WRITE);
  driver.map(two, IOVA_PAGE, b, 1, READ_WRITE);
  driver.setupStream(5, one);
  driver.setupStream(6, two);
  fixture.write(0, IOVA, 32, 1);
  fixture.write(1, IOVA, 32, 2);
  t.deepEqual(bytesAt(host, a, 32), pattern(32, 1));
  t.deepEqual(bytesAt(host, b, 32), pattern(32, 2));
  t.is(driver.switchTable(5, two), 0);
  fixture.write(0, IOVA, 32, 3);
  t.deepEqual(bytesAt(host, a, 32), pattern(32, 1));
  t.deepEqual(bytesAt(host, b, 32), pattern(32, 3));
  t.is(driver.clearStream(5), 0);
  t.is(fixture.write(0, IOVA, 32, 4), ABORT);
  t.is(driver.bypassStream(5), 0);
  t.is(fixture.write(0, BigInt(a * PAGE), 32, 5), 0);
  t.deepEqual(bytesAt(host, a, 32), pattern(32, 5));
  t.is(host.end(), 0);
});

test('CFGI_STE with an STE that did not change makes a rewritten CD count', (t) => {
  const fixture = new MachineFixture([0]);
  const host = fixture.vm();
  host.vm.attachDevice(0, 5);
  const driver = fixture.driver(host);
  const [one, two] = [ok(driver.createSpace()), ok(driver.createSpace())];
  const [a, b] = [host.ram.allocZeroed(), host.ram.allocZeroed()];
  driver.map(one, IOVA_PAGE, a, 1, READ_WRITE);
  driver.map(two, IOVA_PAGE, b, 1, READ_WRITE);
  driver.setupStream(5, one);
  fixture.write(0, IOVA, 8, 1);
  // The stream table is at STRTAB_BASE, linear: the STE's word 0 holds the CD's address.
  const strtab = Number(host.vm.smmus[0]!.read64(0x80));
  const cd = Number(host.ram.load64(strtab + 5 * 64)! & 0xf_ffff_ffff_ffc0n);
  two.writeCd(cd);
  t.is(driver.reloadStream(5), 0);
  fixture.write(0, IOVA, 8, 2);
  t.deepEqual(bytesAt(host, a, 8), pattern(8, 1));
  t.deepEqual(bytesAt(host, b, 8), pattern(8, 2));
  t.is(host.end(), 0);
});

/** Devices 0..5 on three SMMUs, two each. */
const SIX = [0, 0, 1, 1, 2, 2];

function checkStrategy(
  t: ExecutionContext,
  vsmmu: VsmmuStrategy,
  sharing: 'shared' | 'per-psmmu',
  s2Sharing: 'shared' | 'per-psmmu',
): void {
  const fixture = new MachineFixture(SIX, { s2Sharing: sharing });
  const host = fixture.vm({ vsmmu, s2Sharing, sliceBytes: 2 ** 20 });
  const { vm } = host;
  const expected = [1, 1, 2, 2, 3, 3];
  for (const device of SIX.keys()) {
    t.is(vm.attachDevice(device, 8 + device), 0);
    t.is(vm.viommus.length, expected[device]!);
  }
  t.is(vm.nestParents.length, sharing === 'shared' && s2Sharing === 'shared' ? 1 : 3);
  t.is(vm.smmus.length, vsmmu === 'one' ? 1 : 3);
  const drivers = vm.smmus.map((_, nth) => fixture.driver(host, nth));
  const driverOf = (device: number): GuestDriver => drivers[vsmmu === 'one' ? 0 : SIX[device]!]!;
  const spaces = drivers.map((driver) => ok(driver.createSpace()));
  const spaceOf = (device: number) => spaces[vsmmu === 'one' ? 0 : SIX[device]!]!;
  // The last slice, so that ballooning it does not take the guest's tables away.
  const [first] = [0x40000 + 7 * 256];
  for (const device of SIX.keys()) t.is(driverOf(device).setupStream(8 + device, spaceOf(device)), 0);
  for (const [nth, driver] of drivers.entries())
    t.is(driver.map(spaces[nth]!, IOVA_PAGE, first, 8, READ_WRITE), 0);
  for (const device of SIX.keys()) {
    const iova = IOVA + BigInt(device * PAGE);
    t.is(fixture.write(device, iova, 100, device), 0);
    t.deepEqual(bytesAt(host, first + device, 100), pattern(100, device));
    t.deepEqual(fixture.read(device, iova, 100), pattern(100, device));
  }
  // One space over all SMMUs, or one each: an unmap by its driver reaches all devices of that space.
  for (const [nth, driver] of drivers.entries()) t.is(driver.unmap(spaces[nth]!, IOVA_PAGE, 1), 1);
  for (const device of SIX.keys()) t.is(fixture.write(device, IOVA, 8, 1), F_TRANSLATION);
  fixture.machine.poll();
  t.is(vm.pollEvents(), 6);
  const sids = drivers.flatMap((driver) => driver.takeEvents().map(({ sid }) => sid));
  t.deepEqual(
    sids.sort((a, b) => a - b),
    [8, 9, 10, 11, 12, 13],
  );
  // Ballooning: stage 2 goes away under all vIOMMUs at once, and comes back.
  for (const device of SIX.keys()) t.is(fixture.write(device, IOVA + 0x1000n, 8, device), 0);
  t.is(vm.gpa.unmapSlice(7), 0);
  for (const device of SIX.keys()) t.is(fixture.write(device, IOVA + 0x1000n, 8, 9), F_TRANSLATION);
  t.is(vm.gpa.mapSlice(7), 0);
  for (const device of SIX.keys()) t.is(fixture.write(device, IOVA + 0x1000n, 8, device), 0);
  t.is(host.end(), 0);
}

test('three SMMUs: one virtual SMMU, one stage 2', (t) => checkStrategy(t, 'one', 'shared', 'shared'));
test('three SMMUs: one virtual SMMU each, one stage 2', (t) =>
  checkStrategy(t, 'per-psmmu', 'shared', 'shared'));
test('three SMMUs: one virtual SMMU, a kernel that does not share stage 2', (t) =>
  checkStrategy(t, 'one', 'per-psmmu', 'shared'));
test('three SMMUs: one virtual SMMU each, a stage 2 each by choice', (t) =>
  checkStrategy(t, 'per-psmmu', 'shared', 'per-psmmu'));

test('unplug: the device is blocked and its vSID is free for another; VMs come and go without a trace', (t) => {
  const fixture = new MachineFixture([0, 0, 1]);
  const { machine } = fixture;
  const framesBefore = machine.frames.freePages();
  let after = -1;
  for (let round = 0; round < 4; round++) {
    const host = fixture.vm();
    const { vm } = host;
    t.is(vm.attachDevice(0, 5), 0);
    t.is(vm.attachDevice(2, 6), 0);
    t.is(vm.detachDevice(0), 0);
    t.is(fixture.write(0, 0x4000_5000n, 8, 1), ABORT);
    t.is(vm.attachDevice(1, 5), 0);
    t.is(fixture.write(1, 0x4000_5000n, 8, 1), 0);
    t.is(host.end(), 0);
    t.is(fixture.write(1, 0x4000_5000n, 8, 1), ABORT);
    t.throws(() => host.fd.destroy(1), { message: /ENOENT/ });
    host.fd.close();
    if (after < 0) after = machine.frames.freePages();
    t.is(machine.frames.freePages(), after, `round ${round}`);
  }
  t.true(framesBefore - after < 64, 'only what the driver keeps for its tables');
});

test('two VMs on one SMMU: the same vSID, ASID and IOVA do not meet', (t) => {
  const fixture = new MachineFixture([0, 0]);
  const [one, two] = [fixture.vm(), fixture.vm()];
  one.vm.attachDevice(0, 5);
  two.vm.attachDevice(1, 5);
  const hosts = [one, two];
  const drivers = hosts.map((host) => fixture.driver(host));
  const spaces = drivers.map((driver) => ok(driver.createSpace()));
  const pfns = hosts.map(({ ram }) => ram.allocZeroed());
  t.is(spaces[0]!.asid, spaces[1]!.asid);
  for (const [i, driver] of drivers.entries()) {
    driver.setupStream(5, spaces[i]!);
    driver.map(spaces[i]!, IOVA_PAGE, pfns[i]!, 1, READ_WRITE);
  }
  for (const device of [0, 1]) t.is(fixture.write(device, IOVA, 64, device), 0);
  for (const i of [0, 1]) t.deepEqual(bytesAt(hosts[i]!, pfns[i]!, 64), pattern(64, i));
  t.is(drivers[0]!.unmap(spaces[0]!, IOVA_PAGE, 1), 1);
  t.is(fixture.write(0, IOVA, 64, 7), F_TRANSLATION);
  t.is(fixture.write(1, IOVA, 64, 7), 0);
  fixture.machine.poll();
  t.is(one.vm.pollEvents(), 1);
  t.is(two.vm.pollEvents(), 0);
  for (const host of hosts) t.is(host.end(), 0);
});
