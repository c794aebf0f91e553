/** A device that completes no ATC invalidation: what its translations lead to is nobody else's from then on. */
import test from 'ava';
import { createMachine } from '../../runtime/machine.js';

const BDF = '0000:01:00.0';
const IOVA = 0x1000_0000n;
const PAGE = 4096;

function scene(compat: '7.0' | 'fixed') {
  const machine = createMachine({
    compat,
    memory: '16MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3', ats: true, atcTimeoutNs: 0 }],
    devices: [{ bdf: BDF, iommu: 'smmu0', ats: true }],
  });
  const fd = machine.openIommufd();
  const vfio = machine.openVfio(BDF);
  vfio.bindIommufd(fd);
  const { ioasId } = fd.ioasAlloc();
  vfio.attach(ioasId);
  const userVa = machine.user.alloc(PAGE);
  const run = { pfn: 0, pages: 0 };
  machine.user.runAt(Number(userVa) / PAGE, run);
  fd.ioasMap({ ioasId, userVa, length: PAGE, iova: IOVA });
  const port = machine.dmaPort(BDF);
  const write = () => port.write(IOVA, new Uint8Array(8));
  const allocated = () => machine.frames.isAllocated(run.pfn);
  return { machine, fd, vfio, ioasId, userVa, port, write, allocated };
}

test('an unmap: frames that a device may still write to stay pinned', (t) => {
  const { machine, fd, ioasId, userVa, port, write, allocated } = scene('fixed');
  t.is(write(), 0);
  port.ats.hang(true);
  machine.user.free(userVa, PAGE);
  fd.ioasUnmap({ ioasId, iova: IOVA, length: PAGE });
  t.is(write(), 0, 'its ATC has the translation still');
  t.true(allocated());
  machine.close();
  t.true(allocated(), 'also when everything is closed');
});

test('a detach: ATS goes off at the device, which needs no answer to forget', (t) => {
  const { machine, vfio, userVa, port, write, allocated } = scene('fixed');
  t.is(write(), 0);
  port.ats.hang(true);
  machine.user.free(userVa, PAGE);
  vfio.detach();
  t.not(write(), 0);
  t.false(allocated());
  machine.close();
});

test('an unmap that is answered gives the frames back', (t) => {
  const { machine, fd, ioasId, userVa, write, allocated } = scene('fixed');
  t.is(write(), 0);
  machine.user.free(userVa, PAGE);
  t.true(allocated());
  fd.ioasUnmap({ ioasId, iova: IOVA, length: PAGE });
  t.false(allocated());
  machine.close();
});

test('compat 7.0: the frames go back as if the device had answered', (t) => {
  const { machine, fd, ioasId, userVa, port, write, allocated } = scene('7.0');
  t.is(write(), 0);
  port.ats.hang(true);
  machine.user.free(userVa, PAGE);
  fd.ioasUnmap({ ioasId, iova: IOVA, length: PAGE });
  t.false(allocated());
  machine.close();
});
