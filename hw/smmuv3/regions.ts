/**
 * Carves one SMMU's regions out of a machine's memory and puts them in their reset state. Creating thread only.
 *
 *   unit:N  contexts:N  iotlb:N      shared with the devices (hw/iotlb)
 *   smmuv3:N                         registers and model state
 *   trace:N, clock                   for reports, optional
 */
import { contextsLayout, iotlbLayout, UnitLayout } from '../iotlb/unit-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import { identification, type Smmuv3Config } from './config.js';
import { Smmuv3Layout } from './smmuv3-layout.js';
import { ClockLayout, TraceLayout } from './trace-layout.js';

/** Linear bases of one unit's regions; trace and clock are 0 when there are none. */
export interface Smmuv3Regions {
  readonly unit: number;
  readonly contexts: number;
  readonly iotlb: number;
  readonly smmu: number;
  readonly trace: number;
  readonly clock: number;
}

/** @param trace  whether to keep walks and commands for reports (5.5 MiB) */
export function createSmmuv3Regions(
  memory: MachineMemory,
  kernel: Kernel,
  config: Smmuv3Config,
  trace = false,
): Smmuv3Regions {
  const n = config.index;
  const { words } = memory;
  const unit = memory.allocRegion(UnitLayout, `unit:${n}`).base;
  memory.allocRegion(contextsLayout(), `contexts:${n}`);
  const iotlb = memory.allocRegion(iotlbLayout(config.iotlbEntries), `iotlb:${n}`).base;
  const smmu = memory.allocRegion(Smmuv3Layout, `smmuv3:${n}`).base;
  if (trace) {
    memory.allocRegion(TraceLayout, `trace:${n}`);
    if (!memory.hasRegion('clock')) memory.allocRegion(ClockLayout, 'clock');
  }
  words.store(unit + UnitLayout.at.gen, 1);
  kernel.iotlbInit(unit, iotlb, config.iotlbEntries);
  const at = Smmuv3Layout.at;
  const id = identification(config);
  words.store(smmu + at.idr0, id.idr0);
  words.store(smmu + at.idr1, id.idr1);
  words.store(smmu + at.idr3, id.idr3);
  words.store(smmu + at.idr5, id.idr5);
  words.store(smmu + at.iidr, id.iidr);
  words.store(smmu + at.aidr, id.aidr);
  return smmuv3Regions(memory, config);
}

/** Finds the regions of a unit that exists, on any thread, checking their layouts. */
export function smmuv3Regions(memory: MachineMemory, config: Smmuv3Config): Smmuv3Regions {
  const n = config.index;
  const trace = memory.hasRegion(`trace:${n}`) && memory.hasRegion('clock');
  return {
    unit: memory.region(UnitLayout, `unit:${n}`).base,
    contexts: memory.region(contextsLayout(), `contexts:${n}`).base,
    iotlb: memory.region(iotlbLayout(config.iotlbEntries), `iotlb:${n}`).base,
    smmu: memory.region(Smmuv3Layout, `smmuv3:${n}`).base,
    trace: trace ? memory.region(TraceLayout, `trace:${n}`).base : 0,
    clock: trace ? memory.region(ClockLayout, 'clock').base : 0,
  };
}
