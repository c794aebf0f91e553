/**
 * R1 and its kin, by what memory shows: whose a page frame is, in words that every thread of a scenario sees and that
 * are nobody's steps. A device's data phase asks; the core's frame allocator tells. A DMA that lands in a frame which
 * the allocator has taken back, or in one that is not what its address was mapped to, is a stale translation.
 */
import type { Machine } from '../../../runtime/machine.js';
import type { ThreadContext } from '../scenario.js';

const PAGE = 4096;
/** Ghost words of the frames, behind those that scenarios have for themselves. RAM of a scenario is 2 MiB. */
const FRAMES_AT = 512;
const MAX_FRAMES = 512;

export class PageOwners {
  readonly #ghost: Int32Array;
  readonly #base: number;

  /** @param base  first byte of RAM on the bus */
  constructor({ ghost }: ThreadContext, base: number) {
    this.#ghost = ghost;
    this.#base = base;
  }

  /** Thread 0: frames are marked free as the allocator takes them back, from here on. */
  static watch(ctx: ThreadContext, machine: Machine): PageOwners {
    const { basePa, bytes } = machine.memory.ram;
    if (bytes > MAX_FRAMES * PAGE) throw new RangeError(`page owners: more than ${MAX_FRAMES} frames of RAM`);
    const owners = new PageOwners(ctx, basePa);
    const { frames } = machine;
    const free = frames.free.bind(frames);
    frames.free = (pfn, pages) => {
      if (!frames.isPhantom(pfn))
        for (let i = 0; i < pages; i++) ctx.ghost[owners.#word((pfn + i) * PAGE)] = 0;
      free(pfn, pages);
    };
    return owners;
  }

  /** @param owner  not 0; any number that the scenario makes a meaning of */
  give(pa: number, owner: number): void {
    this.#ghost[this.#word(pa)] = owner;
  }

  /** @returns whose the page at `pa` is; 0: nobody's */
  ownerOf(pa: number): number {
    return this.#ghost[this.#word(pa)]!;
  }

  #word(pa: number): number {
    return FRAMES_AT + Math.floor((pa - this.#base) / PAGE);
  }
}
