/**
 * The ATS capability of a device as its PCI configuration space has it. [PCIe] 10.5.1: present or not, enabled or
 * not. Any thread may switch it; the device notices at its next batch, and starts with an empty ATC.
 *
 * `hang` is an injected fault: the device does not complete ATC invalidations while it is set.
 */
import { PortLayout } from '../iotlb/port-layout.js';
import { UnitLayout } from '../iotlb/unit-layout.js';
import type { Words } from '../sync/words.js';

const { ats, pri, unit, atsControl, atcHung } = PortLayout.at;

export class AtsControl {
  readonly #words: Words;
  readonly #port: number;

  /** @param port  base of the device's port */
  constructor(words: Words, port: number) {
    this.#words = words;
    this.#port = port;
  }

  /** The device has an ATC. */
  get capable(): boolean {
    return this.#words.load(this.#port + ats) !== 0;
  }

  /** The device can make page requests. */
  get pageRequests(): boolean {
    return this.#words.load(this.#port + pri) !== 0;
  }

  get enabled(): boolean {
    return (this.#words.load(this.#port + atsControl) & 1) === 1;
  }

  /** @returns whether the device now uses ATS: false when it cannot */
  enable(): boolean {
    if (!this.capable) return false;
    if (!this.enabled) this.#words.add(this.#port + atsControl, 1);
    return true;
  }

  disable(): void {
    if (!this.enabled) return;
    this.#words.add(this.#port + atsControl, 1);
    this.#completed();
  }

  hang(on: boolean): void {
    this.#words.store(this.#port + atcHung, on ? 1 : 0);
    if (!on) this.#completed();
  }

  /** A CMD_SYNC may be waiting for this device. */
  #completed(): void {
    const base = this.#words.load(this.#port + unit) >>> 0;
    this.#words.add(base + UnitLayout.at.doorbell, 1);
    if (this.#words.load(base + UnitLayout.at.doorbellParked) !== 0)
      this.#words.notify(base + UnitLayout.at.doorbell, 1);
  }
}
