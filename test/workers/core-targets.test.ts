import test from 'ava';
import { createMachine } from '../../runtime/machine.js';
import { VFIO_DEVICE_BIND_IOMMUFD, VfioDeviceBindIommufd } from '../../uapi/vfio/cdev.js';
import { CoreTargets } from '../../workers/core-targets.js';

const EBADF = 9;
const EINVAL = 22;
const ESPIPE = 29;

function targets() {
  const machine = createMachine({
    memory: '16MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [
      { bdf: '0000:01:00.0', iommu: 'smmu0' },
      { bdf: '0000:02:00.0', iommu: 'smmu0' },
    ],
  });
  const opened: number[] = [];
  const core = new CoreTargets(machine.core.own.files, (device) => {
    opened.push(device);
    return machine.openVfio(machine.config.devices[device]!.label);
  });
  const fd = machine.openIommufd();
  core.add(fd);
  core.add(machine.openVfio('0000:01:00.0'));
  const bind = () => VfioDeviceBindIommufd.toBytes({ argsz: VfioDeviceBindIommufd.size, iommufd: fd.fd });
  return { core, bind, opened };
}

test('targets: what was not exposed is EBADF', (t) => {
  const { core, bind } = targets();
  t.is(core.vfio(1, VFIO_DEVICE_BIND_IOMMUFD, bind()), -EBADF);
  t.is(core.vfio(77, VFIO_DEVICE_BIND_IOMMUFD, bind()), -EBADF);
  t.is(core.vfioClose(1), -EBADF);
  t.is(core.iommufd(3, 0x3b81, new Uint8Array(12)), -EBADF);
});

test('targets: a VFIO device that a client closed is opened anew for the next one', (t) => {
  const { core, bind, opened } = targets();
  t.is(core.vfio(0, VFIO_DEVICE_BIND_IOMMUFD, bind()), 0);
  // One bind an open file.
  t.is(core.vfio(0, VFIO_DEVICE_BIND_IOMMUFD, bind()), -EINVAL);
  t.is(core.vfioClose(0), 0);
  t.is(core.vfioClose(0), -EBADF);
  t.is(core.vfio(0, VFIO_DEVICE_BIND_IOMMUFD, bind()), 0);
  t.deepEqual(opened, [0]);
});

test('targets: a fault queue is read, answered and closed by its descriptor; other files are not', (t) => {
  const { core } = targets();
  const struct = new Uint8Array(16);
  new DataView(struct.buffer).setUint32(0, 16, true);
  t.is(core.iommufd(0, 0x3b8e, struct), 0);
  const fd = new DataView(struct.buffer).getUint32(12, true);
  t.is(core.fileRead(fd, new Uint8Array(40)), 0);
  t.is(core.fileRead(fd, new Uint8Array(41)), -ESPIPE);
  t.is(core.fileWrite(fd, new Uint8Array(8)), -EINVAL, 'no such cookie');
  t.is(core.fileWrite(99, new Uint8Array(8)), -EBADF);
  const iommufd = core.fdNumber(0);
  t.is(core.fileRead(iommufd, new Uint8Array(40)), -EINVAL);
  t.is(core.fileWrite(iommufd, new Uint8Array(8)), -EINVAL);
  t.is(core.fileClose(iommufd), -EBADF);
  t.is(core.fileClose(fd), 0);
  t.is(core.fileClose(fd), -EBADF);
});
