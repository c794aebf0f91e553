/** IOMMU_OPTION_HUGE_PAGES over an SMMUv3: without large leaves a part of a mapping goes, and the rest works on. */
import test from 'ava';
import { createMachine } from '../../runtime/machine.js';
import type { Ioas } from '../../runtime/objects/ioas.js';

const BDF = '0000:01:00.0';
const HUGE_PAGES = 1;
const F_TRANSLATION = 0x10;
const IOVA = 0x4000_0000n;
const MIB2 = 0x20_0000n;

test('huge pages off: a part of a contiguous mapping is unmapped, what is before and behind it stays', (t) => {
  for (const off of [true, false]) {
    const machine = createMachine({
      memory: '64MiB',
      iommus: [{ name: 'smmu', model: 'smmuv3' }],
      devices: [{ bdf: BDF, iommu: 'smmu' }],
    });
    const fd = machine.openIommufd();
    const { ioasId } = fd.ioasAlloc();
    if (off) fd.setOption(HUGE_PAGES, 0n, ioasId);
    const vfio = machine.openVfio(BDF);
    vfio.bindIommufd(fd);
    vfio.attach(ioasId);
    const userVa = machine.user.alloc(Number(MIB2), { contiguous: true });
    const refs = () => {
      const found = { pfn: 0, pages: 0 };
      machine.user.runAt(Number(userVa >> 12n) + 4, found);
      return machine.user.refs(found.pfn);
    };
    fd.ioasMap({ ioasId, userVa, length: MIB2, iova: IOVA });
    const port = machine.dmaPort(BDF);
    const write = (at: bigint) => port.write(IOVA + at, new Uint8Array(1));
    for (const at of [0n, 0x4000n, MIB2 - 1n]) t.is(write(at), 0);
    const ioas = fd.ctx.get<Ioas>(ioasId, 0)!;
    const status = ioas.iopt.cutIova([IOVA + 0x5fffn, IOVA + 0x3fffn]);
    fd.ctx.put(ioas);
    t.is(status, off ? 0 : -22);
    if (off) {
      t.is(refs(), 2);
      t.is(fd.ioasUnmap({ ioasId, iova: IOVA + 0x4000n, length: 0x2000n }).length, 0x2000n);
      t.is(refs(), 1);
      for (const at of [0x4000n, 0x5fffn]) t.is(write(at), F_TRANSLATION);
      for (const at of [0n, 0x3fffn, 0x6000n, MIB2 - 1n]) t.is(write(at), 0);
    }
    fd.ioasUnmap({ ioasId, iova: 0n, length: (1n << 64n) - 1n });
    t.is(refs(), 1);
    machine.close();
  }
});
