/**
 * AArch64 translation tables as they stand in RAM now, read without the code under test. [DDI0487] D8.3
 *
 *   descriptor   63 .. 52 | 51 DBM | 50 .. 48 | 47 ........ 12 | 11 .. 8 | 7 6 access | .. | 1 type | 0 valid
 *
 * An answer says where a page leads and whether it may be written to, now or once hardware has set its dirty state.
 * Not looked at: hierarchical permissions, attributes, 52-bit addresses.
 */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import type { GranuleLg2 } from '../../../hw/pagetable/geometry.js';

export interface TableShape {
  readonly stage: 1 | 2;
  /** Byte address, in the address space of the table's pointers. */
  readonly root: number;
  readonly inputBits: number;
  readonly startLevel: number;
  readonly granuleLg2: GranuleLg2;
}

export interface Leaf {
  /** 4 KiB pages. */
  readonly page: number;
  readonly pages: number;
  readonly pfn: number;
  readonly writable: boolean;
}

const PAGE_LG2 = 12;
const PAGE = 4096;

export class TableWalk {
  readonly #shape: TableShape;
  readonly #u32: Uint32Array;
  /** Linear offset of 8 bytes of a table, -1 when they are no RAM. */
  readonly #place: (address: number) => number;

  /** @param place  where a table's bytes lie; default: it is physically addressed */
  constructor(memory: MachineMemory, shape: TableShape, place?: (address: number) => number) {
    this.#shape = shape;
    this.#u32 = memory.u32;
    this.#place = place ?? ((pa) => memory.linearOf(pa, 8));
  }

  /** @returns the leaf that translates a page, or null */
  find(page: number): Leaf | null {
    const { root, inputBits, startLevel, granuleLg2 } = this.#shape;
    if (page >= 2 ** (inputBits - PAGE_LG2)) return null;
    let table = root;
    for (let level = startLevel; ; level++) {
      const shift = this.#shift(level);
      const perTable = level === startLevel ? 2 ** (inputBits - shift) : 2 ** (granuleLg2 - 3);
      const index = Math.floor((page * PAGE) / 2 ** shift) % perTable;
      const found = this.#descriptor(table + index * 8, level, page - (page % 2 ** (shift - PAGE_LG2)));
      if (found === null || typeof found === 'object') return found;
      table = found;
    }
  }

  /** Every leaf there is, in order. */
  each(visit: (leaf: Leaf) => void): void {
    const { root, inputBits, startLevel } = this.#shape;
    this.#eachIn(root, 2 ** (inputBits - this.#shift(startLevel)), startLevel, 0, visit);
  }

  #eachIn(
    table: number,
    entries: number,
    level: number,
    firstPage: number,
    visit: (leaf: Leaf) => void,
  ): void {
    const span = 2 ** (this.#shift(level) - PAGE_LG2);
    const place = this.#place(table);
    if (place < 0) return;
    for (let i = 0; i < entries; i++) {
      // Most are empty. A table is contiguous wherever it lies.
      if ((this.#u32[(place >>> 2) + i * 2]! & 1) === 0) continue;
      const found = this.#descriptor(table + i * 8, level, firstPage + i * span);
      if (typeof found === 'number')
        this.#eachIn(found, 2 ** (this.#shape.granuleLg2 - 3), level + 1, firstPage + i * span, visit);
      else if (found !== null) visit(found);
    }
  }

  /** @returns a leaf, the address of the next table, or null */
  #descriptor(address: number, level: number, page: number): Leaf | number | null {
    const place = this.#place(address);
    if (place < 0) return null;
    const low = this.#u32[place >>> 2]!;
    const high = this.#u32[(place >>> 2) + 1]!;
    if ((low & 1) === 0) return null;
    const isTable = (low & 2) !== 0;
    if (level === 3 && !isTable) return null;
    const output = (high & 0xffff) * 2 ** 32 + ((low & ~0xfff) >>> 0);
    const size = 2 ** (level === 3 || !isTable ? this.#shift(level) : this.#shape.granuleLg2);
    const aligned = output - (output % size);
    if (isTable && level < 3) return aligned;
    const readOnly = this.#shape.stage === 1 ? (low & 0x80) !== 0 : (low & 0x80) === 0;
    const writable = !readOnly || (high & (1 << 19)) !== 0;
    return { page, pages: size / PAGE, pfn: aligned / PAGE, writable };
  }

  #shift(level: number): number {
    const { granuleLg2 } = this.#shape;
    return granuleLg2 + (granuleLg2 - 3) * (3 - level);
  }
}
