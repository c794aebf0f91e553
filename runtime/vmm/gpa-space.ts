/**
 * The guest's physical address space as an IOAS: its RAM mapped at its IPAs, whole or in slices. A slice can be
 * taken out (ballooning) and put back: IOAS_UNMAP removes whole mappings only, so the slice is the unit.
 *
 * Taking a slice out stops DMA to it, as soon as the call returns. The VMM and the guest's CPU can still reach
 * it: user memory is not released.
 */
import { EEXIST, EINVAL, ENOENT } from '../../uapi/abi/errno.js';
import type { GuestRam } from './guest-ram.js';
import type { IommufdCalls } from './iommufd-calls.js';

const PAGE = 4096;

export class GpaSpace {
  readonly ioasId: number;
  readonly sliceBytes: number;
  readonly slices: number;
  readonly #calls: IommufdCalls;
  readonly #ram: GuestRam;
  readonly #mapped: Uint8Array;

  private constructor(calls: IommufdCalls, ram: GuestRam, ioasId: number, sliceBytes: number) {
    this.#calls = calls;
    this.#ram = ram;
    this.ioasId = ioasId;
    this.sliceBytes = sliceBytes;
    this.slices = Math.ceil(ram.bytes / sliceBytes);
    this.#mapped = new Uint8Array(this.slices);
  }

  /**
   * Allocates the IOAS and maps all of the RAM.
   * @param sliceBytes  whole pages; the RAM's size for one mapping
   * @returns the space | -EINVAL | -errno of IOAS_ALLOC or IOAS_MAP, with nothing left behind
   */
  static create(calls: IommufdCalls, ram: GuestRam, sliceBytes: number): GpaSpace | number {
    if (!(sliceBytes > 0) || sliceBytes % PAGE !== 0) return -EINVAL;
    const ioasId = calls.ioasAlloc();
    if (ioasId < 0) return ioasId;
    const space = new GpaSpace(calls, ram, ioasId, sliceBytes);
    for (let slice = 0; slice < space.slices; slice++) {
      const status = space.mapSlice(slice);
      if (status < 0) {
        space.destroy();
        return status;
      }
    }
    return space;
  }

  isMapped(slice: number): boolean {
    return this.#mapped[slice] === 1;
  }

  /** Puts a slice back. @returns 0 | -EINVAL no such slice | -EEXIST it is mapped | -errno of IOAS_MAP */
  mapSlice(slice: number): number {
    const state = this.#mapped[slice];
    if (state === undefined) return -EINVAL;
    if (state === 1) return -EEXIST;
    const { ipa, bytes } = this.#range(slice);
    const { userVa, ipaBase } = this.#ram;
    const status = this.#calls.ioasMap(this.ioasId, userVa + ipa - BigInt(ipaBase), bytes, ipa);
    if (status >= 0) this.#mapped[slice] = 1;
    return status;
  }

  /** Takes a slice out: no DMA reaches it on return. @returns 0 | -EINVAL | -ENOENT it is out | -errno */
  unmapSlice(slice: number): number {
    const state = this.#mapped[slice];
    if (state === undefined) return -EINVAL;
    if (state === 0) return -ENOENT;
    const { ipa, bytes } = this.#range(slice);
    const status = this.#calls.ioasUnmap(this.ioasId, ipa, bytes);
    if (status >= 0) this.#mapped[slice] = 0;
    return status;
  }

  /** Destroys the IOAS, mappings and all; nothing may stand on it any more. @returns 0 | -EBUSY */
  destroy(): number {
    return this.#calls.destroy(this.ioasId);
  }

  #range(slice: number): { ipa: bigint; bytes: bigint } {
    const at = slice * this.sliceBytes;
    return {
      ipa: BigInt(this.#ram.ipaBase + at),
      bytes: BigInt(Math.min(this.sliceBytes, this.#ram.bytes - at)),
    };
  }
}
