/** A process of its own: starts workers and stops them, and must then end by itself. */
import { createMachine, startWorkers } from '../../workers/index.js';

const machine = createMachine({
  memory: '4MiB',
  iommus: [{ name: 'smmu0', model: 'smmuv3' }],
  devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0' }],
});
// Twice: what the first left behind must not disturb the second.
for (let round = 0; round < 2; round++) {
  const host = await startWorkers(machine);
  const { clean } = await host.stop();
  process.stdout.write(clean ? 'clean\n' : 'not clean\n');
}
