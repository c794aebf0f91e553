/**
 * Walks through tables in external memory: a guest's stage-1 tables that another process keeps. The compiled walk
 * knows RAM only, and stops with an external abort that names the descriptor it could not read. Here that
 * descriptor is read, and the walk made anew, until it ends: a table a time.
 *
 * What was read is good for one translation. Every restart sees the words before it as they were, as if the walk
 * had been slow; so nothing is seen that a walk on the bus could not have seen.
 *
 * Left out: hardware update of such descriptors (HTTU), which stays an external abort.
 */
import { Xlat } from '../iotlb/port-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import { word52 } from './config-fetch.js';
import { F_WALK_EABT } from './event.js';
import { EXTERNAL_WORDS, Smmuv3Layout } from './smmuv3-layout.js';

const PA = Xlat.at.pa >> 2;

export class ExternalWalks {
  readonly #memory: MachineMemory;
  readonly #kernel: Kernel;
  readonly #words: number;
  readonly #word = new Uint8Array(8);
  readonly #log: (message: string) => void;
  #told = false;

  /** @param base  linear base of the unit's smmuv3 region */
  constructor(memory: MachineMemory, kernel: Kernel, base: number, log: (message: string) => void) {
    this.#memory = memory;
    this.#kernel = kernel;
    this.#log = log;
    this.#words = base + Smmuv3Layout.at.externalWords;
  }

  /**
   * A translation that may have met external memory.
   * @param status     what it ended with
   * @param translate  makes it again
   * @returns what it ends with now
   */
  resolve(status: number, xlat: number, translate: () => number): number {
    if (status !== F_WALK_EABT || this.#memory.external === null) return status;
    let last = status;
    let count = 0;
    while (
      last === F_WALK_EABT &&
      count < EXTERNAL_WORDS &&
      this.#fetch(word52(this.#memory.u32, (xlat >>> 2) + PA), count)
    ) {
      this.#kernel.externalWords(this.#words, ++count);
      last = translate();
    }
    if (count > 0) this.#kernel.externalWords(0, 0);
    return last;
  }

  /** @returns whether the word is there, and was not among those fetched before */
  #fetch(pa: number, count: number): boolean {
    const { external, u8, i64 } = this.#memory;
    if (external?.includes(pa) !== true) return false;
    const words = this.#words >> 3;
    for (let i = 0; i < count; i++) if (i64[words + 2 * i] === BigInt(pa)) return this.#refuseUpdate(pa);
    if (!external.read(pa, this.#word)) return false;
    i64[words + 2 * count] = BigInt(pa);
    u8.set(this.#word, this.#words + 16 * count + 8);
    return true;
  }

  /** The walk found the descriptor, and stopped there all the same. */
  #refuseUpdate(pa: number): boolean {
    if (!this.#told)
      this.#log(
        `smmuv3: the descriptor at ${pa.toString(16)} lies outside the machine's RAM: hardware update of access ` +
          'flag and dirty state is not modelled there, the walk is aborted',
      );
    this.#told = true;
    return false;
  }
}
