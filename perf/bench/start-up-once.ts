/**
 * One start, cold: run as a program of its own by start-up.ts. Builds a machine with four SMMUs, moves them to
 * workers, and sends one DMA behind each. Prints milliseconds, as JSON.
 */
import { createMachine, startWorkers } from '../../workers/index.js';
import type { StartUpTimes } from './start-up.js';

const SMMUS = 4;
const PAGE = 4096;

const began = performance.now();
const machine = createMachine({
  iommus: Array.from({ length: SMMUS }, (_, i) => ({ name: `smmu${i}`, model: 'smmuv3' as const })),
  devices: Array.from({ length: SMMUS }, (_, i) => ({ bdf: `000${i}:01:00.0`, iommu: `smmu${i}` })),
});
const built = performance.now();
const host = await startWorkers(machine);
const started = performance.now();
const fd = machine.openIommufd();
const { ioasId } = fd.ioasAlloc();
const iova = 0x1000_0000n;
fd.ioasMap({ ioasId, userVa: machine.user.alloc(PAGE), length: PAGE, iova });
for (const { label } of machine.config.devices) {
  const vfio = machine.openVfio(label);
  vfio.bindIommufd(fd);
  vfio.attach(ioasId);
  if (machine.dmaPort(label).write(iova, new Uint8Array(PAGE)) !== 0) throw new Error(`DMA of ${label}`);
}
const done = performance.now();
await host.stop();
machine.close();
// performance.now() counts from the start of the process.
const times: StartUpTimes = {
  create: built - began,
  workers: started - built,
  firstDma: done - started,
  process: done,
};
console.log(JSON.stringify(times));
