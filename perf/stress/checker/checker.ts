/**
 * The checker's half that lives with the core: it watches address spaces from inside (IoasObserver), keeps the
 * shadow and the canaries, and looks into every IOTLB when an unmap claims to be done.
 *
 *   R1  after an unmap no frame it freed is touched: per-DMA comparison (programs/dma-batch.ts), and a canary
 *       that fills the dead frame until it is mapped again
 *   R2  when an unmap returns, no ATC of the machine leads to the frames, and none that the unmap had invalidated
 *       has a translation older than the TLBI; the per-DMA comparison is the same as R1's
 *   R6  an ASID or VMID is handed out only when no IOTLB entry of that SMMU carries it
 *   R7  when an unmap returns, no IOTLB of the machine, whatever its tag, still reaches the frames
 */
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { iotlbLayout, UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import type { AtcEntryView, IotlbEntryView, Kernel } from '../../../hw/kernel/kernel.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { ClockLayout } from '../../../hw/smmuv3/trace-layout.js';
import { ThreadTable, ThreadTableLayout } from '../../../hw/sync/thread.js';
import type { InvalidationNote, IoasObserver } from '../../../runtime/drivers/contract.js';
import { portKey, THREADS_KEY } from '../../../runtime/machine-hardware.js';
import type { Shadow } from './shadow.js';
import { TraceReader } from './trace-reader.js';

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
      readonly kind: 'atc';
      readonly iommu: number;
      readonly device: number;
      readonly entry: AtcEntryView;
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

/** Notes of ATC_INV carry a StreamID where the others have an ASID or VMID. */
export const ofAtc = ({ command }: InvalidationNote): boolean => command === 'CMD_ATC_INV';

/** What an unmap sent to the ATC of one device. */
export const atcNoteOf = (
  notes: readonly InvalidationNote[],
  iommu: number,
  sid: number,
): InvalidationNote | undefined =>
  notes.find((note) => note.iommu === iommu && ofAtc(note) && note.tag === sid);

/** A device with an ATC. */
export interface CheckedAtc {
  /** Index in the machine. */
  readonly device: number;
  readonly iommu: number;
  readonly sid: number;
}

interface WatchedAtc extends CheckedAtc {
  readonly port: number;
  readonly trace: TraceReader | null;
}

/** The devices of a machine that R2 is about. */
export const atcsOf = (
  devices: readonly { readonly iommuIndex: number; readonly sid: number; readonly ats: boolean }[],
): CheckedAtc[] =>
  devices.flatMap(({ iommuIndex, sid, ats }, device) => (ats ? [{ device, iommu: iommuIndex, sid }] : []));

export class Checker implements IoasObserver {
  /** Checks made by the core, by rule. */
  readonly checks = { canary: 0, R2: 0, R6: 0, R7: 0 };
  readonly findings: CoreFinding[] = [];
  readonly #memory: MachineMemory;
  readonly #kernel: Kernel;
  readonly #shadow: Shadow;
  readonly #threads: ThreadTable;
  readonly #iommus: {
    readonly index: number;
    readonly unit: number;
    readonly iotlb: number;
    readonly entries: number;
  }[];
  readonly #atcs: readonly WatchedAtc[];
  readonly #unmaps = new Array<UnmapRecord | undefined>(UNMAP_RECORDS);
  readonly #clock: number;
  readonly #firstPfn: number;
  /** 1 for a frame that carries a canary now. */
  readonly #canaried: Uint8Array;
  #unmapNumber = 0;

  constructor(
    memory: MachineMemory,
    kernel: Kernel,
    shadow: Shadow,
    iommus: readonly CheckedIommu[],
    atcs: readonly CheckedAtc[] = [],
  ) {
    this.#memory = memory;
    this.#kernel = kernel;
    this.#shadow = shadow;
    this.#threads = new ThreadTable(memory, memory.region(ThreadTableLayout, THREADS_KEY));
    this.#iommus = iommus.map(({ index, iotlbEntries }) => ({
      index,
      unit: memory.region(UnitLayout, `unit:${index}`).base,
      iotlb: memory.region(iotlbLayout(iotlbEntries), `iotlb:${index}`).base,
      entries: iotlbEntries,
    }));
    this.#atcs = atcs.map((atc) => ({
      ...atc,
      port: memory.region(PortLayout, portKey(atc.device)).base,
      trace: memory.hasRegion(`trace:${atc.iommu}`) ? new TraceReader(memory, atc.iommu) : null,
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
    if (notes.some(({ failed }) => failed) || this.#someHostDied()) {
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
    for (const atc of this.#atcs) this.#checkAtc(atc, record);
  }

  /**
   * A pIOMMU whose thread died takes nothing out of its IOTLB any more, be it for an unmap or for a tag that went
   * before it: what its devices may still reach is not known, and not the fault of who frees.
   */
  #someHostDied(): boolean {
    const { words } = this.#memory;
    return this.#iommus.some(({ unit }) => this.#threads.isDead(words.load(unit + UnitLayout.at.owner)));
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

  /** Every SYNC is complete, so each device has left the batch in which it could have made such an entry. */
  #checkAtc(atc: WatchedAtc, record: UnmapRecord): void {
    this.checks.R2++;
    const { device, iommu, port } = atc;
    const entry = this.#kernel.atcFindPa(port, record.pfn, record.pages) ?? this.#olderThanTlbi(atc, record);
    if (entry !== null) this.findings.push({ kind: 'atc', iommu, device, entry, unmap: record });
  }

  /**
   * Of what ATC_INV had to take from this device, an entry that a walk made before the first TLBI was issued: whatever
   * it leads to. A translation by two stages is kept under the guest's address, so that all of them had to go.
   */
  #olderThanTlbi({ iommu, sid, port, trace }: WatchedAtc, { notes }: UnmapRecord): AtcEntryView | null {
    const sent = atcNoteOf(notes, iommu, sid);
    const tlbi = notes.find((note) => note.iommu === iommu && !ofAtc(note));
    if (trace === null || sent === undefined || tlbi === undefined) return null;
    const { firstPage, pages } = sent;
    let entry = this.#kernel.atcFindPage(port, firstPage, pages);
    for (; entry !== null; entry = this.#kernel.atcFindPage(port, firstPage, pages, entry.index + 1)) {
      const walk = trace.walk(entry.fillSeq);
      if (walk !== null && ((walk.tick - tlbi.tickIssued) | 0) < 0) return entry;
    }
    return null;
  }
}
