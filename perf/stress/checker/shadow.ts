/**
 * One thread's hand on the checker's shared memory: mark frames, compare a DMA with what its frame ought to
 * be, write down what does not fit. Costs a handful of atomic loads per DMA and allocates nothing.
 */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import {
  CheckerLayout,
  DEAD,
  GUEST_INV_WORDS,
  GUEST_INVS,
  SHADOW_GUEST_DEVICE,
  SHADOW_GUEST_INV,
  SHADOW_GUEST_PAGE,
  SHADOW_OWNER,
  SHADOW_PAGE,
  SHADOW_UNMAP,
  SHADOW_WORDS,
  shadowLayout,
  UNCERTAIN,
  V,
  VIOLATION_WORDS,
  VIOLATIONS,
} from './shadow-layout.js';

const PAGE_WORDS = 1024;

/** The pattern that fills a dead frame: never what a device writes. */
export function canaryOf(pfn: number): number {
  return (Math.imul(pfn, 0x9e3779b1) ^ 0x5afe_c0de) | 0x8000_0001;
}

export interface GuestInvalidation {
  readonly number: number;
  readonly vm: number;
  readonly device: number;
  readonly page: number;
  readonly pages: number;
  readonly tickIssued: number;
  readonly tickDone: number;
}

export class Shadow {
  readonly #memory: MachineMemory;
  readonly #frames: number;
  readonly #checker: number;
  readonly #firstPfn: number;
  readonly #count: number;

  constructor(memory: MachineMemory) {
    this.#memory = memory;
    const shape = shadowLayout(memory.ram.bytes);
    this.#frames = memory.region(shape, 'shadow').base;
    this.#checker = memory.region(CheckerLayout, 'checker').base;
    this.#firstPfn = memory.ram.basePa / 4096;
    this.#count = memory.ram.bytes / 4096;
  }

  static allocRegions(memory: MachineMemory): void {
    memory.allocRegion(shadowLayout(memory.ram.bytes), 'shadow');
    memory.allocRegion(CheckerLayout, 'checker');
  }

  /** Phantom frames have no shadow: nothing can be stored in them. */
  tracks(pfn: number): boolean {
    return pfn >= this.#firstPfn && pfn < this.#firstPfn + this.#count;
  }

  word(pfn: number, which: number): number {
    return this.#memory.words.load(this.#at(pfn) + which * 4);
  }

  /** Core, before the first entry is written. */
  setLive(pfn: number, owner: number, page: number): void {
    const at = this.#at(pfn);
    this.#memory.words.store(at + SHADOW_PAGE * 4, page | 0);
    this.#memory.words.store(at + SHADOW_OWNER * 4, owner);
  }

  /** Core, after every SYNC. */
  setDead(pfn: number, unmap: number): void {
    const at = this.#at(pfn);
    this.#memory.words.store(at + SHADOW_UNMAP * 4, unmap);
    this.#memory.words.store(at + SHADOW_OWNER * 4, DEAD);
  }

  /** Core, after an unmap that an SMMU did not confirm: nothing can be said of the frame any more. */
  setUncertain(pfn: number): void {
    this.#memory.words.store(this.#at(pfn) + SHADOW_OWNER * 4, UNCERTAIN);
  }

  /** Guest, before it writes its entry. */
  setGuestLive(pfn: number, device: number, page: number): void {
    const at = this.#at(pfn);
    this.#memory.words.store(at + SHADOW_GUEST_DEVICE * 4, device + 1);
    this.#memory.words.store(at + SHADOW_GUEST_PAGE * 4, (page + 1) | 0);
  }

  /** Guest, after its invalidation's SYNC. */
  setGuestDead(pfn: number, invalidation: number): void {
    const at = this.#at(pfn);
    this.#memory.words.store(at + SHADOW_GUEST_INV * 4, invalidation);
    this.#memory.words.store(at + SHADOW_GUEST_PAGE * 4, DEAD);
  }

  /** Guest, before its first mapping: nothing of an earlier guest on these frames counts any more. */
  forgetGuest(pfn: number, pages: number): void {
    for (let frame = pfn; frame < pfn + pages; frame++)
      this.#memory.words.store(this.#at(frame) + SHADOW_GUEST_PAGE * 4, 0);
  }

  /** Fills a dead frame with its canary. */
  plantCanary(pfn: number): void {
    const word = this.#data(pfn);
    this.#memory.i32.fill(canaryOf(pfn), word, word + PAGE_WORDS);
  }

  clear(pfn: number): void {
    const word = this.#data(pfn);
    this.#memory.i32.fill(0, word, word + PAGE_WORDS);
  }

  /** @returns word index in the frame at which the canary is broken, or -1 */
  brokenCanary(pfn: number): number {
    const word = this.#data(pfn);
    const expected = canaryOf(pfn);
    const { i32 } = this.#memory;
    for (let i = 0; i < PAGE_WORDS; i++) if (i32[word + i] !== expected) return i;
    return -1;
  }

  /** @returns word index (into V) of a fresh record to fill and then publish, or -1 when the ring is full */
  claimViolation(): number {
    const n = this.#memory.words.add(this.#checker + CheckerLayout.at.violations, 1) >>> 0;
    if (n >= VIOLATIONS) return -1;
    return (this.#checker + CheckerLayout.at.records) / 4 + n * VIOLATION_WORDS;
  }

  publishViolation(record: number): void {
    this.#memory.words.store((record + V.ready) * 4, 1);
  }

  violationCount(): number {
    return this.#memory.words.load(this.#checker + CheckerLayout.at.violations) >>> 0;
  }

  /** Word index of record `n`, or -1 while it is not complete. */
  violation(n: number): number {
    const record = (this.#checker + CheckerLayout.at.records) / 4 + n * VIOLATION_WORDS;
    return n < VIOLATIONS && this.#memory.words.load((record + V.ready) * 4) === 1 ? record : -1;
  }

  /** @returns the number of the invalidation, never 0 */
  logGuestInvalidation(
    vm: number,
    device: number,
    page: number,
    pages: number,
    tickIssued: number,
    tickDone: number,
  ): number {
    const number = this.#memory.words.add(this.#checker + CheckerLayout.at.guestInvs, 1) + 1;
    const at = this.#guestInv(number);
    const { i32 } = this.#memory;
    i32[at + 1] = vm;
    i32[at + 2] = device;
    i32[at + 3] = page;
    i32[at + 4] = pages;
    i32[at + 5] = tickIssued;
    i32[at + 6] = tickDone;
    this.#memory.words.store(at * 4, number);
    return number;
  }

  guestInvalidation(number: number): GuestInvalidation | null {
    const at = this.#guestInv(number);
    if (this.#memory.words.load(at * 4) !== number) return null;
    const u32 = this.#memory.u32;
    return {
      number,
      vm: u32[at + 1]!,
      device: u32[at + 2]!,
      page: u32[at + 3]!,
      pages: u32[at + 4]!,
      tickIssued: u32[at + 5]!,
      tickDone: u32[at + 6]!,
    };
  }

  #guestInv(number: number): number {
    return (
      (this.#checker + CheckerLayout.at.guestInvLog) / 4 + ((number >>> 0) % GUEST_INVS) * GUEST_INV_WORDS
    );
  }

  #at(pfn: number): number {
    return this.#frames + (pfn - this.#firstPfn) * SHADOW_WORDS * 4;
  }

  #data(pfn: number): number {
    return (this.#memory.ram.linear + (pfn - this.#firstPfn) * 4096) / 4;
  }
}
