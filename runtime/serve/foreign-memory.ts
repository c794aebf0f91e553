/** Foreign frames and RAM by number, for the core; foreign frames by address, for the hardware. */
import type { ExternalMemory } from '../../hw/memory/external-memory.js';
import type { PhysicalMemory } from '../core/task.js';
import type { ForeignFrames } from './foreign-frames.js';

const PAGE = 4096;

/** What the hardware finds past the RAM. */
export class ForeignMemory implements ExternalMemory {
  readonly #frames: ForeignFrames;

  constructor(frames: ForeignFrames) {
    this.#frames = frames;
  }

  includes(pa: number): boolean {
    return this.#frames.includes(Math.floor(pa / PAGE));
  }

  read(pa: number, into: Uint8Array): boolean {
    return this.#frames.read(Math.floor(pa / PAGE), pa % PAGE, into) === 0;
  }

  write(pa: number, from: Uint8Array): boolean {
    return this.#frames.write(Math.floor(pa / PAGE), pa % PAGE, from) === 0;
  }
}

/** All the frames of a machine. */
export class MachineFrames implements PhysicalMemory {
  readonly #ram: PhysicalMemory;
  readonly #foreign: ForeignFrames;

  constructor(ram: PhysicalMemory, foreign: ForeignFrames) {
    this.#ram = ram;
    this.#foreign = foreign;
  }

  read(pfn: number, offset: number, into: Uint8Array): number {
    return (this.#foreign.includes(pfn) ? this.#foreign : this.#ram).read(pfn, offset, into);
  }

  write(pfn: number, offset: number, from: Uint8Array): number {
    return (this.#foreign.includes(pfn) ? this.#foreign : this.#ram).write(pfn, offset, from);
  }
}
