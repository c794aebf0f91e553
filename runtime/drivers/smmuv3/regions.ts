/** Carves out what the driver shares between threads. Creating thread only, before any other attaches. */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { DriverLayout, driverKey, VIOMMUS_KEY, viommusLayout } from './driver-layout.js';

/** vIOMMUs over all SMMUs, when nobody says otherwise. */
export const DEFAULT_VIOMMUS = 128;

/** @param indexes  the SMMUs' indexes in their machine */
export function createDriverRegions(
  memory: MachineMemory,
  indexes: readonly number[],
  viommus = DEFAULT_VIOMMUS,
): void {
  for (const index of indexes) memory.allocRegion(DriverLayout, driverKey(index));
  memory.allocRegion(viommusLayout(viommus), VIOMMUS_KEY);
}
