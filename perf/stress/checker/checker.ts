/**
 * The checker's half that lives with the core: it watches address spaces from inside (IoasObserver), keeps the
 * shadow and the canaries, and looks into every IOTLB when an unmap claims to be done.
 *
 *   R1  after an unmap no frame it freed is touched: per-DMA comparison (programs/dma-batch.ts), and a canary
 *       that fills the dead frame until it is mapped again
 *   R6  an ASID or VMID is handed out only when no IOTLB entry of that SMMU carries it
 *   R7  when an unmap returns, no IOTLB of the machine, whatever its tag, still reaches the frames
 */
import { iotlbLayout } from '../../../hw/iotlb/unit-layout.js';
import type { IotlbEntryView, Kernel } from '../../../hw/kernel/kernel.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { ClockLayout } from '../../../hw/smmuv3/trace-layout.js';
import type { InvalidationNote, IoasObserver } from '../../../runtime/drivers/contract.js';
import type { Shadow } from './shadow.js';

/** Runs longer than this carry a canary on every eighth frame only: the large ones would cost milliseconds. */
const DENSE_PAGES = 64;
const SPARSE_STEP = 8;
const UNMAP_RECORDS = 65_536;

export interface UnmapRecord {
  readonly number: number;
  readonly ioasId: number;
  readonly iovaPage: number;
  readonly pfn: number;
  readonly pages: number;
  /** Complete when the unmap has returned. */
  readonly notes: readonly InvalidationNote[];
  /** Logical time at which the core gave the frames up. */
  readonly freedTick: number;
}

/** A violation the core itself saw. */
export type CoreFinding =
  | {
      readonly kind: 'canary';
      readonly pfn: number;
      readonly word: number;
      readonly value: number;
      readonly unmap: UnmapRecord | null;
    }
  | {
      readonly kind: 'iotlb';
      readonly iommu: number;
      readonly entry: IotlbEntryView;
      readonly unmap: UnmapRecord;
    }
  | {
      readonly kind: 'id';
      readonly iommu: number;
      readonly id: 'vmid' | 'asid';
      readonly value: number;
      readonly entries: number;
    };

export interface CheckedIommu {
  readonly name: string;
  readonly index: number;
  readonly iotlbEntries: number;
}

export class Checker implements IoasObserver {
  /** Checks made by the core, by rule. */
  readonly checks = { canary: 0, R6: 0, R7: 0 };
  readonly findings: CoreFinding[] = [];
  readonly #memory: MachineMemory;
  readonly #kernel: Kernel;
  readonly #shadow: Shadow;
  readonly #iommus: { readonly index: number; readonly iotlb: number; readonly entries: number }[];
  readonly #unmaps = new Array<UnmapRecord | undefined>(UNMAP_RECORDS);
  readonly #clock: number;
  readonly #firstPfn: number;
  /** 1 for a frame that carries a canary now. */
  readonly #canaried: Uint8Array;
  #unmapNumber = 0;

  constructor(memory: MachineMemory, kernel: Kernel, shadow: Shadow, iommus: readonly CheckedIommu[]) {
    this.#memory = memory;
    this.#kernel = kernel;
    this.#shadow = shadow;
    this.#iommus = iommus.map(({ index, iotlbEntries }) => ({
      index,
      iotlb: memory.region(iotlbLayout(iotlbEntries), `iotlb:${index}`).base,
      entries: iotlbEntries,
    }));
    this.#clock = memory.region(ClockLayout, 'clock').base + ClockLayout.at.tick;
    this.#firstPfn = memory.ram.basePa / 4096;
    this.#canaried = new Uint8Array(memory.ram.bytes / 4096);
  }

  unmap(number: number): UnmapRecord | null {
    const record = this.#unmaps[number % UNMAP_RECORDS];
    return record?.number === number ? record : null;
  }

  /** The IOTLB entry that a walk made, or null when it is gone. Looks at every entry: for stories only. */
  entryOf(iommu: number, fillSeq: number): IotlbEntryView | null {
    const { iotlb, entries } = this.#iommus[iommu]!;
    for (let i = 0; i < entries; i++) {
      const entry = this.#kernel.iotlbReadEntry(iotlb, i);
      if (entry?.fillSeq === fillSeq) return entry;
    }
    return null;
  }

  mapping(ioasId: number, iovaPage: number, pfn: number, pages: number): void {
    for (let i = 0; i < pages; i++) {
      const frame = pfn + i;
      if (!this.#shadow.tracks(frame)) return;
      this.#checkCanary(frame);
      this.#shadow.setLive(frame, ioasId, iovaPage + i);
    }
  }

  unmapped(
    ioasId: number,
    iovaPage: number,
    pfn: number,
    pages: number,
    notes: readonly InvalidationNote[],
  ): void {
    if (!this.#shadow.tracks(pfn)) return;
    const number = ++this.#unmapNumber;
    const freedTick = this.#memory.words.add(this.#clock, 1) >>> 0;
    const record: UnmapRecord = { number, ioasId, iovaPage, pfn, pages, notes, freedTick };
    this.#unmaps[number % UNMAP_RECORDS] = record;
    if (notes.some(({ failed }) => failed)) {
      for (let i = 0; i < pages; i++) this.#shadow.setUncertain(pfn + i);
      return;
    }
    const step = pages > DENSE_PAGES ? SPARSE_STEP : 1;
    for (let i = 0; i < pages; i++) {
      const frame = pfn + i;
      this.#shadow.setDead(frame, number);
      if (i % step !== 0) continue;
      this.#shadow.plantCanary(frame);
      this.#canaried[frame - this.#firstPfn] = 1;
    }
    this.#checkIotlbs(record);
  }

  /** R6, at the moment a tag is handed out. */
  idAllocated(iommu: number, id: 'vmid' | 'asid', value: number): void {
    this.checks.R6++;
    const { iotlb } = this.#iommus[iommu]!;
    const entries =
      id === 'vmid'
        ? this.#kernel.iotlbCountVmid(iotlb, value)
        : this.#kernel.iotlbCountAsid(iotlb, 0, value);
    if (entries > 0) this.findings.push({ kind: 'id', iommu, id, value, entries });
  }

  /** At the end of a run: every canary still in place is looked at once more. */
  sweep(): void {
    for (let i = 0; i < this.#canaried.length; i++)
      if (this.#canaried[i] === 1) this.#checkCanary(this.#firstPfn + i);
  }

  #checkCanary(frame: number): void {
    const index = frame - this.#firstPfn;
    if (this.#canaried[index] === 0) return;
    this.#canaried[index] = 0;
    this.checks.canary++;
    const word = this.#shadow.brokenCanary(frame);
    if (word >= 0) {
      const value = this.#memory.i32[(this.#memory.ram.linear + index * 4096) / 4 + word]!;
      const unmap = this.unmap(this.#shadow.word(frame, 2));
      this.findings.push({ kind: 'canary', pfn: frame, word, value, unmap });
    }
    this.#shadow.clear(frame);
  }

  #checkIotlbs(record: UnmapRecord): void {
    for (const { index, iotlb } of this.#iommus) {
      this.checks.R7++;
      const found = this.#kernel.iotlbFindPa(iotlb, record.pfn, record.pages);
      if (found < 0) continue;
      const entry = this.#kernel.iotlbReadEntry(iotlb, found);
      // Evicted or invalidated between the two looks: it was there all the same, but then there is no story.
      if (entry === null) continue;
      this.findings.push({ kind: 'iotlb', iommu: index, entry, unmap: record });
    }
  }
}
