/**
 * What was put on an SMMU's command queue, read from the queue itself: what the hardware was told, whoever claims what.
 * Reading is nobody's step. A scenario must not put more on the queue than it has room for.
 */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { COMMAND_WORDS } from '../../../hw/smmuv3/command.js';
import { queueAdvance, queueIndex } from '../../../hw/smmuv3/queue.js';
import { CMDQ_OWNED, DriverLayout, driverKey } from '../../../runtime/drivers/smmuv3/driver-layout.js';

const AT = DriverLayout.at;

/** One command. */
export interface StreamedCommand {
  readonly opcode: number;
  /** How many commands were put on the queue before it. */
  readonly place: number;
  readonly words: Uint32Array;
}

export class CommandStream {
  readonly #u32: Uint32Array;
  readonly #base: number;
  readonly #first: number;

  /** Counts from here on. @param iommu  its index */
  constructor(memory: MachineMemory, iommu = 0) {
    this.#u32 = memory.u32;
    this.#base = memory.region(DriverLayout, driverKey(iommu)).base;
    this.#first = this.#prod;
  }

  /** Commands reserved so far: one reserved from here on has this place, or a later one. */
  get length(): number {
    return (this.#prod - this.#first) & (2 ** (this.#lg2 + 1) - 1);
  }

  /** In the queue's order. */
  commands(): StreamedCommand[] {
    const queue = this.#word(AT.queueLinear) / 4;
    return Array.from({ length: this.length }, (_, place) => {
      const slot = queueIndex(queueAdvance(this.#first, this.#lg2, place), this.#lg2);
      const at = queue + slot * COMMAND_WORDS;
      const words = this.#u32.slice(at, at + COMMAND_WORDS);
      return { opcode: words[0]! & 0xff, place, words };
    });
  }

  get #lg2(): number {
    return this.#word(AT.queueLg2);
  }

  get #prod(): number {
    return this.#word(AT.llq) & (CMDQ_OWNED - 1);
  }

  #word(offset: number): number {
    return this.#u32[(this.#base + offset) >>> 2]!;
  }
}
