/**
 * dma-bufs: memory of one device that others may use, until its exporter takes it back. struct dma_buf, as much of
 * it as a revocable importer needs.
 *
 *   exporter --map--> physical range                importers (DmabufPages of any iommufd)
 *       '-- invalidateMappings() ----------------------> revoked: out of every page table, for good
 *
 * An importer asks for the range once, when it is attached. What was revoked stays so for it, whatever the exporter
 * does later; a new attachment asks again.
 *
 * @source drivers/dma-buf/dma-buf.c, drivers/iommu/iommufd/pages.c iopt_map_dmabuf
 */
import { ENODEV } from '../../uapi/abi/errno.js';
import type { OpenFile } from './file-table.js';

/** Contiguous frames. struct phys_vec. */
export interface PhysicalRange {
  readonly pfn: number;
  readonly pages: number;
}

/** Who made the dma-buf. */
export interface DmaBufExporter {
  /** What lies behind it now. @returns the range | -ENODEV taken back | -EOPNOTSUPP no such thing */
  map(): PhysicalRange | number;
  /** The last reference is gone. */
  release(): void;
}

/** Who uses one. */
export interface DmaBufImporter {
  /** Stop: when this returns, no device may reach the memory. */
  invalidateMappings(): void;
}

export class DmaBuf {
  readonly sizeBytes: bigint;
  readonly #exporter: DmaBufExporter;
  readonly #importers = new Set<DmaBufImporter>();
  #refs = 1;

  /** The caller holds a reference; openDmaBuf() hands it to a descriptor. */
  constructor(exporter: DmaBufExporter, sizeBytes: bigint) {
    this.#exporter = exporter;
    this.sizeBytes = sizeBytes;
  }

  get exporter(): DmaBufExporter {
    return this.#exporter;
  }

  get(): void {
    this.#refs++;
  }

  put(): void {
    if (--this.#refs === 0) this.#exporter.release();
  }

  /** @returns what the exporter's map() says; attached only when that is a range */
  attach(importer: DmaBufImporter): PhysicalRange | number {
    const range = this.#exporter.map();
    if (typeof range !== 'number') this.#importers.add(importer);
    return range;
  }

  detach(importer: DmaBufImporter): void {
    this.#importers.delete(importer);
  }

  /** The exporter is about to take the memory back, or to move it (dma_buf_invalidate_mappings). */
  invalidateMappings(): void {
    for (const importer of [...this.#importers]) importer.invalidateMappings();
  }
}

/** What the descriptor of a dma-buf stands for. */
export interface DmaBufDescription extends OpenFile {
  readonly kind: 'dmabuf';
  readonly dmabuf: DmaBuf;
}

/** A descriptor's hold on a dma-buf; takes over the caller's reference. */
export const openDmaBuf = (dmabuf: DmaBuf): DmaBufDescription => ({
  kind: 'dmabuf',
  dmabuf,
  release: () => dmabuf.put(),
});

/** Frames of the machine's RAM as a device's memory. */
export class MemoryExporter implements DmaBufExporter {
  readonly range: PhysicalRange;
  readonly #free: (range: PhysicalRange) => void;
  revoked = false;

  /** @param free  gives the frames back, after the last importer and descriptor */
  constructor(range: PhysicalRange, free: (range: PhysicalRange) => void) {
    this.range = range;
    this.#free = free;
  }

  map(): PhysicalRange | number {
    return this.revoked ? -ENODEV : this.range;
  }

  release(): void {
    this.#free(this.range);
  }
}
