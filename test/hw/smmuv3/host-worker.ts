/** Hosts one unit on a thread of its own, as a worker's loop does: step, and park on the doorbell when idle. */
import { workerData } from 'node:worker_threads';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../../hw/kernel/kernel.js';
import { MachineMemory, type MemoryHandle } from '../../../hw/memory/machine-memory.js';
import type { Smmuv3Config } from '../../../hw/smmuv3/config.js';
import { Smmuv3 } from '../../../hw/smmuv3/model.js';
import { smmuv3Regions } from '../../../hw/smmuv3/regions.js';
import { Doorbell } from '../../../hw/sync/doorbell.js';
import { monotonicClock, ThreadTable, ThreadTableLayout } from '../../../hw/sync/thread.js';

const { handle, config } = workerData as { handle: MemoryHandle; config: Smmuv3Config };
const memory = MachineMemory.attach(handle);
const threads = new ThreadTable(memory, memory.region(ThreadTableLayout, 'threads'));
const env = {
  words: memory.words,
  threads,
  threadId: threads.register(),
  clock: monotonicClock,
  canPark: true,
};
const regions = smmuv3Regions(memory, config);
const model = new Smmuv3(env, memory, Kernel.load(memory), regions, config);
const { doorbell, doorbellParked } = UnitLayout.at;
const bell = new Doorbell(env, regions.unit + doorbell, regions.unit + doorbellParked);
/** The test says stop by making the unit's port count impossible. */
const stopped = (): boolean => memory.words.load(regions.unit + UnitLayout.at.portCount) === -1;
while (!stopped()) if (!model.step()) bell.waitFor(() => stopped() || model.hasWork());
