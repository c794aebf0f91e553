/**
 * Waits, without ever blocking, until all DMA that began before some moment is over: the epoch protocol of
 * hw/iotlb/unit-layout.ts, seen from the pIOMMU.
 */
import { PortLayout } from '../iotlb/port-layout.js';
import { MAX_PORTS, UnitLayout } from '../iotlb/unit-layout.js';
import type { Words } from '../sync/words.js';

const { gen, syncWaiting, portCount, ports } = UnitLayout.at;
const { ack } = PortLayout.at;

export class EpochGate {
  readonly #words: Words;
  readonly #unit: number;
  readonly #waiting: () => boolean;

  /** @param waiting  whether anybody still waits for a generation; who asks has stopped waiting itself */
  constructor(words: Words, unit: number, waiting: () => boolean = () => false) {
    this.#words = words;
    this.#unit = unit;
    this.#waiting = waiting;
  }

  /** Opens a new generation. @returns its number, for `passed` */
  begin(): number {
    const words = this.#words;
    let next = (words.load(this.#unit + gen) + 1) | 0;
    if (next === 0) next = 1;
    // Announced first: a device that leaves after the new generation is visible rings the doorbell.
    words.store(this.#unit + syncWaiting, 1);
    words.store(this.#unit + gen, next);
    return next;
  }

  /** Whether no port is inside an epoch older than `generation`. */
  passed(generation: number): boolean {
    const words = this.#words;
    const count = Math.min(words.load(this.#unit + portCount) >>> 0, MAX_PORTS);
    for (let i = 0; i < count; i++) {
      const port = words.load(this.#unit + ports + i * 4) >>> 0;
      if (port === 0) continue;
      const seen = words.load(port + ack);
      if (seen !== 0 && ((seen - generation) | 0) < 0) return false;
    }
    return true;
  }

  /** One of those who wait does so no more. */
  end(): void {
    if (!this.#waiting()) this.#words.store(this.#unit + syncWaiting, 0);
  }
}
