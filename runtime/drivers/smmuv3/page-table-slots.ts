/**
 * Places for page-table descriptors in the machine's `page-tables` region. One allocator a machine; the core
 * thread alone.
 */
import { bug } from '../../../hw/memory/bug.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { PAGE_TABLE_BYTES, pageTablesLayout } from '../../../hw/pagetable/page-table-layout.js';
import { ENOMEM } from '../../../uapi/abi/errno.js';

export class PageTableSlots {
  readonly #base: number;
  readonly #free: number[] = [];
  readonly #used = new Set<number>();

  /** @param count as the region was made with */
  constructor(memory: MachineMemory, key: string, count: number) {
    this.#base = memory.region(pageTablesLayout(count), key).base;
    for (let i = count - 1; i >= 0; i--) this.#free.push(this.#base + i * PAGE_TABLE_BYTES);
  }

  /** @returns the descriptor's linear offset | -ENOMEM */
  alloc(): number {
    const slot = this.#free.pop();
    if (slot === undefined) return -ENOMEM;
    this.#used.add(slot);
    return slot;
  }

  free(slot: number): void {
    if (!this.#used.delete(slot)) bug(`page-table slot at ${slot} is not in use`);
    this.#free.push(slot);
  }
}
