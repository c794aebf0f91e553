import test from 'ava';
import { createMachine } from '../../../runtime/machine.js';
import { LocalTransport } from '../../../runtime/vmm/local-transport.js';
import { Scratch } from '../../../runtime/vmm/scratch.js';

const EBADF = 9;
const ENODEV = 19;
const EINVAL = 22;
const ENOTTY = 25;
const VFIO_BIND = 0x3b76;
const VFIO_ATTACH = 0x3b77;

const machine = () =>
  createMachine({
    memory: '8MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0' }],
  });

test('vfio: no such device is ENODEV; close undoes the bind and the device can be bound again', (t) => {
  const host = machine();
  const transport = LocalTransport.of(host, host.openIommufd());
  t.is(transport.vfio(1, VFIO_ATTACH, new Uint8Array(16)), -ENODEV);
  const bind = (): number => {
    const bytes = new Uint8Array(24);
    new DataView(bytes.buffer).setUint32(0, 24, true);
    new DataView(bytes.buffer).setInt32(8, transport.iommufd, true);
    return transport.vfio(0, VFIO_BIND, bytes);
  };
  t.is(bind(), 0);
  t.is(bind(), -EINVAL);
  transport.vfioClose(0);
  transport.vfioClose(0);
  t.is(bind(), 0);
  t.is(transport.ioctl(0x3b7f, new Uint8Array(8)), -ENOTTY);
  t.is(transport.read(99, new Uint8Array(64)), -EBADF);
  t.is(transport.write(99, new Uint8Array(8)), -EBADF);
  transport.dispose();
});

test('dispose: gives the scratch memory back', (t) => {
  const host = machine();
  const fd = host.openIommufd();
  const free = host.frames.freePages();
  const transport = LocalTransport.of(host, fd);
  t.true(host.frames.freePages() < free);
  transport.dispose();
  t.is(host.frames.freePages(), free);
});

test('scratch: one batch for each SMMU, then none; too little memory is refused', (t) => {
  const host = machine();
  const transport = LocalTransport.of(host, host.openIommufd());
  const scratch = new Scratch(transport);
  const area = scratch.takeBatch();
  t.is(area!.linear % 64, 0);
  t.is(scratch.takeBatch(), null);
  scratch.giveBatch(area!);
  t.is(scratch.takeBatch(), area);
  const small = Object.create(transport, { scratch: { value: { va: transport.scratch.va, bytes: 64 } } });
  t.throws(() => new Scratch(small), { instanceOf: RangeError });
});
