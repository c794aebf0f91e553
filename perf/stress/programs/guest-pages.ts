/**
 * The guest's data pages: which are free, which carry a canary, and what the checker is told of each. A page
 * is live while one device's stage 1 maps it; from the completion of the invalidation that ends this until it
 * is mapped again, nobody may touch it.
 */
import { XLAT_FROM_ATC } from '../../../hw/iotlb/port-layout.js';
import type { AtcEntryView } from '../../../hw/kernel/kernel.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { ClockLayout } from '../../../hw/smmuv3/trace-layout.js';
import type { Shadow } from '../checker/shadow.js';
import { DEAD, KIND_ATC_KEPT, KIND_CANARY_BROKEN, SHADOW_GUEST_INV, V } from '../checker/shadow-layout.js';
import type { Random } from '../random.js';

export class GuestPages {
  /** Canaries looked at. */
  checks = 0;
  readonly #memory: MachineMemory;
  readonly #shadow: Shadow;
  readonly #vm: number;
  readonly #firstIpaPage: number;
  readonly #firstPfn: number;
  readonly #free: number[];
  readonly #canaried: Uint8Array;
  readonly #lastDevice: Int32Array;
  readonly #clock: number;

  /** @param firstPfn  physical frame of the first page; the pages are one physical run */
  constructor(
    memory: MachineMemory,
    shadow: Shadow,
    vm: number,
    firstIpaPage: number,
    firstPfn: number,
    pages: number,
  ) {
    this.#memory = memory;
    this.#shadow = shadow;
    this.#vm = vm;
    this.#firstIpaPage = firstIpaPage;
    this.#firstPfn = firstPfn;
    this.#free = Array.from({ length: pages }, (_, i) => i);
    this.#canaried = new Uint8Array(pages);
    this.#lastDevice = new Int32Array(pages);
    this.#clock = memory.region(ClockLayout, 'clock').base + ClockLayout.at.tick;
  }

  tick(): number {
    return this.#memory.words.add(this.#clock, 1) >>> 0;
  }

  /** A free page, its canary checked, ready to be mapped. @returns IPA page, or -1 when all are in use */
  take(random: Random, device: number, iovaPage: number): number {
    if (this.#free.length === 0) return -1;
    const at = random.below(this.#free.length);
    const page = this.#free[at]!;
    this.#free[at] = this.#free[this.#free.length - 1]!;
    this.#free.length--;
    const pfn = this.#firstPfn + page;
    this.#checkCanary(page, pfn);
    this.#lastDevice[page] = device;
    this.#shadow.setGuestLive(pfn, device, iovaPage);
    return this.#firstIpaPage + page;
  }

  /** The invalidation `number` of this page is complete: from now on nothing may reach it. */
  kill(ipaPage: number, number: number): void {
    const page = ipaPage - this.#firstIpaPage;
    const pfn = this.#firstPfn + page;
    this.#shadow.setGuestDead(pfn, number);
    this.#plant(page, pfn);
    this.#free.push(page);
  }

  frameOf(ipaPage: number): number {
    return this.#firstPfn + ipaPage - this.#firstIpaPage;
  }

  /** The invalidation `number` of this page is complete, and the device's ATC has it still. */
  keptByAtc(device: number, ipaPage: number, number: number, entry: AtcEntryView): void {
    const record = this.#shadow.claimViolation();
    if (record < 0) return;
    const { i32 } = this.#memory;
    i32.fill(0, record + 1, record + 32);
    i32[record + V.kind] = KIND_ATC_KEPT;
    i32[record + V.device] = device;
    i32[record + V.iovaLow] = (entry.page % 2 ** 20) << 12;
    i32[record + V.iovaHigh] = Math.floor(entry.page / 2 ** 20);
    i32[record + V.pfn] = this.frameOf(ipaPage);
    i32[record + V.ipaPage] = ipaPage;
    i32[record + V.fillSeq] = entry.fillSeq;
    i32[record + V.source] = XLAT_FROM_ATC;
    i32[record + V.sizeLg2] = entry.sizeLg2;
    i32[record + V.guestPage] = DEAD;
    i32[record + V.guestInv] = number;
    i32[record + V.tick] = this.tick();
    i32[record + V.write] = 2;
    i32[record + V.vm] = this.#vm;
    this.#shadow.publishViolation(record);
  }

  /** The host took these pages away and gave them back cleared: dead ones get their canary again. */
  replant(firstIpaPage: number, pages: number): void {
    const first = firstIpaPage - this.#firstIpaPage;
    for (let page = first; page < first + pages; page++)
      if (this.#canaried[page] === 1) this.#plant(page, this.#firstPfn + page);
  }

  /** Every canary still in place, at the end of a run. */
  sweep(): void {
    for (const page of this.#free) this.#checkCanary(page, this.#firstPfn + page);
  }

  #plant(page: number, pfn: number): void {
    this.#shadow.plantCanary(pfn);
    this.#canaried[page] = 1;
  }

  #checkCanary(page: number, pfn: number): void {
    if (this.#canaried[page] === 0) return;
    this.#canaried[page] = 0;
    this.checks++;
    const word = this.#shadow.brokenCanary(pfn);
    if (word >= 0) this.#note(page, pfn, word);
    this.#shadow.clear(pfn);
  }

  #note(page: number, pfn: number, word: number): void {
    const record = this.#shadow.claimViolation();
    if (record < 0) return;
    const { i32 } = this.#memory;
    const number = this.#shadow.word(pfn, SHADOW_GUEST_INV);
    const was = this.#shadow.guestInvalidation(number);
    i32.fill(0, record + 1, record + 32);
    i32[record + V.kind] = KIND_CANARY_BROKEN;
    i32[record + V.device] = this.#lastDevice[page]!;
    i32[record + V.iovaLow] = (was?.page ?? 0) << 12;
    i32[record + V.iovaHigh] = (was?.page ?? 0) >>> 20;
    i32[record + V.pfn] = pfn;
    i32[record + V.ipaPage] = this.#firstIpaPage + page;
    i32[record + V.guestInv] = number;
    i32[record + V.tick] = this.tick();
    i32[record + V.write] = 2;
    i32[record + V.vm] = this.#vm;
    i32[record + V.found] = i32[this.#memory.linearOf(pfn * 4096, 4096) / 4 + word]!;
    this.#shadow.publishViolation(record);
  }
}
