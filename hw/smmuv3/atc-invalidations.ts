/**
 * CMD_ATC_INV on its way to the devices, and what a CMD_SYNC has to wait for. [IHI0070] 4.5.1, 3.9.1.4.
 *
 *   CMD_ATC_INV -> each port of the stream: entries taken out of its ATC at once
 *                  a device that hangs: the port is marked, and so is the moment
 *   CMD_SYNC    -> all ports have left the epoch (epoch-gate.ts), and none is marked; CERROR_ATC_INV_SYNC when one
 *                  still is after `atcTimeoutNs`: then the marks are gone, and the invalidation with them
 *
 * A device that stops hanging completes what it owes: its whole ATC goes. An invalidation of a stream whose device
 * has no ATC, or has ATS disabled, completes at once, as the UR that such a device answers does (3.9.1.5).
 */
import { NO_SSID, PortLayout } from '../iotlb/port-layout.js';
import { MAX_PORTS } from '../iotlb/unit-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Clock } from '../sync/thread.js';
import type { Words } from '../sync/words.js';
import type { Smmuv3Config } from './config.js';
import type { Ports } from './ports.js';

/** Size that covers every address. */
export const ATC_INV_ALL = 52;
/** Every entry, with a PASID or without. */
export const ANY_SSID = NO_SSID;

const { ats, atsControl, atcHung } = PortLayout.at;
const BITS = 32;
const WORDS = MAX_PORTS / BITS;
const INPUT_PAGES = 2 ** 52;

export class AtcInvalidations {
  readonly #words: Words;
  readonly #kernel: Kernel;
  readonly #waiting: number;
  readonly #ports: Ports;
  readonly #clock: Clock;
  readonly #timeoutNs: number;
  /** When the oldest invalidation that is waited for is given up: on this thread's clock, NaN for none. */
  #deadlineNs = Number.NaN;

  constructor(parts: {
    words: Words;
    kernel: Kernel;
    /** Linear offset of MAX_PORTS bits. */
    waiting: number;
    ports: Ports;
    clock: Clock;
    config: Smmuv3Config;
  }) {
    this.#words = parts.words;
    this.#kernel = parts.kernel;
    this.#waiting = parts.waiting;
    this.#ports = parts.ports;
    this.#clock = parts.clock;
    this.#timeoutNs = parts.config.atcTimeoutNs;
  }

  /**
   * @param ssid  whose entries, or ANY_SSID
   * @param page  input page (4 KiB), any of the span's
   * @param size  log2 of the pages, 0..ATC_INV_ALL
   */
  invalidate(sid: number, ssid: number, page: number, size: number): void {
    const pages = size >= ATC_INV_ALL ? INPUT_PAGES : 2 ** size;
    const first = Math.floor(page / pages) * pages;
    this.#ports.ofStream(sid, (port, i) => {
      if (!this.#usesAts(port)) return;
      if (this.#words.load(port + atcHung) === 0) this.#kernel.atcInvalidate(port, ssid, first, pages);
      else this.#mark(i);
    });
  }

  /** Whether a CMD_SYNC has to wait for a device. */
  get owed(): boolean {
    for (let word = 0; word < WORDS; word++)
      if (this.#words.load(this.#waiting + word * 4) !== 0) return true;
    return false;
  }

  /** Whether settle() or timedOut() would now say something new. */
  moved(): boolean {
    if (!this.owed) return false;
    let moved = false;
    this.#eachOwing((port) => {
      if (!this.#hangs(port)) moved = true;
    });
    return moved || this.timedOut();
  }

  /** Takes the completions that have come. @returns whether nobody owes one any more */
  settle(): boolean {
    this.#eachOwing((port, i) => {
      if (this.#hangs(port)) return;
      if (port !== 0 && this.#usesAts(port)) this.#kernel.atcInvalidate(port, ANY_SSID, 0, INPUT_PAGES);
      this.#words.and(this.#waiting + (i >>> 5) * 4, ~(1 << (i & (BITS - 1))));
    });
    if (this.owed) return false;
    this.#deadlineNs = Number.NaN;
    return true;
  }

  /** Whether what is outstanding has been waited for long enough. */
  timedOut(): boolean {
    // A model that took over begins to wait anew: the clocks of two threads do not compare.
    if (Number.isNaN(this.#deadlineNs)) this.#deadlineNs = this.#clock.nowNs() + this.#timeoutNs;
    return this.#clock.nowNs() >= this.#deadlineNs;
  }

  /** The timeout was reported: nothing waits for those devices any more. */
  giveUp(): void {
    for (let word = 0; word < WORDS; word++) this.#words.store(this.#waiting + word * 4, 0);
    this.#deadlineNs = Number.NaN;
  }

  /** What is waited for here is waited for there, from now on. */
  handOver(to: AtcInvalidations): void {
    for (let word = 0; word < WORDS; word++) {
      const bits = this.#words.exchange(this.#waiting + word * 4, 0);
      if (bits !== 0) this.#words.or(to.#waiting + word * 4, bits);
    }
    this.#deadlineNs = Number.NaN;
  }

  #eachOwing(visit: (port: number, i: number) => void): void {
    for (let i = 0; i < MAX_PORTS; i++) {
      const bits = this.#words.load(this.#waiting + (i >>> 5) * 4);
      if ((bits & (1 << (i & (BITS - 1)))) !== 0) visit(this.#ports.base(i), i);
    }
  }

  /** A device that is gone, or has ATS disabled meanwhile, hangs no more. */
  #hangs(port: number): boolean {
    return port !== 0 && this.#usesAts(port) && this.#words.load(port + atcHung) !== 0;
  }

  #usesAts(port: number): boolean {
    return this.#words.load(port + ats) !== 0 && (this.#words.load(port + atsControl) & 1) === 1;
  }

  #mark(i: number): void {
    this.#words.or(this.#waiting + (i >>> 5) * 4, 1 << (i & (BITS - 1)));
    if (Number.isNaN(this.#deadlineNs)) this.#deadlineNs = this.#clock.nowNs() + this.#timeoutNs;
  }
}
