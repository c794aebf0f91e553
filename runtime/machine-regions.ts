/**
 * How a machine's configuration becomes regions of its memory: the creating thread's part. How any thread finds
 * them again is in machine-hardware.ts.
 */
import { PortLayout } from '../hw/iotlb/port-layout.js';
import { contextsLayout, iotlbLayout, UnitLayout } from '../hw/iotlb/unit-layout.js';
import type { Kernel } from '../hw/kernel/kernel.js';
import { framesLayout } from '../hw/memory/frames-layout.js';
import type { MachineMemory } from '../hw/memory/machine-memory.js';
import { createSmmuv3Regions } from '../hw/smmuv3/regions.js';
import { ClockLayout } from '../hw/smmuv3/trace-layout.js';
import { ThreadTableLayout } from '../hw/sync/thread.js';
import { cmdqvBytes, createCmdqvRegions } from '../hw/tegra241-cmdqv/config.js';
import { ObjectsLayout } from './core/objects-layout.js';
import {
  CLOCK_KEY,
  cmdqvConfigOf,
  FRAMES_KEY,
  portKey,
  smmuConfigOf,
  THREADS_KEY,
} from './machine-hardware.js';
import type { CheckedConfig } from './machine-schema.js';
import { UserMemory } from './user-memory.js';

/** Control memory besides what the regions of IOMMUs and devices take: objects, user memory, workers, a program's own. */
const CONTROL_BASE_BYTES = 40 * 2 ** 20;
const CONTROL_PER_IOMMU = 8 * 2 ** 20;
/** Object tables that CONTROL_BASE_BYTES has room for. */
const BASE_FDS = 16;
/** The frame allocator's and the pins' share of a byte of RAM, and a checker's. */
const CONTROL_PER_RAM_BYTE = 1 / 64;

export function controlBytes(config: CheckedConfig): number {
  return (
    CONTROL_BASE_BYTES +
    config.iommus.length * CONTROL_PER_IOMMU +
    config.iommus.reduce((sum, iommu, index) => {
      const cmdqv = cmdqvConfigOf(iommu, index);
      return sum + (cmdqv === null ? 0 : cmdqvBytes(cmdqv));
    }, 0) +
    Math.ceil(config.memory * CONTROL_PER_RAM_BYTE) +
    Math.max(0, config.maxFds - BASE_FDS) * (ObjectsLayout.size + 4096) +
    config.instrumentBytes
  );
}

/** Regions that exist before the kernel: threads and clock. */
export function allocBaseRegions(memory: MachineMemory): void {
  memory.allocRegion(ThreadTableLayout, THREADS_KEY);
  memory.allocRegion(ClockLayout, CLOCK_KEY);
}

/** All the rest, in reset state, and every device wired to its unit. Creating thread only. */
export function allocMachineRegions(memory: MachineMemory, kernel: Kernel, config: CheckedConfig): void {
  memory.allocRegion(framesLayout(memory.ram.bytes), FRAMES_KEY);
  UserMemory.allocRegions(memory);
  config.iommus.forEach((iommu, index) => {
    createSmmuv3Regions(memory, kernel, smmuConfigOf(config, index), config.trace);
    const cmdqv = cmdqvConfigOf(iommu, index);
    if (cmdqv !== null) createCmdqvRegions(memory, cmdqv);
  });
  config.devices.forEach(({ iommuIndex, sid, ats, pri }, index) => {
    const port = memory.allocRegion(PortLayout, portKey(index)).base;
    const at = PortLayout.at;
    const { words } = memory;
    const unit = memory.region(UnitLayout, `unit:${iommuIndex}`).base;
    const { iotlbEntries } = config.iommus[iommuIndex]!;
    words.store(port + at.unit, unit);
    words.store(port + at.contexts, memory.region(contextsLayout(), `contexts:${iommuIndex}`).base);
    words.store(port + at.iotlb, memory.region(iotlbLayout(iotlbEntries), `iotlb:${iommuIndex}`).base);
    words.store(port + at.sid, sid | 0);
    words.store(port + at.ats, ats ? 1 : 0);
    words.store(port + at.pri, pri ? 1 : 0);
    const slot = words.load(unit + UnitLayout.at.portCount);
    words.store(unit + UnitLayout.at.ports + slot * 4, port);
    words.store(unit + UnitLayout.at.portCount, slot + 1);
  });
}
