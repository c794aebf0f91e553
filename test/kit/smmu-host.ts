/** A thread that hosts one SMMU model until it is terminated. */
import { workerData } from 'node:worker_threads';
import { UnitLayout } from '../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../hw/kernel/kernel.js';
import { MachineMemory, type MemoryHandle } from '../../hw/memory/machine-memory.js';
import type { Smmuv3Config } from '../../hw/smmuv3/config.js';
import { Smmuv3 } from '../../hw/smmuv3/model.js';
import { smmuv3Regions } from '../../hw/smmuv3/regions.js';
import { Doorbell } from '../../hw/sync/doorbell.js';
import { attachEnv } from './queue-fixture.js';

const { handle, config } = workerData as { handle: MemoryHandle; config: Smmuv3Config };
const memory = MachineMemory.attach(handle);
const env = attachEnv(memory, true);
const regions = smmuv3Regions(memory, config);
const model = new Smmuv3(env, memory, Kernel.load(memory), regions, config);
const { doorbell, doorbellParked } = UnitLayout.at;
const bell = new Doorbell(env, regions.unit + doorbell, regions.unit + doorbellParked);
for (;;) if (!model.step()) bell.waitFor(() => model.hasWork());
