/** Page-table descriptors for a guest driver: a region of the machine's memory of its own. */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import { PAGE_TABLE_BYTES, pageTablesLayout } from '../../hw/pagetable/page-table-layout.js';

/**
 * Carves out descriptors, one for each address space the guest may have at once. Before startWorkers: threads
 * know the regions that exist when they begin.
 * @param key  name of the region, one for each guest driver
 * @returns GuestDriverOptions.descriptors: byte offsets in linear memory
 * @throws RangeError no room; Error the key is taken
 */
export function allocGuestTables(memory: MachineMemory, count: number, key = 'guest-tables'): number[] {
  const { base } = memory.allocRegion(pageTablesLayout(count), key);
  return Array.from({ length: count }, (_, i) => base + i * PAGE_TABLE_BYTES);
}
