/** Other processes' memory as a thread sees it that cannot reach those processes: every access is aborted. */
import type { ExternalMemory } from '../hw/memory/external-memory.js';
import type { ForeignRange } from './foreign-range.js';

const PAGE = 4096;

export class UnreachableMemory implements ExternalMemory {
  readonly #first: number;
  readonly #end: number;
  readonly #log: (message: string) => void;
  #told = false;

  /** @param log  is told of the first access */
  constructor({ firstPfn, endPfn }: ForeignRange, log: (message: string) => void) {
    this.#first = firstPfn * PAGE;
    this.#end = endPfn * PAGE;
    this.#log = log;
  }

  includes(pa: number): boolean {
    return pa >= this.#first && pa < this.#end;
  }

  read(pa: number): boolean {
    return this.#refuse(pa);
  }

  write(pa: number): boolean {
    return this.#refuse(pa);
  }

  #refuse(pa: number): boolean {
    if (!this.#told)
      this.#log(
        `memory: ${pa.toString(16)} is a client process's, which this thread cannot reach: devices and SMMUs that ` +
          "use clients' memory have to be on the machine's own thread, without workers",
      );
    this.#told = true;
    return false;
  }
}
