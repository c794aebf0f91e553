/** A machine behind a socket, run as a program of its own by clients.ts: prints the socket, and ends with its stdin. */
import { createMachine } from '../../runtime/machine.js';
import { serve } from '../../runtime/serve/index.js';

const machine = createMachine({
  iommus: [{ name: 'smmu0', model: 'smmuv3' }],
  devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0' }],
});
const served = await serve(machine, { log: (line) => process.stderr.write(`${line}\n`) });
console.log(served.socket);
process.stdin.resume();
process.stdin.on('end', async () => {
  await served.close();
  machine.close();
});
