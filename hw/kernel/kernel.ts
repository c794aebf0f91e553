/**
 * The compiled hot path, typed: IOTLB, AArch64 walks, the device's side of a DMA, the request rings and the
 * page-table editor. One instance per thread and machine; all state lies in the machine's regions, so any
 * number of instances see the same hardware.
 *
 * Arguments: regions and records are byte offsets in linear memory; pages, frames and physical addresses are
 * Numbers (exact below 2^53); a byte address that may use all 64 bits travels inside an Xlat record.
 * Who may call what is a matter of the layouts: the IOTLB's and the contexts' writer is the pIOMMU alone, the
 * dma* calls belong to the port's device. Nothing here allocates, waits or throws.
 */
import type { BugSwitches } from '../bugs/bug-switches.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import { instantiateKernel } from './variants.js';

/** What a checker sees of one IOTLB entry. */
export interface IotlbEntryView {
  readonly vmid: number;
  readonly asid: number;
  /** First input page and first physical page, 4 KiB units. */
  readonly page: number;
  readonly pfn: number;
  readonly sizeLg2: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly global: boolean;
  /** Neither: the entry is of an EL2 regime. */
  readonly stage1: boolean;
  readonly stage2: boolean;
  readonly fillSeq: number;
  /** Nested: low 32 bits of the intermediate page number. */
  readonly ipaPage: number;
}

/** What a checker sees of one entry of a device's ATC. */
export interface AtcEntryView {
  readonly index: number;
  /** Input page and what it is translated to, 4 KiB units. */
  readonly page: number;
  readonly pfn: number;
  /** Of the translation that it is a part of. */
  readonly sizeLg2: number;
  readonly fillSeq: number;
}

/** Attribute bits of `iotlbFill`, as they stand in an entry's page word. */
export const FILL_READ = 1 << 1;
export const FILL_WRITE = 1 << 2;
export const FILL_GLOBAL = 1 << 3;
export const FILL_S1 = 1 << 4;
export const FILL_S2 = 1 << 5;

/** The functions that the compiled module exports; see hw/kernel/assembly. */
interface Exports {
  machineInit(ramLinear: number, ramBasePa: number, ramBytes: number): void;
  iotlbInit(unit: number, iotlb: number, entries: number): void;
  iotlbFill(
    unit: number,
    iotlb: number,
    tag: number,
    page: number,
    pfn: number,
    sizeLg2: number,
    bits: number,
    ipaPage: number,
  ): number;
  iotlbProbe(unit: number, iotlb: number, tag: number, stages: number, page: number): number;
  iotlbInvalidateAll(unit: number, iotlb: number): number;
  iotlbInvalidateVmid(iotlb: number, vmid: number, s1Only: number): number;
  iotlbInvalidateAsid(iotlb: number, vmid: number, asid: number): number;
  iotlbInvalidateVa(
    unit: number,
    iotlb: number,
    vmid: number,
    asid: number,
    firstPage: number,
    pages: number,
  ): number;
  iotlbInvalidateIpa(unit: number, iotlb: number, vmid: number, firstPage: number, pages: number): number;
  iotlbInvalidateEl2All(iotlb: number): number;
  iotlbInvalidateEl2Asid(iotlb: number, asid: number): number;
  iotlbInvalidateEl2Va(unit: number, iotlb: number, asid: number, firstPage: number, pages: number): number;
  iotlbCountVmid(iotlb: number, vmid: number): number;
  iotlbCountAsid(iotlb: number, vmid: number, asid: number): number;
  iotlbCountEl2(iotlb: number): number;
  iotlbFindPa(iotlb: number, firstPfn: number, pages: number, from: number): number;
  iotlbSnapshot(iotlb: number, index: number): number;
  snapshotTag(): number;
  snapshotBits(): number;
  snapshotPage(): number;
  snapshotPfn(): number;
  snapshotFillSeq(): number;
  snapshotIpaPage(): number;
  externalWords(at: number, count: number): void;
  translate(unit: number, context: number, iotlb: number, xlat: number): number;
  translateBatch(unit: number, context: number, iotlb: number, firstXlat: number, n: number): number;
  translateIpa(context: number, xlat: number): number;
  atcInvalidate(port: number, ssid: number, firstPage: number, pages: number): number;
  atcFindPa(port: number, firstPfn: number, pages: number, from: number): number;
  atcFindPage(port: number, firstPage: number, pages: number, from: number): number;
  atcFoundPage(): number;
  atcFoundPfn(): number;
  atcFoundSizeLg2(): number;
  atcFoundFillSeq(): number;
  dmaBegin(port: number, n: number): number;
  dmaPoll(port: number): number;
  dmaEnd(port: number): void;
  takeRequests(port: number, dst: number, max: number): number;
  answer(port: number, src: number, n: number): number;
  ptMap(table: number, page: number, pfn: number, pages: number, prot: number): number;
  ptUnmap(table: number, first: number, last: number, from: number): number;
  ptLookup(table: number, page: number): number;
  ptDirty(table: number, first: number, last: number, from: number, unitLg2: number, clear: number): number;
  ptReplace(table: number, page: number, level: number, what: number, step: number): number;
  ptGive(table: number, pfn: number): number;
  ptTakeBack(table: number): number;
  ptTakeFreed(table: number): number;
}

export class Kernel {
  /** Everything the module exports, the layout constants (wasm globals) included. */
  readonly exports: Readonly<Record<string, unknown>>;
  readonly #x: Exports;

  private constructor(exports: Record<string, unknown>) {
    this.exports = exports;
    this.#x = exports as unknown as Exports;
  }

  /**
   * An instance of this thread's own, over a machine's memory. Of the explore variant when the thread has a schedule
   * hook by then (variants.ts).
   * @param bugs  of the zoo; those of compiled code need the explore variant
   * @throws Error when one of those is on without it
   */
  static load(memory: MachineMemory, bugs?: BugSwitches): Kernel {
    const kernel = new Kernel(instantiateKernel(memory, bugs));
    const { linear, basePa, bytes } = memory.ram;
    kernel.#x.machineInit(linear, basePa, bytes);
    return kernel;
  }

  // ---- IOTLB: writers (the pIOMMU alone) ----

  /** Makes an empty IOTLB of `entries` entries (a power of two, at least IOTLB_WAYS) in its region. */
  iotlbInit(unit: number, iotlb: number, entries: number): void {
    this.#x.iotlbInit(unit, iotlb, entries);
  }

  /**
   * Inserts a translation, replacing one of the same key.
   * @param tag   VMID | ASID << 16
   * @param page  input page, rounded down to the entry's size (pfn likewise)
   * @param bits  FILL_*
   * @returns the entry's fillSeq
   */
  iotlbFill(
    unit: number,
    iotlb: number,
    tag: number,
    page: number,
    pfn: number,
    sizeLg2: number,
    bits: number,
    ipaPage = 0,
  ): number {
    return this.#x.iotlbFill(unit, iotlb, tag, page, pfn, sizeLg2, bits, ipaPage) >>> 0;
  }

  /** Every entry. @returns how many were removed, as all invalidations do */
  iotlbInvalidateAll(unit: number, iotlb: number): number {
    return this.#x.iotlbInvalidateAll(unit, iotlb);
  }

  /** TLBI_S12_VMALL, or TLBI_NH_ALL when `s1Only`: entries in which stage 1 took part. Never those of EL2. */
  iotlbInvalidateVmid(iotlb: number, vmid: number, s1Only: boolean): number {
    return this.#x.iotlbInvalidateVmid(iotlb, vmid, s1Only ? 1 : 0);
  }

  /** TLBI_NH_ASID: stage-1 entries of one ASID that are not global. */
  iotlbInvalidateAsid(iotlb: number, vmid: number, asid: number): number {
    return this.#x.iotlbInvalidateAsid(iotlb, vmid, asid);
  }

  /**
   * TLBI_NH_VA, or TLBI_NH_VAA with asid -1: stage-1 entries, of any leaf size, that overlap the range;
   * global ones whatever the ASID.
   */
  iotlbInvalidateVa(
    unit: number,
    iotlb: number,
    vmid: number,
    asid: number,
    firstPage: number,
    pages: number,
  ): number {
    return this.#x.iotlbInvalidateVa(unit, iotlb, vmid, asid, firstPage, pages);
  }

  /** TLBI_S2_IPA: stage-2-only entries that overlap the range. */
  iotlbInvalidateIpa(unit: number, iotlb: number, vmid: number, firstPage: number, pages: number): number {
    return this.#x.iotlbInvalidateIpa(unit, iotlb, vmid, firstPage, pages);
  }

  /** TLBI_EL2_ALL: entries of the EL2 and EL2-E2H regimes. */
  iotlbInvalidateEl2All(iotlb: number): number {
    return this.#x.iotlbInvalidateEl2All(iotlb);
  }

  /** TLBI_EL2_ASID (EL2-E2H): those of one ASID that are not global. */
  iotlbInvalidateEl2Asid(iotlb: number, asid: number): number {
    return this.#x.iotlbInvalidateEl2Asid(iotlb, asid);
  }

  /**
   * TLBI_EL2_VA, or TLBI_EL2_VAA with asid -1, as iotlbInvalidateVa. Without E2H entries have ASID 0 and none is
   * global.
   */
  iotlbInvalidateEl2Va(unit: number, iotlb: number, asid: number, firstPage: number, pages: number): number {
    return this.#x.iotlbInvalidateEl2Va(unit, iotlb, asid, firstPage, pages);
  }

  // ---- IOTLB: readers (any thread; every answer is sequence-checked) ----

  /**
   * @param stages  FILL_S1 and/or FILL_S2: which stages took part, part of the key
   * @returns index of the entry that translates the page, or -1
   */
  iotlbProbe(unit: number, iotlb: number, tag: number, stages: number, page: number): number {
    return this.#x.iotlbProbe(unit, iotlb, tag, stages, page);
  }

  iotlbCountVmid(iotlb: number, vmid: number): number {
    return this.#x.iotlbCountVmid(iotlb, vmid);
  }

  /** Entries of the EL2 regimes, which no VMID's count has. */
  iotlbCountEl2(iotlb: number): number {
    return this.#x.iotlbCountEl2(iotlb);
  }

  /** Stage-1 entries of one ASID, global ones not counted. */
  iotlbCountAsid(iotlb: number, vmid: number, asid: number): number {
    return this.#x.iotlbCountAsid(iotlb, vmid, asid);
  }

  /** @returns index, at or past `from`, of an entry that reaches any of the frames, or -1 */
  iotlbFindPa(iotlb: number, firstPfn: number, pages: number, from = 0): number {
    return this.#x.iotlbFindPa(iotlb, firstPfn, pages, from);
  }

  /** @returns a consistent copy of one entry, or null when it is empty (or no such index) */
  iotlbReadEntry(iotlb: number, index: number): IotlbEntryView | null {
    if (this.#x.iotlbSnapshot(iotlb, index) === 0) return null;
    const tag = this.#x.snapshotTag();
    const bits = this.#x.snapshotBits();
    return {
      vmid: tag & 0xffff,
      asid: tag >>> 16,
      page: this.#x.snapshotPage(),
      pfn: this.#x.snapshotPfn(),
      sizeLg2: (bits >>> 6) & 63,
      readable: (bits & FILL_READ) !== 0,
      writable: (bits & FILL_WRITE) !== 0,
      global: (bits & FILL_GLOBAL) !== 0,
      stage1: (bits & FILL_S1) !== 0,
      stage2: (bits & FILL_S2) !== 0,
      fillSeq: this.#x.snapshotFillSeq() >>> 0,
      ipaPage: this.#x.snapshotIpaPage() >>> 0,
    };
  }

  // ---- walks (pIOMMU) ----

  /**
   * Translates one Xlat in place: IOTLB first, then the walk that the StreamContext asks for, which fills the
   * IOTLB, and may update descriptors in RAM (HTTU). On a fault `pa` is 0, but the address that was fetched for
   * F_WALK_EABT. An XLAT_FLAG_ATS request that succeeds has XLAT_PERM_* in `fault`.
   * @returns the Xlat's status: 0, an SMMU event number, or XLAT_ABORT
   */
  translate(unit: number, context: number, iotlb: number, xlat: number): number {
    return this.#x.translate(unit, context, iotlb, xlat);
  }

  /** Words outside RAM that the walks from here on find: `count` pairs of address and value, 64 bits each. */
  externalWords(at: number, count: number): void {
    this.#x.externalWords(at, count);
  }

  /**
   * The same for `n` consecutive Xlats of one stream, whose walks go in lockstep. Addresses of tables are
   * remembered within the batch, as a walk cache that ends with the call. Answers are those of one by one, but
   * a walk may read a descriptor before the hardware updates of those in front of it.
   * @returns how many faulted
   */
  translateBatch(unit: number, context: number, iotlb: number, firstXlat: number, n: number): number {
    return this.#x.translateBatch(unit, context, iotlb, firstXlat, n);
  }

  /**
   * Stage 2 alone, for a CD fetch: `iova` of the record is the IPA, a fault has class CD. Nothing is cached.
   * A context without stage 2 answers pa = iova.
   */
  translateIpa(context: number, xlat: number): number {
    return this.#x.translateIpa(context, xlat);
  }

  // ---- device side of a port ----

  /**
   * Enters the epoch and translates batch slots 0..n-1 as far as the caches reach. What missed is on the
   * request ring on return: the caller then rings the unit's doorbell.
   * @returns how many are outstanding | -EBUSY (16), outside the epoch, when answers to earlier batches that
   *          were left early still occupy the rings: poll first
   */
  dmaBegin(port: number, n: number): number {
    return this.#x.dmaBegin(port, n);
  }

  /** Takes answers into the batch. @returns how many are still outstanding */
  dmaPoll(port: number): number {
    return this.#x.dmaPoll(port);
  }

  /** Leaves the epoch: no address of the batch may be used from here on. */
  dmaEnd(port: number): void {
    this.#x.dmaEnd(port);
  }

  // ---- pIOMMU side of a port ----

  /**
   * Copies at most `max` requests to `dst`, where the device cannot change them any more. A ring whose
   * indexes make no sense is emptied. @returns how many
   */
  takeRequests(port: number, dst: number, max: number): number {
    return this.#x.takeRequests(port, dst, max);
  }

  /** Sends `n` answers and wakes the device. @returns how many found room */
  answer(port: number, src: number, n: number): number {
    return this.#x.answer(port, src, n);
  }

  /**
   * CMD_ATC_INV: takes translations out of the device's ATC that overlap the range.
   * @param ssid  whose, or NO_SSID for those of every SubstreamID and of none
   * @returns how many
   */
  atcInvalidate(port: number, ssid: number, firstPage: number, pages: number): number {
    return this.#x.atcInvalidate(port, ssid, firstPage, pages);
  }

  /**
   * The first entry from index `from` on that leads to one of these frames, and that the device's next batch would
   * use: one of an ATC that is off, or was switched since its last batch, is as good as gone. Any thread.
   */
  atcFindPa(port: number, firstPfn: number, pages: number, from = 0): AtcEntryView | null {
    return this.#atcEntry(this.#x.atcFindPa(port, firstPfn, pages, from));
  }

  /** The same for an entry that translates one of these pages. */
  atcFindPage(port: number, firstPage: number, pages: number, from = 0): AtcEntryView | null {
    return this.#atcEntry(this.#x.atcFindPage(port, firstPage, pages, from));
  }

  #atcEntry(index: number): AtcEntryView | null {
    if (index < 0) return null;
    return {
      index,
      page: this.#x.atcFoundPage(),
      pfn: this.#x.atcFoundPfn(),
      sizeLg2: this.#x.atcFoundSizeLg2(),
      fillSeq: this.#x.atcFoundFillSeq() >>> 0,
    };
  }

  // ---- page tables: see hw/pagetable/aarch64.ts, which is what to call ----

  /** @returns pages mapped before it stopped; PageTableLayout.reason says why */
  ptMap(table: number, page: number, pfn: number, pages: number, prot: number): number {
    return this.#x.ptMap(table, page, pfn, pages, prot);
  }

  /**
   * Unmaps [first, last], beginning at `from` (`first`, or where an earlier call paused). PageTableLayout.reason
   * says whether it is done, .unmapped how many pages this call unmapped.
   * @returns the page to go on from
   */
  ptUnmap(table: number, first: number, last: number, from: number): number {
    return this.#x.ptUnmap(table, first, last, from);
  }

  /** @returns pfn or -1; PageTableLayout.foundLg2, .foundLevel and .foundProt describe the leaf */
  ptLookup(table: number, page: number): number {
    return this.#x.ptLookup(table, page);
  }

  /**
   * Looks for dirty leaves in [first, last], beginning at `from` (`first`, or where an earlier call paused), and
   * makes them clean unless `clear` is false. PageTableLayout.dirty has the bits from .dirtyBase on.
   * @param unitLg2  log2 of the bytes that one bit stands for
   * @returns the page to go on from, past `last` when done
   */
  ptDirty(table: number, first: number, last: number, from: number, unitLg2: number, clear: boolean): number {
    return this.#x.ptDirty(table, first, last, from, unitLg2, clear ? 1 : 0);
  }

  /** One step of replacing an entry: REPLACE_* and STEP_*. @returns REASON_* */
  ptReplace(table: number, page: number, level: number, what: number, step: number): number {
    return this.#x.ptReplace(table, page, level, what, step);
  }

  /** Puts a table frame in the pool. @returns 1, or 0 when the pool is full */
  ptGive(table: number, pfn: number): number {
    return this.#x.ptGive(table, pfn);
  }

  /** Takes an unused frame out of the pool. @returns pfn or -1 */
  ptTakeBack(table: number): number {
    return this.#x.ptTakeBack(table);
  }

  /** Takes an unlinked table off the freed list. @returns pfn or -1 */
  ptTakeFreed(table: number): number {
    return this.#x.ptTakeFreed(table);
  }
}
