/** The ports of one translation unit, as the pIOMMU finds them (hw/iotlb/unit-layout.ts). */
import { PortLayout } from '../iotlb/port-layout.js';
import { MAX_PORTS, UnitLayout } from '../iotlb/unit-layout.js';
import type { Words } from '../sync/words.js';

export class Ports {
  readonly #words: Words;
  readonly #unit: number;

  constructor(words: Words, unit: number) {
    this.#words = words;
    this.#unit = unit;
  }

  get count(): number {
    return Math.min(this.#words.load(this.#unit + UnitLayout.at.portCount) >>> 0, MAX_PORTS);
  }

  /** @returns base of port `i`, or 0 when it is gone */
  base(i: number): number {
    return this.#words.load(this.#unit + UnitLayout.at.ports + i * 4) >>> 0;
  }

  /** Every port of a device that has this StreamID. */
  ofStream(sid: number, visit: (port: number, i: number) => void): void {
    for (let i = 0; i < this.count; i++) {
      const port = this.base(i);
      if (port !== 0 && this.#words.load(port + PortLayout.at.sid) >>> 0 === sid) visit(port, i);
    }
  }
}
