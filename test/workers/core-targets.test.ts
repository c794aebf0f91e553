import test from 'ava';
import { createMachine } from '../../runtime/machine.js';
import { VFIO_DEVICE_BIND_IOMMUFD, VfioDeviceBindIommufd } from '../../uapi/vfio/cdev.js';
import { CoreTargets } from '../../workers/core-targets.js';

const EBADF = 9;
const EINVAL = 22;

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
