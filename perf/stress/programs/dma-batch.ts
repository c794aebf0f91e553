/**
 * A batch of DMA with its judgement: fill up to 64 transactions, translate them in one epoch, move the data,
 * and compare each with the checker's shadow *before* leaving the epoch. That last order is the whole point: a
 * SYNC may not complete while we are inside, so whatever the shadow says now held when we used the address.
 */

import {
  NO_SSID,
  PORT_BATCH,
  PortLayout,
  XLAT_ABORT,
  XLAT_ATS_CA,
  XLAT_ATS_UR,
  XLAT_FLAG_WRITE,
  XLAT_FROM_ATC,
  XLAT_NOT_GRANTED,
  XLAT_OK,
  Xlat,
} from '../../../hw/iotlb/port-layout.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import type { DmaPort } from '../../../hw/pci/dma-port.js';
import {
  C_BAD_STREAMID,
  C_BAD_SUBSTREAMID,
  F_BAD_ATS_TREQ,
  F_PERMISSION,
  F_TRANSL_FORBIDDEN,
  F_TRANSLATION,
} from '../../../hw/smmuv3/event.js';
import { ClockLayout } from '../../../hw/smmuv3/trace-layout.js';
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { Timeline } from '../../../hw/timeline/timeline.js';
import { portKey } from '../../../runtime/machine-hardware.js';
import { Histogram } from '../../report/histogram.js';
import { canaryOf, type Shadow } from '../checker/shadow.js';
import {
  DEAD,
  KIND_DEAD_FRAME,
  KIND_GUEST_STALE,
  KIND_NO_FAULT,
  KIND_READ_CANARY,
  KIND_WRONG_FAULT,
  KIND_WRONG_OWNER,
  SHADOW_GUEST_DEVICE,
  SHADOW_GUEST_INV,
  SHADOW_GUEST_PAGE,
  SHADOW_OWNER,
  SHADOW_PAGE,
  SHADOW_UNMAP,
  UNCERTAIN,
  V,
} from '../checker/shadow-layout.js';
import { bump } from '../counters.js';
import type { Random } from '../random.js';
import { DeviceStats } from '../stress-layout.js';
import { deviceTrack, TIMELINE_DMA } from '../timeline.js';

/** What must come of a transaction. */
export const EXPECT_OK = 0;
/** Its mapping is being made or unmade: translated or F_TRANSLATION. */
export const EXPECT_EITHER = -1;
/** Otherwise: the very event number it must fault with, or XLAT_ABORT when there is to be none. */
export type Expectation = number;

/**
 * The status that a device sees of a fault. One that uses its ATC asks first, and is told by the answer: it gets no
 * permission, or a Completer Abort when the configuration is bad, and there is no event.
 */
function statusOf(expect: number, usesAtc: boolean): number {
  if (expect === F_TRANSL_FORBIDDEN) return XLAT_ABORT;
  if (expect === F_BAD_ATS_TREQ) return XLAT_ATS_UR;
  if (!usesAtc) return expect === EXPECT_EITHER ? F_TRANSLATION : expect;
  if (expect === EXPECT_EITHER || expect === F_TRANSLATION || expect === F_PERMISSION)
    return XLAT_NOT_GRANTED;
  return expect === C_BAD_SUBSTREAMID ? XLAT_ATS_CA : expect;
}

/** Where a fault is counted: by the event that must have been recorded for it. */
function counterOf(status: number, expect: number): number {
  const at = DeviceStats.at;
  switch (status) {
    case F_TRANSLATION:
      return at.translationFaults;
    case F_PERMISSION:
      return at.permissionFaults;
    case C_BAD_STREAMID:
      return at.badStreams;
    case C_BAD_SUBSTREAMID:
      return at.badSubstreams;
    case XLAT_ABORT:
      return expect === F_TRANSL_FORBIDDEN ? at.forbiddenTranslated : at.aborts;
    case XLAT_ATS_UR:
      return expect === F_BAD_ATS_TREQ ? at.forbiddenRequests : at.notGranted;
    case XLAT_ATS_CA:
    case XLAT_NOT_GRANTED:
      return at.notGranted;
    default:
      return at.otherFaults;
  }
}

/** Batches that stay in their epoch for longer, and how long at most. */
const SLOW_PERCENT = 2;
const SLOW_MAX_NS = 60_000;

/** Whose batch it is: what a story needs. */
export interface BatchOwner {
  readonly device: number;
  /** Address space whose frames this device may touch. */
  readonly owner: number;
  /** VM number for a nested device, -1 for a host one. */
  readonly vm: number;
}

const PLAIN: { readonly sid?: number; readonly ssid?: number; readonly kind?: number } = {};

export class DmaBatch {
  count = 0;
  readonly #env: SyncEnv;
  readonly #memory: MachineMemory;
  readonly #port: DmaPort;
  readonly #shadow: Shadow;
  readonly #random: Random;
  readonly #who: BatchOwner;
  readonly #stats: number;
  readonly #clock: number;
  /** Word index of the port's count of misses. */
  readonly #misses: number;
  readonly #missLatency: Histogram;
  readonly #timeline: Timeline | null;
  readonly #expect = new Int32Array(PORT_BATCH);
  readonly #pageLow = new Uint32Array(PORT_BATCH);
  readonly #pageHigh = new Uint32Array(PORT_BATCH);
  readonly #flags = new Int32Array(PORT_BATCH);
  #stamp = 2;
  /** Whether the device used its ATC for this batch. */
  #usesAtc = false;
  /** Logical time: taken before this batch was translated; not yet taken by anyone when it had been. */
  #began = 0;
  #translated = 0;

  /** @param stats  base of this device's DeviceStats */
  constructor(
    env: SyncEnv,
    memory: MachineMemory,
    port: DmaPort,
    shadow: Shadow,
    random: Random,
    who: BatchOwner,
    stats: number,
  ) {
    this.#env = env;
    this.#memory = memory;
    this.#port = port;
    this.#shadow = shadow;
    this.#random = random;
    this.#who = who;
    this.#stats = stats;
    this.#clock = memory.region(ClockLayout, 'clock').base + ClockLayout.at.tick;
    this.#misses = (memory.region(PortLayout, portKey(who.device)).base + PortLayout.at.misses) >>> 2;
    this.#timeline = Timeline.attach(memory, deviceTrack(who.device), env.clock);
    this.#missLatency = new Histogram(memory.u32, stats + DeviceStats.at.missLatency);
  }

  get full(): boolean {
    return this.count === PORT_BATCH;
  }

  /**
   * Adds a transaction to somewhere in a page.
   * @param kind  XLAT_FLAG_* besides the direction
   */
  add(
    page: number,
    write: boolean,
    expect: Expectation,
    { sid = this.#port.streamId, ssid = NO_SSID, kind = 0 } = PLAIN,
  ): void {
    const slot = this.count++;
    const flags = (write ? XLAT_FLAG_WRITE : 0) | kind;
    const high = Math.floor(page / 2 ** 20);
    const low = ((page % 2 ** 20) * 4096 + this.#random.below(1024) * 4) >>> 0;
    this.#expect[slot] = expect;
    this.#pageLow[slot] = low;
    this.#pageHigh[slot] = high;
    this.#flags[slot] = flags;
    this.#port.prepare(slot, low | 0, high | 0, flags, sid, ssid);
  }

  /** Sends the batch and judges it. @returns how many were translated */
  run(): number {
    const { count } = this;
    this.count = 0;
    if (count === 0) return 0;
    const { words } = this.#memory;
    this.#began = words.add(this.#clock, 1);
    const { u32 } = this.#memory;
    const began = this.#timeline?.nowNs() ?? 0;
    const missed = u32[this.#misses]!;
    // Switched by nobody while a batch is out: the device's own program is what attaches and detaches it.
    this.#usesAtc = this.#port.ats.enabled;
    const sentNs = this.#env.clock.nowNs();
    this.#port.translate(count);
    if (u32[this.#misses] !== missed) this.#missLatency.record(this.#env.clock.nowNs() - sentNs);
    this.#translated = words.load(this.#clock);
    if (this.#random.chance(SLOW_PERCENT)) this.#dawdle();
    let translated = 0;
    let fromAtc = 0;
    for (let slot = 0; slot < count; slot++) {
      const status = this.#port.status(slot);
      if (status === XLAT_OK) {
        translated++;
        if (this.#port.field(slot, Xlat.at.source) === XLAT_FROM_ATC) fromAtc++;
        this.#commit(slot);
      } else this.#faulted(slot, status);
    }
    this.#port.end();
    this.#timeline?.record(
      TIMELINE_DMA,
      began,
      count,
      translated,
      count - translated,
      u32[this.#misses]! - missed,
      this.#port.streamId,
    );
    bump(this.#memory, this.#stats + DeviceStats.at.dmas, count);
    bump(this.#memory, this.#stats + DeviceStats.at.checks, translated - fromAtc);
    bump(this.#memory, this.#stats + DeviceStats.at.atcChecks, fromAtc);
    return translated;
  }

  /** A slow device: its data takes a while to move, and a SYNC has to wait for it. */
  #dawdle(): void {
    const { clock } = this.#env;
    const until = clock.nowNs() + this.#random.below(SLOW_MAX_NS);
    while (clock.nowNs() < until);
  }

  /** Data phase, then the comparison. */
  #commit(slot: number): void {
    const pa = this.#port.pa(slot);
    const pfn = Math.floor(pa / 4096);
    const expect = this.#expect[slot]!;
    if (expect > 0) {
      this.#note(slot, KIND_NO_FAULT, pfn, 0);
      return;
    }
    const linear = this.#memory.linearOf(pa, 4);
    if (linear < 0 || !this.#shadow.tracks(pfn)) {
      // Phantom: no data, nothing to compare with.
      return;
    }
    const { i32 } = this.#memory;
    let read = 0;
    if ((this.#flags[slot]! & XLAT_FLAG_WRITE) !== 0) {
      this.#stamp = (this.#stamp + 2) & 0x7fff_fffe;
      i32[linear >>> 2] = this.#stamp;
    } else read = i32[linear >>> 2]!;

    const shadow = this.#shadow;
    const owner = shadow.word(pfn, SHADOW_OWNER);
    if (owner === UNCERTAIN) return;
    const nested = this.#who.vm >= 0;
    const page = this.#pageHigh[slot]! * 2 ** 20 + (this.#pageLow[slot]! >>> 12);
    const expectedPage = nested ? this.#ipaPage(slot) : page | 0;
    if (owner === DEAD) this.#note(slot, KIND_DEAD_FRAME, pfn, read);
    else if (owner !== this.#who.owner || shadow.word(pfn, SHADOW_PAGE) !== expectedPage)
      this.#note(slot, KIND_WRONG_OWNER, pfn, read);
    else if (nested && this.#guestStale(pfn, page)) this.#note(slot, KIND_GUEST_STALE, pfn, read);
    else if (read === canaryOf(pfn)) this.#note(slot, KIND_READ_CANARY, pfn, read);
  }

  #guestStale(pfn: number, page: number): boolean {
    const held = this.#shadow.word(pfn, SHADOW_GUEST_PAGE);
    if (held === 0) return false;
    return held !== ((page + 1) | 0) || this.#shadow.word(pfn, SHADOW_GUEST_DEVICE) !== this.#who.device + 1;
  }

  #faulted(slot: number, status: number): void {
    const stats = this.#stats;
    const expect = this.#expect[slot]!;
    bump(this.#memory, stats + counterOf(status, expect));
    if (expect > 0) bump(this.#memory, stats + DeviceStats.at.faultChecks);
    const right = expect !== EXPECT_OK && status === statusOf(expect, this.#usesAtc);
    if (!right) this.#note(slot, KIND_WRONG_FAULT, 0, status);
  }

  #ipaPage(slot: number): number {
    const low = this.#port.field(slot, Xlat.at.ipa);
    const high = this.#port.field(slot, Xlat.at.ipa + 4);
    return (high * 2 ** 20 + (low >>> 12)) | 0;
  }

  #note(slot: number, kind: number, pfn: number, found: number): void {
    const record = this.#shadow.claimViolation();
    if (record < 0) return;
    const { i32, words } = this.#memory;
    const tracked = this.#shadow.tracks(pfn);
    const word = (which: number) => (tracked ? this.#shadow.word(pfn, which) : 0);
    const page = this.#pageHigh[slot]! * 2 ** 20 + (this.#pageLow[slot]! >>> 12);
    i32[record + V.kind] = kind;
    i32[record + V.device] = this.#who.device;
    i32[record + V.sid] = this.#port.streamId;
    i32[record + V.iovaLow] = this.#pageLow[slot]!;
    i32[record + V.iovaHigh] = this.#pageHigh[slot]!;
    i32[record + V.pfn] = pfn;
    i32[record + V.ipaPage] = this.#ipaPage(slot);
    i32[record + V.fillSeq] = this.#port.field(slot, Xlat.at.fillSeq);
    i32[record + V.source] = this.#port.field(slot, Xlat.at.source);
    i32[record + V.expectedOwner] = this.#who.owner;
    i32[record + V.expectedPage] = this.#who.vm >= 0 ? this.#ipaPage(slot) : page | 0;
    i32[record + V.owner] = word(SHADOW_OWNER);
    i32[record + V.page] = word(SHADOW_PAGE);
    i32[record + V.unmap] = word(SHADOW_UNMAP);
    i32[record + V.guestPage] = word(SHADOW_GUEST_PAGE);
    i32[record + V.guestDevice] = word(SHADOW_GUEST_DEVICE);
    i32[record + V.guestInv] = word(SHADOW_GUEST_INV);
    i32[record + V.tick] = words.add(this.#clock, 1);
    i32[record + V.write] = this.#flags[slot]! & XLAT_FLAG_WRITE;
    i32[record + V.found] = found;
    i32[record + V.vm] = this.#who.vm;
    i32[record + V.sizeLg2] = this.#port.field(slot, Xlat.at.sizeLg2);
    i32[record + V.began] = this.#began;
    i32[record + V.translated] = this.#translated;
    this.#shadow.publishViolation(record);
  }
}
