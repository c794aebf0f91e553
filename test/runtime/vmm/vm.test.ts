import test from 'ava';
import { GuestRam } from '../../../runtime/vmm/guest-ram.js';
import { Vm } from '../../../runtime/vmm/vm.js';
import { FakeIommufd } from '../../kit/vmm-fake-iommufd.js';
import { VmmFixture } from '../../kit/vmm-fixture.js';

const EEXIST = 17;
const EBUSY = 16;
const ENOENT = 2;
const ENOMEM = 12;
const MIB = 2 ** 20;

test('attach: the first device behind each SMMU brings one vIOMMU, later ones reuse it', (t) => {
  const { vm, fake } = new VmmFixture({ deviceSmmus: [0, 0, 1, 1, 2] });
  t.is(fake.count('viommu'), 0);
  t.is(fake.count('paging'), 0);
  for (const [device, viommus] of [
    [0, 1],
    [1, 1],
    [2, 2],
    [3, 2],
    [4, 3],
  ] as const) {
    t.is(vm.attachDevice(device, 8 + device), 0);
    t.is(fake.count('viommu'), viommus);
  }
  t.is(fake.count('paging'), 1);
  t.is(fake.count('vdevice'), 5);
  t.deepEqual(
    [0, 1, 2, 3, 4].map((device) => fake.tableOf(device)!.smmu),
    [0, 0, 1, 1, 2],
  );
});

test('attach: one that a transport lets begin within another is EBUSY, and brings no second vIOMMU', (t) => {
  const { vm, fake } = new VmmFixture({ deviceSmmus: [0, 0] });
  const { ioctl } = fake;
  const within: number[] = [];
  fake.ioctl = (cmd, bytes) => {
    const status = ioctl.call(fake, cmd, bytes);
    within.push(vm.attachDevice(1, 9));
    return status;
  };
  t.is(vm.attachDevice(0, 8), 0);
  fake.ioctl = ioctl;
  t.true(within.length > 4);
  t.true(within.every((status) => status === -EBUSY));
  t.is(vm.attachDevice(1, 9), 0);
  t.is(fake.count('viommu'), 1);
});

test('attach: a kernel that does not share stage 2 gets one per SMMU', (t) => {
  const { vm, fake } = new VmmFixture({ deviceSmmus: [0, 1, 1, 2], sharing: false });
  for (let device = 0; device < 4; device++) t.is(vm.attachDevice(device, device), 0);
  t.is(fake.count('viommu'), 3);
  t.is(fake.count('paging'), 3);
});

test('attach: s2Sharing per-psmmu takes a stage 2 each although the kernel would share', (t) => {
  const { vm, fake } = new VmmFixture({ deviceSmmus: [0, 1, 1] }, { s2Sharing: 'per-psmmu' });
  for (let device = 0; device < 3; device++) t.is(vm.attachDevice(device, device), 0);
  t.is(fake.count('viommu'), 2);
  t.is(fake.count('paging'), 2);
});

test('attach: before the guest enables its SMMU, a device bypasses stage 1', (t) => {
  const { vm, fake } = new VmmFixture({ deviceSmmus: [0] });
  vm.attachDevice(0, 3);
  t.deepEqual(fake.tableOf(0)!.data, [0b1001n, 0n]);
});

test('attach: a taken vSID or device is EEXIST and leaves nothing behind', (t) => {
  const { vm, fake } = new VmmFixture({ deviceSmmus: [0, 0, 1] });
  t.is(vm.attachDevice(0, 3), 0);
  t.is(vm.attachDevice(0, 4), -EEXIST);
  t.is(vm.attachDevice(1, 3), -EEXIST);
  t.is(fake.count('device'), 1);
  t.is(fake.count('vdevice'), 1);
  // Another SMMU: the kernel would accept the ID, the one virtual SMMU cannot.
  t.is(vm.attachDevice(2, 3), -EEXIST);
  t.is(fake.count('device'), 1);
  t.is(fake.count('vdevice'), 1);
  t.is(fake.attached.size, 1);
});

test('attach: a vSID that cannot be is EINVAL and brings no vIOMMU', (t) => {
  const { vm, fake } = new VmmFixture({ deviceSmmus: [0] });
  for (const vSid of [-1, 2 ** 32, 1.5, Number.NaN]) t.is(vm.attachDevice(0, vSid), -22);
  t.is(fake.count('viommu') + fake.count('device'), 0);
  t.is(vm.attachDevice(0, 2 ** 32 - 1), 0);
});

test('attach: with one virtual SMMU per SMMU, each has a StreamID space of its own', (t) => {
  const { vm } = new VmmFixture({ deviceSmmus: [0, 1] }, { vsmmu: 'per-psmmu' });
  t.is(vm.attachDevice(0, 3), 0);
  t.is(vm.attachDevice(1, 3), 0);
  t.is(vm.smmus.length, 2);
  t.not(vm.smmuOf(0), vm.smmuOf(1));
});

test('attach: whichever call fails, the device is given back and the VM can still be destroyed', (t) => {
  for (let nth = 1; ; nth++) {
    const { vm, fake } = new VmmFixture({ deviceSmmus: [0, 1] });
    t.is(vm.attachDevice(0, 1), 0);
    fake.failNth = nth;
    const status = vm.attachDevice(1, 2);
    const reached = fake.failNth === 0;
    fake.failNth = 0;
    if (!reached) {
      t.is(status, 0);
      t.true(nth > 8, `only ${nth} calls`);
      break;
    }
    t.is(status, -ENOMEM, `call ${nth}`);
    t.is(fake.count('device'), 1);
    t.is(fake.count('vdevice'), 1);
    t.is(vm.attachDevice(1, 2), 0, `again after call ${nth}`);
    t.is(vm.destroy(), 0);
    t.is(fake.objects.size, 0);
  }
});

test('detach: the device is released, its vIOMMU stays for the next', (t) => {
  const { vm, fake } = new VmmFixture({ deviceSmmus: [0, 0] });
  vm.attachDevice(0, 1);
  t.is(vm.detachDevice(0), 0);
  t.is(vm.detachDevice(0), -ENOENT);
  t.is(fake.count('device') + fake.count('vdevice') + fake.attached.size, 0);
  t.is(vm.attachDevice(1, 1), 0);
  t.is(fake.count('viommu'), 1);
});

test('destroy: no object is left, however many devices and SMMUs there were', (t) => {
  for (const vsmmu of ['one', 'per-psmmu'] as const)
    for (const sharing of [true, false]) {
      const fixture = new VmmFixture({ deviceSmmus: [0, 1, 2, 1], sharing }, { vsmmu });
      const { vm, fake } = fixture;
      for (let device = 0; device < 4; device++) vm.attachDevice(device, device);
      const driver = fixture.driver();
      const space = driver.createSpace();
      if (typeof space === 'number') throw new Error(`space: ${space}`);
      driver.setupStream(0, space);
      t.is(vm.destroy(), 0);
      t.is(fake.objects.size, 0);
      t.is(fake.unread.size, 0);
    }
});

test('gpa: slices go out and come back one by one', (t) => {
  const { vm, fake } = new VmmFixture({ deviceSmmus: [] }, { sliceBytes: 2 * MIB });
  t.is(vm.gpa.slices, 4);
  t.is(fake.mapped.get(0x4000_0000n + 4n * BigInt(MIB)), BigInt(2 * MIB));
  t.is(vm.gpa.unmapSlice(2), 0);
  t.false(vm.gpa.isMapped(2));
  t.is(fake.mapped.size, 3);
  t.is(vm.gpa.unmapSlice(2), -ENOENT);
  t.is(vm.gpa.mapSlice(1), -EEXIST);
  t.is(vm.gpa.mapSlice(2), 0);
  t.is(vm.gpa.mapSlice(4), -22);
  t.is(fake.mapped.size, 4);
});

test('create: a failing ioctl leaves no IOAS', (t) => {
  const fake = new FakeIommufd({ deviceSmmus: [] });
  const userVa = fake.user.alloc(4 * MIB, { contiguous: true });
  const ram = new GuestRam(fake.memory, fake.user, { userVa, bytes: 4 * MIB });
  for (const nth of [1, 2, 3]) {
    fake.failNth = nth;
    t.is(Vm.create(fake, ram, { sliceBytes: 2 * MIB }), -ENOMEM);
    t.is(fake.objects.size, 0);
  }
});
