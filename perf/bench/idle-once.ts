/**
 * What one idle machine takes, cold: run as a program of its own by idle.ts. Builds a machine with as many SMMUs
 * as it is told, moves them to workers, waits until they sleep, and prints the process's resident MiB.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { createMachine, startWorkers } from '../../workers/index.js';

const SETTLE_MS = 500;

const smmus = Number(process.argv[2]);
const machine = createMachine({
  iommus: Array.from({ length: smmus }, (_, i) => ({ name: `smmu${i}`, model: 'smmuv3' as const })),
  devices: Array.from({ length: smmus }, (_, i) => ({ name: `device${i}`, iommu: `smmu${i}`, streamId: i })),
});
const host = await startWorkers(machine, { startTimeoutMs: 60_000 });
await sleep(SETTLE_MS);
console.log(process.memoryUsage.rss() / 2 ** 20);
await host.stop();
machine.close();
