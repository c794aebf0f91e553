import test from 'ava';
import { Smmuv3Layout } from '../../../../hw/smmuv3/smmuv3-layout.js';
import { CmdqvLayout } from '../../../../hw/tegra241-cmdqv/cmdqv-layout.js';
import { openImage } from '../../../../runtime/image/opened-machine.js';
import type { Machine } from '../../../../runtime/machine.js';
import { VirtualCmdqv } from '../../../../runtime/vmm/virtual-cmdqv.js';
import { ok } from '../../../kit/vmm-fixture.js';
import { MachineFixture, pattern, type VmHost } from '../../../kit/vmm-machine.js';

const READ_WRITE = 3;
const F_TRANSLATION = 0x10;
const [V_SID, IOVA, IOVA_PAGE] = [5, 0x7_0000_3000n, 0x70_0003];
const EIO = 5;
const SYNC = Uint32Array.of(0x46, 0, 0, 0);
const NSNH_ALL = Uint32Array.of(0x30, 0, 0, 0);
const TEGRA_VEVENTQ = 2;

/** A VM with one device and a VCMDQ that its driver's invalidations go through. */
function guest(fixture: MachineFixture, device: number, log2 = 4, ats = false) {
  const host = fixture.vm({ cmdqv: true, ats });
  if (host.vm.attachDevice(device, V_SID) !== 0) throw new Error('attach');
  const queue = queueOf(fixture.machine, host, log2);
  const driver = fixture.driver(host, 0, { secondary: queue.vcmdq });
  const space = ok(driver.createSpace());
  if (driver.setupStream(V_SID, space, { ats }) !== 0) throw new Error('stream');
  const pfn = host.ram.allocZeroed(8, 8);
  return { host, driver, space, pfn, ...queue };
}

function queueOf({ env }: Machine, { vm, ram, fd }: VmHost, log2: number, index = 0) {
  const { id: viommuId, vintf } = vm.viommus[0]!;
  const mapping = fd.mmap(vintf!);
  const vcmdq = ok(
    VirtualCmdqv.create({
      env,
      ram,
      page: mapping.linear,
      index,
      log2,
      allocate: (at, ipa, length) =>
        fd.hwQueueAlloc({ viommuId, type: 1, index: at, iova: BigInt(ipa), length }).hwQueueId,
    }),
  );
  const end = () => {
    fd.destroy(vcmdq.hwQueueId);
    mapping.unmap();
  };
  return { viommuId, vcmdq, end };
}

const machineOf = (deviceIommus: number[], devices?: object[]) =>
  new MachineFixture(deviceIommus, {
    iommus: Array.from({ length: Math.max(...deviceIommus) + 1 }, (_, i) => ({
      name: `smmu${i}`,
      model: 'smmuv3' as const,
      cmdqv: true,
    })),
    ...(devices && { devices: devices as never }),
  });

const counter = ({ memory }: Machine) => {
  const word = (key: string, layout: typeof CmdqvLayout | typeof Smmuv3Layout, at: number) =>
    memory.words.load(memory.region(layout, key).base + at);
  return {
    own: () => word('smmuv3:0', Smmuv3Layout, Smmuv3Layout.at.commandsConsumed),
    vcmdqs: () => word('cmdqv:0', CmdqvLayout, CmdqvLayout.at.commandsConsumed),
  };
};

test('guest: what it unmaps is gone after the SYNC of its own queue, and no ioctl was made for it', (t) => {
  const fixture = machineOf([0]);
  const { host, driver, space, pfn, end } = guest(fixture, 0);
  const count = counter(fixture.machine);
  const before = count.own();
  for (let round = 0; round < 40; round++) {
    t.is(driver.map(space, IOVA_PAGE, pfn, 8, READ_WRITE), 0);
    t.is(fixture.write(0, IOVA, 8 * 4096, round), 0);
    t.deepEqual(host.ram.view(pfn * 4096, 64)!.slice(), pattern(64, round));
    const vcmdqs = count.vcmdqs();
    t.is(driver.unmap(space, IOVA_PAGE, 8), 8);
    t.true(count.vcmdqs() - vcmdqs >= 2);
    t.is(fixture.write(0, IOVA, 64, 1), F_TRANSLATION);
    t.is(fixture.write(0, IOVA + 7n * 4096n, 64, 1), F_TRANSLATION);
  }
  t.is(count.own(), before, 'the SMMU’s own queue was not touched');
  end();
  t.is(host.end(), 0);
});

test('guest: without the TLBI the translation stays, so it is the queue that takes it away', (t) => {
  const fixture = machineOf([0]);
  const { driver, space, pfn, host, vcmdq, end } = guest(fixture, 0);
  driver.map(space, IOVA_PAGE, pfn, 1, READ_WRITE);
  fixture.write(0, IOVA, 64, 1);
  space.table.unmap(IOVA_PAGE, 1);
  t.is(vcmdq.sync(), 0);
  t.is(fixture.write(0, IOVA, 64, 1), 0, 'stale');
  t.is(driver.invalidateAsid(space), 0);
  t.is(fixture.write(0, IOVA, 64, 1), F_TRANSLATION);
  end();
  t.is(host.end(), 0);
});

test('guest: ATC_INV of its virtual StreamID reaches its device', (t) => {
  const fixture = machineOf([0], [{ bdf: '0000:00:01.0', iommu: 'smmu0', ats: true }]);
  const { driver, space, pfn, host, end } = guest(fixture, 0, 4, true);
  driver.map(space, IOVA_PAGE, pfn, 2, READ_WRITE);
  for (let i = 0; i < 2; i++) t.is(fixture.write(0, IOVA, 64, i), 0);
  t.is(driver.unmap(space, IOVA_PAGE, 1), 1);
  t.not(fixture.write(0, IOVA, 64, 1), 0);
  t.is(fixture.write(0, IOVA + 4096n, 64, 1), 0);
  end();
  t.is(host.end(), 0);
});

test('guest: an illegal command stops its queue alone, and is told to its vEVENTQ', (t) => {
  const fixture = machineOf([0, 0]);
  const { machine } = fixture;
  const bad = guest(fixture, 0);
  const good = guest(fixture, 1);
  const events = bad.host.fd.veventqAlloc({ viommuId: bad.viommuId, type: TEGRA_VEVENTQ, depth: 4 });
  const others = good.host.fd.veventqAlloc({ viommuId: good.viommuId, type: TEGRA_VEVENTQ, depth: 4 });
  const fired: string[] = [];
  machine.onInterrupt((_, source) => fired.push(source));
  bad.driver.map(bad.space, IOVA_PAGE, bad.pfn, 1, READ_WRITE);
  good.driver.map(good.space, IOVA_PAGE, good.pfn, 1, READ_WRITE);
  for (const device of [0, 1]) t.is(fixture.write(device, IOVA, 64, 1), 0);
  bad.vcmdq.put(NSNH_ALL);
  machine.poll();
  t.true(fired.includes('companion'));
  const record = events.read(64);
  t.deepEqual([...record], [...new Array(8).fill(0), 1, ...new Array(15).fill(0)], 'header; LVCMDQ 0');
  t.false(others.poll());
  t.is(fixture.write(0, IOVA, 64, 1), 0, 'it had no effect');
  t.is(good.driver.unmap(good.space, IOVA_PAGE, 1), 1);
  t.is(fixture.write(1, IOVA, 64, 1), F_TRANSLATION);
  t.notThrows(() => good.host.fd.ioasAlloc());
  t.is(bad.vcmdq.sync(), -EIO, 'the guest mends it, as its driver would');
  t.is(bad.driver.unmap(bad.space, IOVA_PAGE, 1), 1);
  t.is(fixture.write(0, IOVA, 64, 1), F_TRANSLATION);
  machine.poll();
  t.false(events.poll(), 'once for an error');
  for (const [{ host, vcmdq, end }, queue] of [
    [bad, events],
    [good, others],
  ] as const) {
    t.is(vcmdq.disable(), 0);
    end();
    queue.close();
    host.fd.destroy(queue.veventqId);
    t.is(host.end(), 0);
  }
});

test('guest: an unknown StreamID fails on its queue', (t) => {
  const fixture = machineOf([0]);
  const { vcmdq, host, end } = guest(fixture, 0);
  vcmdq.put(Uint32Array.of(0x40, V_SID + 1, 52, 0));
  t.is(vcmdq.sync(), -EIO);
  vcmdq.put(Uint32Array.of(0x40, V_SID, 52, 0));
  t.is(vcmdq.sync(), 0);
  end();
  t.is(host.end(), 0);
});

test('guest: two queues of one guest', (t) => {
  const fixture = machineOf([0]);
  const { vcmdq, host, end, driver, space, pfn } = guest(fixture, 0);
  const second = queueOf(fixture.machine, host, 5, 1);
  driver.map(space, IOVA_PAGE, pfn, 1, READ_WRITE);
  fixture.write(0, IOVA, 64, 1);
  space.table.unmap(IOVA_PAGE, 1);
  second.vcmdq.put(Uint32Array.of(0x11, space.asid << 16, 0, 0));
  t.is(second.vcmdq.sync(), 0);
  t.is(fixture.write(0, IOVA, 64, 1), F_TRANSLATION);
  t.is(vcmdq.sync(), 0);
  second.end();
  end();
  t.is(host.end(), 0);
});

test('guest: a reset of the SMMU leaves its queue at work', (t) => {
  const fixture = machineOf([0]);
  const { host, driver, space, pfn, end } = guest(fixture, 0);
  driver.map(space, IOVA_PAGE, pfn, 1, READ_WRITE);
  fixture.machine.reset();
  t.is(fixture.write(0, IOVA, 64, 1), 0);
  t.is(driver.unmap(space, IOVA_PAGE, 1), 1);
  t.is(fixture.write(0, IOVA, 64, 1), F_TRANSLATION);
  end();
  t.is(host.end(), 0);
});

test('guest: a machine opened from an image serves the queue as it stood', (t) => {
  const fixture = machineOf([0]);
  const { machine } = fixture;
  const { host, vcmdq, driver, space, pfn } = guest(fixture, 0);
  driver.map(space, IOVA_PAGE, pfn, 1, READ_WRITE);
  fixture.write(0, IOVA, 64, 1);
  space.table.unmap(IOVA_PAGE, 1);
  vcmdq.put(Uint32Array.of(0x11, space.asid << 16, 0, 0));
  vcmdq.put(SYNC);
  const mapping = host.fd.mmap(host.vm.viommus[0]!.vintf!);
  const opened = openImage(machine.saveImage());
  const page = new Int32Array(opened.memory.buffer, mapping.linear, 2);
  t.not(page[0], page[1], 'commands wait');
  opened.settle();
  t.is(page[0], page[1]);
  const port = opened.dmaPort(fixture.label(0));
  t.is(port.write(IOVA, new Uint8Array(64)), F_TRANSLATION);
});
