/**
 * The mock IOMMU's page table: AMD's host format of three levels, but with 2 KiB as the smallest page, so that the
 * IOMMU's pages are smaller than the CPU's. A unit is 2 KiB.
 *
 *   level 2   512 slots of 2^18 units (512 MiB)        a slot: empty, a table of the level below, or a leaf
 *   level 1   512 slots of 2^9 units (1 MiB)
 *   level 0   512 slots of one unit                    a leaf of 2^n slots of one level fills them all
 *
 * So every power of two from 2 KiB to 128 GiB is a page size. Every slot of a larger leaf holds its own address and
 * dirty bit, and the leaf is dirty when one of them is. Linux 7.0 reports a dirty leaf of several slots without its last
 * one, and its test program counts on that: so does this table.
 *
 * Not modelled: bytes. Nothing walks this table but its own methods, as on Linux, where no hardware reads it.
 *
 * @source drivers/iommu/generic_pt/fmt/amdv1.h (AMDV1_IOMMUFD_SELFTEST), iommu_pt.h
 */
import { EADDRINUSE, EINVAL, ENOMEM, ERANGE } from '../../../uapi/abi/errno.js';

export const MOCK_UNIT_LG2 = 11;
/** Units of the whole table: 38 bits of IOVA. */
export const MOCK_TABLE_UNITS = 2 ** 27;
/** Log2 of the largest page in units. */
const MAX_SIZE_LG2 = 26;
/** 51 bits of output address. */
const MAX_PA_UNITS = 2 ** 40;

const SLOTS_LG2 = 9;
const SLOTS = 1 << SLOTS_LG2;
const TOP_LEVEL = 2;

/** A slot's word: 0 is empty; TABLE; or LEAF with READ | WRITE << 1 above it, DIRTY, log2 of its slots. */
const LEAF = 1 << 0;
const PROT_SHIFT = 1;
const DIRTY = 1 << 3;
const CONTIG_SHIFT = 4;
const TABLE = 1 << 15;

class Table {
  readonly words = new Uint16Array(SLOTS);
  /** Unit that a leaf's slot translates to. */
  readonly outputs = new Float64Array(SLOTS);
  readonly lower: (Table | undefined)[] = [];
  /** Slots that are not empty. */
  used = 0;
}

export class MockPageTable {
  readonly #sizes: number;
  readonly #allocFails: () => boolean;
  readonly #top = new Table();

  /**
   * @param sizesLg2  log2 of each page size in units, 0 to 26
   * @param allocFails  asked for every table
   */
  constructor(sizesLg2: readonly number[], allocFails: () => boolean) {
    this.#sizes = sizesLg2.reduce((mask, lg2) => mask | (1 << lg2), 0);
    this.#allocFails = allocFails;
  }

  /**
   * Units, all of them. On failure nothing of the range stays mapped that was not.
   * @param prot  IOMMU_READ | IOMMU_WRITE
   * @returns 0 | -EADDRINUSE | -ENOMEM | -ERANGE beyond the table or its addresses | -EINVAL no page size fits
   */
  map(iova: number, pa: number, units: number, prot: number): number {
    if (iova + units > MOCK_TABLE_UNITS || pa + units > MAX_PA_UNITS) return -ERANGE;
    let done = 0;
    while (done < units) {
      const mapped = this.#mapInOneTable(iova + done, pa + done, units - done, prot);
      if (mapped < 0) {
        if (done > 0) this.unmap(iova, done);
        return mapped;
      }
      done += mapped;
    }
    return 0;
  }

  /**
   * Clears leaves from `iova` on, up to a hole; tables that are covered wholly go as well. A last leaf that reaches
   * beyond the range goes as a whole, a first one that begins before it stays.
   * @returns units unmapped
   */
  unmap(iova: number, units: number): number {
    if (units <= 0 || iova + units > MOCK_TABLE_UNITS) return 0;
    return this.#unmapIn(this.#top, TOP_LEVEL, iova, iova + units);
  }

  /** @returns the unit behind a unit, or -1 */
  lookup(iova: number): number {
    if (iova < 0 || iova >= MOCK_TABLE_UNITS) return -1;
    let table = this.#top;
    for (let level = TOP_LEVEL; ; level--) {
      const index = slotOf(iova, level);
      const word = table.words[index]!;
      if (word === 0) return -1;
      if ((word & TABLE) === 0) return table.outputs[index]! + (iova & (slotUnits(level) - 1));
      table = table.lower[index]!;
    }
  }

  /** IOMMU_READ | IOMMU_WRITE of a unit, or 0. */
  protOf(iova: number): number {
    const at = this.#leafAt(iova);
    return at === null ? 0 : (at.table.words[at.index]! >> PROT_SHIFT) & 3;
  }

  /** What a write of a device does to the leaf. @returns whether there is one */
  setDirty(iova: number): boolean {
    const at = this.#leafAt(iova);
    if (at === null) return false;
    at.table.words[at.index]! |= DIRTY;
    return true;
  }

  /**
   * Calls `report` for every dirty leaf's part in the range, ascending, and makes it clean if `clear`.
   * @source iommu_pt.h record_dirty
   */
  readDirty(
    iova: number,
    units: number,
    clear: boolean,
    report: (iova: number, units: number) => void,
  ): void {
    const end = Math.min(iova + units, MOCK_TABLE_UNITS);
    if (iova < end) readDirtyIn(this.#top, TOP_LEVEL, iova, end, clear, report);
  }

  /** Maps leaves of one size that lie in one table. @returns units | -errno */
  #mapInOneTable(iova: number, pa: number, units: number, prot: number): number {
    const sizeLg2 = this.#bestSizeLg2(iova, pa, units);
    if (sizeLg2 < 0) return -EINVAL;
    const level = sizeLg2 < SLOTS_LG2 ? 0 : sizeLg2 < 2 * SLOTS_LG2 ? 1 : 2;
    const table = this.#tableFor(iova, level);
    if (typeof table === 'number') return table;
    const contigLg2 = sizeLg2 - level * SLOTS_LG2;
    const slots = 1 << contigLg2;
    const size = 2 ** sizeLg2;
    const word = LEAF | (prot << PROT_SHIFT) | (contigLg2 << CONTIG_SHIFT);
    const { words, outputs } = table;
    const each = slotUnits(level);
    let index = slotOf(iova, level);
    let done = 0;
    do {
      for (let slot = index; slot < index + slots; slot++) {
        if (words[slot] !== 0 && !dropEmptyTable(table, slot)) {
          if (done > 0) this.unmap(iova, done);
          return -EADDRINUSE;
        }
      }
      for (let slot = 0; slot < slots; slot++) {
        words[index + slot] = word;
        outputs[index + slot] = pa + done + slot * each;
      }
      table.used += slots;
      index += slots;
      done += size;
    } while (
      index < SLOTS &&
      done < units &&
      this.#bestSizeLg2(iova + done, pa + done, units - done) === sizeLg2
    );
    return done;
  }

  /** Log2 of the largest page size that alignment and length allow, or -1. */
  #bestSizeLg2(iova: number, pa: number, units: number): number {
    // Of an address past 2^32 the low bits are left, which are all that count.
    const bits = iova | pa | MOCK_TABLE_UNITS;
    const alignLg2 = 31 - Math.clz32(bits & -bits);
    const lengthLg2 = 31 - Math.clz32(Math.min(units, MOCK_TABLE_UNITS));
    const most = Math.min(alignLg2, lengthLg2, MAX_SIZE_LG2);
    return 31 - Math.clz32(this.#sizes & ((2 << most) - 1));
  }

  /** The table of this level over `iova`, made where there is none. */
  #tableFor(iova: number, level: number): Table | number {
    let table = this.#top;
    for (let above = TOP_LEVEL; above > level; above--) {
      const index = slotOf(iova, above);
      const word = table.words[index]!;
      if (word === 0) {
        if (this.#allocFails()) return -ENOMEM;
        table.words[index] = TABLE;
        table.lower[index] = new Table();
        table.used++;
      } else if ((word & TABLE) === 0) return -EADDRINUSE;
      table = table.lower[index]!;
    }
    return table;
  }

  #unmapIn(table: Table, level: number, iova: number, end: number): number {
    const each = slotUnits(level);
    let at = iova;
    while (at < end) {
      const index = slotOf(at, level);
      const word = table.words[index]!;
      if (word === 0) break;
      if ((word & TABLE) !== 0) {
        const slotEnd = at - (at & (each - 1)) + each;
        const last = Math.min(end, slotEnd);
        const unmapped = this.#unmapIn(table.lower[index]!, level - 1, at, last);
        // Covered wholly, and everything in it is gone.
        if (unmapped === each) dropTable(table, index);
        at += unmapped;
        if (at < last) break;
      } else {
        const slots = 1 << ((word >> CONTIG_SHIFT) & 0xf);
        if ((at & (slots * each - 1)) !== 0) break;
        table.words.fill(0, index, index + slots);
        table.used -= slots;
        at += slots * each;
      }
      if (slotOf(at, level) === 0) break;
    }
    return at - iova;
  }

  #leafAt(iova: number): { table: Table; index: number } | null {
    if (iova < 0 || iova >= MOCK_TABLE_UNITS) return null;
    let table = this.#top;
    for (let level = TOP_LEVEL; ; level--) {
      const index = slotOf(iova, level);
      const word = table.words[index]!;
      if (word === 0) return null;
      if ((word & TABLE) === 0) return { table, index };
      table = table.lower[index]!;
    }
  }
}

const slotUnits = (level: number): number => 1 << (level * SLOTS_LG2);
const slotOf = (iova: number, level: number): number => (iova >>> (level * SLOTS_LG2)) & (SLOTS - 1);

function dropTable(table: Table, index: number): void {
  table.words[index] = 0;
  table.lower[index] = undefined;
  table.used--;
}

/** A larger leaf takes the place of tables that earlier mappings left empty. @returns whether the slot is empty */
function dropEmptyTable(table: Table, index: number): boolean {
  if ((table.words[index]! & TABLE) === 0 || !isEmpty(table.lower[index]!)) return false;
  dropTable(table, index);
  return true;
}

function isEmpty(table: Table): boolean {
  if (table.used === 0) return true;
  return table.words.every((word, i) => word === 0 || ((word & TABLE) !== 0 && isEmpty(table.lower[i]!)));
}

function readDirtyIn(
  table: Table,
  level: number,
  iova: number,
  end: number,
  clear: boolean,
  report: (iova: number, units: number) => void,
): void {
  const each = slotUnits(level);
  let at = iova;
  while (at < end) {
    const index = slotOf(at, level);
    const word = table.words[index]!;
    const slots = (word & TABLE) === 0 ? 1 << ((word >> CONTIG_SHIFT) & 0xf) : 1;
    const next = Math.min(end, at - (at & (slots * each - 1)) + slots * each);
    if ((word & TABLE) !== 0) readDirtyIn(table.lower[index]!, level - 1, at, next, clear, report);
    else if ((word & LEAF) !== 0 && isDirty(table.words, index & -slots, slots)) {
      const reported =
        slots === 1 ? next : Math.min(next, at - (at & (slots * each - 1)) + (slots - 1) * each);
      if (reported > at) report(at, reported - at);
      if (clear) for (let i = 0; i < slots; i++) table.words[(index & -slots) + i]! &= ~DIRTY;
    }
    at = next;
  }
}

function isDirty(words: Uint16Array, first: number, slots: number): boolean {
  for (let i = first; i < first + slots; i++) if ((words[i]! & DIRTY) !== 0) return true;
  return false;
}
