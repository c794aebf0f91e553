import test from 'ava';
import { VfioDeviceAttachIommufdPt, VfioDeviceBindIommufd } from '../../../uapi/vfio/cdev.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';

const [EPERM, ENOENT, EBADF, EFAULT, EBUSY] = [1, 2, 9, 14, 16];
const [EINVAL, ENOTTY, EBADFD, EADDRINUSE, E2BIG] = [22, 25, 77, 98, 7];
const [BIND, ATTACH, DETACH, GET_INFO] = [0x3b76, 0x3b77, 0x3b78, 0x3b6b];
const ALL = { iova: 0n, length: 0xffff_ffff_ffff_ffffn };

test('attach to an IOAS makes an automatic page table, filled with what is mapped, that dies with the device', (t) => {
  const bench = new CoreBench();
  const { fd, user } = bench;
  const { ioasId } = fd.ioasAlloc();
  const userVa = user.alloc(0x3000);
  const before = bench.frameRefs();
  fd.ioasMap({ ioasId, userVa, length: 0x3000n, iova: 0x1000n });
  t.is(bench.frameRefs(), before, 'nothing is pinned before there is a device');
  const { vfio, devId } = bench.bind();
  t.is(bench.iommus[0]!.attached.get(0), null, 'bound: blocked');
  const { ptId } = vfio.attach(ioasId);
  t.not(ptId, ioasId);
  const domain = bench.iommus[0]!.attached.get(0) as FakeDomain;
  t.is(domain.lookup(2), bench.pfnOf(userVa + 0x1000n));
  t.is(bench.frameRefs(), before + 3);
  t.is(
    errnoOf(() => fd.destroy(ptId)),
    EBUSY,
  );
  t.is(
    errnoOf(() => fd.destroy(devId)),
    EBUSY,
  );
  vfio.detach();
  vfio.detach();
  t.is(bench.iommus[0]!.attached.get(0), null);
  t.true(domain.freed);
  t.is(bench.frameRefs(), before);
  t.is(
    errnoOf(() => fd.destroy(ptId)),
    ENOENT,
  );
});

test('attach: devices share an automatic page table when the driver agrees, else each gets its own', (t) => {
  const devices = [{ iommu: 0 }, { iommu: 0 }, { iommu: 1 }];
  for (const privateDomains of [false, true]) {
    const bench = new CoreBench({ iommus: [{ privateDomains }, { privateDomains }], devices });
    const { ioasId } = bench.fd.ioasAlloc();
    const [a, b, c] = devices.map((_, i) => bench.bind(i).vfio.attach(ioasId).ptId);
    t.is(a, b);
    t.is(a === c, !privateDomains);
  }
});

test('attach to a manual page table; automatic attach never picks it, and it survives detach', (t) => {
  const bench = new CoreBench();
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  const { vfio, devId } = bench.bind();
  const { hwptId } = fd.hwptAlloc({ devId, ptId: ioasId });
  t.not(vfio.attach(ioasId).ptId, hwptId);
  t.is(vfio.attach(hwptId).ptId, hwptId, 'a second attach replaces');
  t.is(
    errnoOf(() => fd.destroy(hwptId)),
    EBUSY,
  );
  vfio.detach();
  fd.destroy(hwptId);
  fd.destroy(ioasId);
});

test('replace: the old page table stays when the new one is refused, and mappings never vanish', (t) => {
  const bench = new CoreBench();
  const { fd, user } = bench;
  const [first, second] = [fd.ioasAlloc().ioasId, fd.ioasAlloc().ioasId];
  const userVa = user.alloc(0x1000);
  for (const ioasId of [first, second]) fd.ioasMap({ ioasId, userVa, length: 0x1000n, iova: 0x1000n });
  const { vfio } = bench.bind();
  const { ptId } = vfio.attach(first);
  const old = bench.iommus[0]!.attached.get(0);
  bench.iommus[0]!.refuses = () => true;
  t.is(
    errnoOf(() => vfio.attach(second)),
    EINVAL,
  );
  t.is(bench.iommus[0]!.attached.get(0), old);
  t.is(bench.iommus[0]!.liveDomains, 1);
  bench.iommus[0]!.refuses = null;
  t.is(vfio.attach(first).ptId, ptId, 'the same again changes nothing');
  t.is(bench.iommus[0]!.attached.get(0), old);
  vfio.attach(second);
  t.is(bench.iommus[0]!.liveDomains, 1, 'the first automatic one is gone');
  t.is((bench.iommus[0]!.attached.get(0) as FakeDomain).entries.size, 1);
});

test('attach: what cannot be attached to', (t) => {
  const bench = new CoreBench();
  const { vfio, devId } = bench.bind();
  t.is(
    errnoOf(() => vfio.attach(99)),
    ENOENT,
  );
  t.is(
    errnoOf(() => vfio.attach(devId)),
    EINVAL,
  );
});

test('attach: EADDRINUSE when a reserved region, or the world outside the aperture, is mapped', (t) => {
  for (const options of [
    { reserved: [{ firstPage: 4, lastPage: 5 }] },
    { aperture: { firstUnit: 0, lastUnit: 3 } },
    { aperture: { firstUnit: 6, lastUnit: 99 } },
  ]) {
    const bench = new CoreBench({ iommus: [options] });
    const { ioasId } = bench.fd.ioasAlloc();
    bench.fd.ioasMap({ ioasId, userVa: bench.user.alloc(0x1000), length: 0x1000n, iova: 0x5000n });
    const before = bench.frameRefs();
    const { vfio } = bench.bind();
    t.is(
      errnoOf(() => vfio.attach(ioasId)),
      EADDRINUSE,
    );
    t.is(bench.iommus[0]!.liveDomains, 0);
    t.is(bench.iommus[0]!.attached.get(0), null);
    t.is(bench.frameRefs(), before);
    bench.fd.ioasUnmap({ ioasId, ...ALL });
    vfio.attach(ioasId);
  }
});

test('attach: EADDRINUSE when bytes are mapped that are no pages, EFAULT when there is no memory', (t) => {
  const bench = new CoreBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const { vfio } = bench.bind();
  bench.fd.ioasMap({ ioasId, userVa: 0n, length: 0x1000n, iova: 0x1000n });
  t.is(
    errnoOf(() => vfio.attach(ioasId)),
    EFAULT,
  );
  bench.fd.ioasUnmap({ ioasId, ...ALL });
  bench.fd.ioasMap({ ioasId, userVa: bench.user.alloc(0x2000), length: 0x1001n, iova: 0x1000n });
  t.is(
    errnoOf(() => vfio.attach(ioasId)),
    EADDRINUSE,
  );
  t.is(bench.iommus[0]!.attached.get(0), null);
});

test('a group: one page table for all, hardware follows the first attach, the last detach blocks', (t) => {
  const devices = [
    { iommu: 0, group: 7 },
    { iommu: 0, group: 7 },
  ];
  const bench = new CoreBench({ devices });
  const { fd } = bench;
  const [first, second] = [fd.ioasAlloc().ioasId, fd.ioasAlloc().ioasId];
  const [a, b] = [bench.bind(0).vfio, bench.bind(1).vfio];
  const { attached } = bench.iommus[0]!;
  const { ptId } = a.attach(first);
  t.is(attached.get(1), attached.get(0), 'the other device cannot be told apart');
  t.is(
    errnoOf(() => b.attach(second)),
    EINVAL,
    'not another page table',
  );
  t.is(b.attach(first).ptId, ptId);
  a.attach(second);
  t.is(attached.get(1), attached.get(0));
  t.is(bench.iommus[0]!.liveDomains, 1);
  a.detach();
  t.not(attached.get(0), null, 'the other one still needs it');
  b.detach();
  t.deepEqual([attached.get(0), attached.get(1)], [null, null]);
  t.is(bench.iommus[0]!.liveDomains, 0);
});

test('bind: a group has one owner, a device one binding', (t) => {
  const devices = [
    { iommu: 0, group: 7 },
    { iommu: 0, group: 7 },
  ];
  const bench = new CoreBench({ devices });
  const { core } = bench;
  const other = core.open();
  const { vfio } = bench.bind(0);
  t.is(
    errnoOf(() => vfio.bindIommufd(bench.fd)),
    EINVAL,
    'bound already',
  );
  t.is(
    errnoOf(() => core.openVfio(bench.devices[0]!).bindIommufd(bench.fd)),
    EINVAL,
    'by another open file',
  );
  const second = core.openVfio(bench.devices[1]!);
  t.is(
    errnoOf(() => second.bindIommufd(other)),
    EPERM,
  );
  vfio.close();
  second.bindIommufd(other);
  t.is(second.devId, 1);
});

test('bind and attach check their structs as VFIO does', (t) => {
  const bench = new CoreBench();
  const vfio = bench.core.openVfio(bench.devices[0]!);
  const bind = (fields: object, bytes = 24) => {
    const struct = VfioDeviceBindIommufd.toBytes({ argsz: 24, iommufd: bench.fd.fd, ...fields });
    return vfio.ioctl(BIND, struct.subarray(0, bytes));
  };
  const attach = (fields: object) =>
    vfio.ioctl(ATTACH, VfioDeviceAttachIommufdPt.toBytes({ argsz: 16, ...fields }));
  t.is(attach({ ptId: 1 }), -EINVAL, 'not bound yet');
  t.is(bind({}, 3), -EFAULT);
  t.is(bind({}, 16), -EFAULT);
  t.is(bind({ argsz: 15 }), -EINVAL);
  t.is(bind({ flags: 2 }), -EINVAL);
  t.is(bind({ flags: 1 }), -EFAULT, 'a token that cannot be read');
  t.is(
    bind({ flags: 1, tokenUuidPtr: bench.user.alloc('4KiB') }),
    -EINVAL,
    'a token for no virtual function',
  );
  t.is(bind({ iommufd: -1 }), -EINVAL);
  t.is(bind({ iommufd: 55 }), -EBADF);
  const long = new Uint8Array(25);
  long.set(VfioDeviceBindIommufd.toBytes({ argsz: 25, iommufd: bench.fd.fd }));
  long[24] = 1;
  t.is(vfio.ioctl(BIND, long), -E2BIG);
  t.is(bind({ argsz: 16 }), 0);
  t.is(attach({ argsz: 11 }), -EINVAL);
  t.is(attach({ flags: 2 }), -EINVAL);
  t.is(attach({ argsz: 12, flags: 1 }), -EINVAL, 'a PASID that is not there');
  t.is(attach({ flags: 1, pasid: 5 }), -ENOENT);
  t.is(vfio.ioctl(ATTACH, new Uint8Array(11)), -EFAULT);
  t.is(vfio.ioctl(DETACH, new Uint8Array(12)), -EINVAL);
  t.is(vfio.ioctl(0x3b79, new Uint8Array(12)), -ENOTTY);
  vfio.close();
  t.is(vfio.ioctl(BIND, long), -EBADF);
});

test('bind: a descriptor of something else is EBADFD', (t) => {
  const bench = new CoreBench();
  const fd = bench.core.own.files.install({ kind: 'vfio', release: () => t.pass() });
  const vfio = bench.core.openVfio(bench.devices[0]!);
  const struct = VfioDeviceBindIommufd.toBytes({ argsz: 24, iommufd: fd });
  t.is(vfio.ioctl(BIND, struct), -EBADFD);
  bench.core.own.files.close(fd);
});

test('closing the iommufd first: a bound device keeps the objects until it is closed', (t) => {
  const bench = new CoreBench();
  const refs = bench.frameRefs();
  const { ioasId } = bench.fd.ioasAlloc();
  bench.fd.ioasMap({ ioasId, userVa: bench.user.alloc(0x1000, { phantom: true }), length: 0x1000n });
  const { vfio } = bench.bind();
  vfio.attach(ioasId);
  bench.fd.close();
  t.is(bench.fd.ctx.objectCount, 3);
  vfio.close();
  bench.assertNothingLeft(t, refs);
});

test('VFIO_DEVICE_GET_INFO: a device has no regions and no interrupts, and writes no more than argsz', (t) => {
  const bench = new CoreBench();
  const vfio = bench.core.openVfio(bench.devices[0]!);
  const info = (argsz: number, length = 24) => {
    const bytes = new Uint8Array(length).fill(0xaa);
    if (length >= 4) new DataView(bytes.buffer).setUint32(0, argsz, true);
    return { status: vfio.ioctl(GET_INFO, bytes), bytes };
  };
  t.is(info(24).status, -EINVAL, 'not bound yet');
  vfio.bindIommufd(bench.fd);
  t.is(info(15).status, -EINVAL);
  t.is(info(16, 15).status, -EFAULT);
  t.is(info(24, 23).status, -EFAULT);
  const short = info(16);
  t.is(short.status, 0);
  const PCI = 2;
  t.deepEqual([...new Uint32Array(short.bytes.buffer)], [16, PCI, 0, 0, 0xaaaa_aaaa, 0xaaaa_aaaa]);
  t.deepEqual([...new Uint32Array(info(999).bytes.buffer)], [999, PCI, 0, 0, 0, 0]);
  vfio.close();
});
