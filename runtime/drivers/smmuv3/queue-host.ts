/**
 * How a thread reaches an SMMU for the sake of its command queue: registers through the bus front, and the
 * words to park on. Found by the SMMU's index alone, so that any thread can have it.
 */
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { type Log, Mmio } from '../../../hw/smmuv3/mmio.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import type { SyncEnv } from '../../../hw/sync/thread.js';
import type { CommandQueueHost } from './cmdq.js';

export interface SmmuAccess extends CommandQueueHost {
  readonly registers: Mmio;
}

/** @param log  accesses to registers that are not modelled */
export function smmuAccess(memory: MachineMemory, env: SyncEnv, index: number, log: Log): SmmuAccess {
  const smmu = memory.region(Smmuv3Layout, `smmuv3:${index}`).base;
  const unit = memory.region(UnitLayout, `unit:${index}`).base;
  const at = Smmuv3Layout.at;
  return {
    // The bus front needs the register file and the doorbell, not the caches.
    registers: new Mmio(env, { smmu, unit, contexts: 0, iotlb: 0, trace: 0, clock: 0 }, log),
    consWord: smmu + at.cmdqCons,
    consMoved: smmu + at.consMoved,
    consParked: smmu + at.consParked,
    irqWord: smmu + at.irq,
    irqParked: smmu + at.irqParked,
    owner: () => memory.words.load(unit + UnitLayout.at.owner),
  };
}
