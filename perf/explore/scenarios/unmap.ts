/** A device writes through a mapping while the core unmaps it: after the unmap nothing reaches the page. */
import { machineScenario } from '../machine-scenario.js';

const IOVA = 0x10000n;
/** Ghost words: whether the unmap has returned. */
const UNMAPPED = 0;

export const unmapDuringDma = machineScenario<undefined>({
  name: 'unmap-during-dma',
  about: 'a device writes while the core unmaps: no write lands after the unmap returned',
  checks: ['R1'],
  machine: {
    iommus: [{ name: 'smmu0', model: 'smmuv3', cmdqLog2: 7, evtqLog2: 4, priqLog2: 4 }],
    devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0' }],
  },
  core(ctx, machine) {
    const fd = machine.openIommufd();
    const vfio = machine.openVfio('0000:01:00.0');
    vfio.bindIommufd(fd);
    const { ioasId } = fd.ioasAlloc();
    const userVa = machine.user.alloc('4KiB');
    fd.ioasMap({ ioasId, userVa, length: '4KiB', iova: IOVA });
    vfio.attach(ioasId);
    // The IOTLB knows the page: the device then needs few steps to it.
    machine.dmaPort('0000:01:00.0').write(IOVA, new Uint8Array(8));
    return () => {
      fd.ioasUnmap({ ioasId, iova: IOVA, length: '4KiB' });
      ctx.ghost[UNMAPPED] = 1;
    };
  },
  threads: {
    device(ctx, thread) {
      const port = thread.dmaPort(0);
      return () => {
        for (let i = 0; i < 2; i++) {
          port.prepare(0, Number(IOVA), 0, 1, port.streamId, 0xffff_ffff);
          port.translate(1);
          // The data phase: the page is the device's until it leaves the epoch.
          if (port.status(0) === 0)
            ctx.check('R1', ctx.ghost[UNMAPPED] === 0, () => `DMA ${i} lands in a page that is unmapped`);
          port.end();
        }
      };
    },
  },
});
