/**
 * What devices wrote to, out of a stage-1 table whose dirty state the SMMU keeps (CD.HD, DBM). A leaf begins dirty, as
 * in Linux, and tracking is always on: iommufd clears everything before it says that tracking has begun.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_dirty_ops, drivers/iommu/io-pgtable-arm.c
 */
import type { PageTable } from '../../../hw/pagetable/aarch64.js';
import type { DirtyTracking, Gather } from '../contract.js';

/** Scanned at a time, aligned: the largest leaf of any granule that iommufd uses is less. */
const CHUNK_PAGES = 2 ** 20;

export class TableDirtyTracking implements DirtyTracking {
  readonly holesFail: boolean;
  readonly #table: PageTable;
  readonly #keepsCached: boolean;
  #bitmap = new Uint8Array(0);

  /** @param keepsCached  known bug: what SMMUs hold as dirty is left to them */
  constructor(table: PageTable, holesFail: boolean, keepsCached = false) {
    this.#table = table;
    this.#keepsCached = keepsCached;
    this.holesFail = holesFail;
  }

  setTracking(_enable: boolean): number {
    return 0;
  }

  readAndClear(
    iovaUnit: number,
    units: number,
    clear: boolean,
    report: (unit: number, units: number) => void,
    gather: Gather,
  ): number {
    const end = iovaUnit + units;
    for (let first = iovaUnit; first < end; ) {
      const next = Math.min(end, (Math.floor(first / CHUNK_PAGES) + 1) * CHUNK_PAGES);
      const pages = next - first;
      const bytes = Math.ceil(pages / 8);
      if (this.#bitmap.byteLength < bytes) this.#bitmap = new Uint8Array(bytes);
      const bitmap = this.#bitmap.subarray(0, bytes);
      const found = this.#table.readAndClearDirty(first, pages, bitmap, { noClear: !clear });
      if (found !== 0)
        eachRun(bitmap, pages, (from, count) => {
          report(first + from, count);
          if (clear && !this.#keepsCached) add(gather, first + from, count);
        });
      bitmap.fill(0);
      if (found < 0) return found;
      first = next;
    }
    return 0;
  }
}

/** What an SMMU may hold as dirty still. */
function add(gather: Gather, unit: number, units: number): void {
  const last = unit + units - 1;
  const empty = gather.lastUnit < gather.firstUnit;
  gather.firstUnit = empty ? unit : Math.min(gather.firstUnit, unit);
  gather.lastUnit = empty ? last : Math.max(gather.lastUnit, last);
}

/** Runs of set bits, least significant first. */
function eachRun(bitmap: Uint8Array, bits: number, visit: (from: number, count: number) => void): void {
  let from = -1;
  for (let bit = 0; bit < bits; bit++) {
    const byte = bitmap[bit >> 3]!;
    // A byte that goes on as before.
    if ((bit & 7) === 0 && byte === (from < 0 ? 0 : 0xff) && bit + 8 <= bits) {
      bit += 7;
      continue;
    }
    const set = ((byte >> (bit & 7)) & 1) === 1;
    if (set && from < 0) from = bit;
    if (!set && from >= 0) {
      visit(from, bit - from);
      from = -1;
    }
  }
  if (from >= 0) visit(from, bits - from);
}
