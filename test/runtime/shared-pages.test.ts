/** Memory that several can reach, on a real SMMUv3: memfds, dma-bufs, and what accesses hold. */
import test from 'ava';
import { createMachine } from '../../runtime/machine.js';
import { errnoOf } from '../kit/core-bench.js';

const [ENODEV, EBUSY] = [19, 16];
/** What a device without and with an ATC is told: the SMMU's event, or that the translation was not granted. */
const refused = (ats: boolean): number => (ats ? 252 : 0x10);

function scene(ats: boolean) {
  const machine = createMachine({
    memory: '32MiB',
    iommus: [{ name: 's', model: 'smmuv3' }],
    devices: [{ bdf: '0000:01:00.0', iommu: 's', ats }],
  });
  const fd = machine.openIommufd();
  const vfio = machine.openVfio('0000:01:00.0');
  vfio.bindIommufd(fd);
  const { ioasId } = fd.ioasAlloc();
  vfio.attach(ioasId);
  const dma = machine.dmaPort('0000:01:00.0');
  return { machine, fd, vfio, ioasId, dma, user: machine.user };
}

for (const ats of [false, true]) {
  test(`a device writes to a memfd, and user memory and accesses see it (ATS ${ats})`, (t) => {
    const { machine, fd, ioasId, dma, user } = scene(ats);
    const { fd: memfd, file } = machine.core.memfd('2MiB');
    fd.ioasMapFile({ ioasId, fd: memfd, start: 0x1000n, length: 0x4000, iova: 0x10000n });
    t.is(dma.write(0x10ffcn, Buffer.from('across pages')), 0);
    const seen = Buffer.alloc(12);
    user.copyIn(user.map(file) + 0x1ffcn, seen);
    t.is(seen.toString(), 'across pages');
    const access = fd.createAccess();
    access.attach(ioasId);
    for (const slowPath of [false, true]) {
      access.read(0x10ffcn, seen.fill(0), { slowPath });
      t.is(seen.toString(), 'across pages');
    }
    access.write(0x12000n, Buffer.from('and back'));
    t.is(dma.read(0x12000n, seen), 0);
    t.is(seen.subarray(0, 8).toString(), 'and back');
    fd.ioasUnmap({ ioasId, iova: 0x10000n, length: 0x4000 });
    t.is(dma.write(0x10000n, seen), refused(ats));
  });

  test(`a revoked dma-buf is out of every cache when revoke() returns (ATS ${ats})`, (t) => {
    const { machine, fd, vfio, ioasId, dma } = scene(ats);
    const { fd: buf, revoke } = machine.core.dmabuf('64KiB');
    fd.ioasMapFile({ ioasId, fd: buf, length: '64KiB', iova: 0x10000n });
    for (let page = 0; page < 16; page++) t.is(dma.write(BigInt(0x10000 + page * 4096), Buffer.of(page)), 0);
    revoke(true);
    for (let page = 0; page < 16; page++)
      t.is(dma.write(BigInt(0x10000 + page * 4096), Buffer.of(page)), refused(ats));
    t.is(
      errnoOf(() => fd.ioasMapFile({ ioasId, fd: buf, length: '64KiB', iova: 0x100000n })),
      ENODEV,
    );
    revoke(false);
    t.is(dma.read(0x10000n, Buffer.alloc(1)), refused(ats));
    fd.ioasMapFile({ ioasId, fd: buf, length: '64KiB', iova: 0x100000n });
    const seen = Buffer.alloc(1);
    t.is(dma.read(0x105000n, seen), 0);
    t.is(seen[0], 5);
    fd.ioasUnmap({ ioasId, iova: 0x10000n, length: '64KiB' });
    vfio.close();
    machine.close();
  });
}

test('what an access has pinned stays where it is, though its user memory is gone and the device detached', (t) => {
  const { machine, fd, vfio, ioasId, dma, user } = scene(false);
  const va = user.alloc(0x2000);
  fd.ioasMap({ ioasId, userVa: va, length: 0x2000, iova: 0n });
  const access = fd.createAccess({
    needsPinPages: true,
    unmap: (_iova, length) => length < 2n ** 63n && access.unpinPages(0n, 0x2000),
  });
  access.attach(ioasId);
  const frames = access.pinPages(0n, 0x2000);
  t.is(dma.write(0x1000n, Buffer.from('kept')), 0);
  vfio.detach();
  user.free(va, 0x2000);
  t.is(machine.frames.isAllocated(frames[1]!), true);
  vfio.attach(ioasId);
  const seen = Buffer.alloc(4);
  t.is(dma.read(0x1000n, seen), 0, 'the pages come from what is pinned');
  t.is(seen.toString(), 'kept');
  t.is(
    errnoOf(() => fd.destroy(ioasId)),
    EBUSY,
  );
  fd.ioasUnmap({ ioasId, iova: 0n, length: 0x2000 });
  t.is(machine.frames.isAllocated(frames[1]!), false);
  access.destroy();
  machine.close();
});
