/**
 * The dirty bitmap that a program gave to IOMMU_HWPT_GET_DIRTY_BITMAP: one bit a page, set and never cleared.
 *
 *   byte  data                 data + 1
 *   bit   0 1 2 3 4 5 6 7      0 1 ...
 *   page  iova + n * pageSize  ...
 *
 * A page of the bitmap is read when its first bit is set and written back when another is wanted, only what changed
 * of it. What the program cannot be told, because there is no memory there, is lost: Linux pins the bitmap while it
 * sets bits and drops what it cannot pin without a word.
 *
 * @source drivers/iommu/iommufd/iova_bitmap.c
 */
import { PAGE_SIZE, U64_MAX } from './area.js';

/** copy_from_user and copy_to_user of the process whose bitmap it is. */
export interface BitmapMemory {
  copyIn(va: bigint, into: Uint8Array): number;
  copyOut(va: bigint, from: Uint8Array): number;
}

const PAGE_BITS = PAGE_SIZE * 8;
const PAGE_BYTES = BigInt(PAGE_SIZE);

export class UserBitmap {
  readonly #memory: BitmapMemory;
  readonly #iova: bigint;
  readonly #last: bigint;
  readonly #shift: bigint;
  readonly #data: bigint;
  readonly #buffer = new Uint8Array(PAGE_SIZE);
  /** Address of the page in #buffer; -1 for none. */
  #page = -1n;
  /** What of it changed: [first, end) bytes. */
  #first = PAGE_SIZE;
  #end = 0;

  /**
   * @param iova      bytes; where bit 0 is
   * @param last      inclusive
   * @param pageSize  bytes a bit, not 0; the lowest power of two in it counts
   * @param data      user address
   */
  constructor(memory: BitmapMemory, iova: bigint, last: bigint, pageSize: bigint, data: bigint) {
    this.#memory = memory;
    this.#iova = iova;
    this.#last = last;
    this.#shift = lowestBit(pageSize);
    this.#data = data;
  }

  /** Sets the bits of all pages that touch [first, last], as far as they belong to the bitmap. */
  set(first: bigint, last: bigint): void {
    const from = first > this.#iova ? first : this.#iova;
    const to = last < this.#last ? last : this.#last;
    let bit = (from - this.#iova) >> this.#shift;
    for (let left = ((to - this.#iova) >> this.#shift) - bit + 1n; left > 0n; ) {
      const address = this.#data + (bit >> 3n);
      if (!this.#load(address & -PAGE_BYTES)) return;
      const at = Number(address & (PAGE_BYTES - 1n)) * 8 + Number(bit & 7n);
      const count = left < BigInt(PAGE_BITS - at) ? Number(left) : PAGE_BITS - at;
      this.#fill(at, count);
      bit += BigInt(count);
      left -= BigInt(count);
    }
  }

  /** @returns whether the program has now what was set */
  flush(): boolean {
    const [first, end] = [this.#first, this.#end];
    this.#first = PAGE_SIZE;
    this.#end = 0;
    if (first >= end) return true;
    return this.#memory.copyOut(this.#page + BigInt(first), this.#buffer.subarray(first, end)) === 0;
  }

  #load(page: bigint): boolean {
    if (page === this.#page) return true;
    const kept = this.flush();
    this.#page = -1n;
    if (!kept || page > U64_MAX) return false;
    if (this.#memory.copyIn(page, this.#buffer) < 0) return false;
    this.#page = page;
    return true;
  }

  #fill(at: number, count: number): void {
    const buffer = this.#buffer;
    const [first, last] = [at >>> 3, (at + count - 1) >>> 3];
    const head = 0xff << (at & 7);
    const tail = 0xff >>> (7 - ((at + count - 1) & 7));
    if (first === last) buffer[first]! |= head & tail;
    else {
      buffer[first]! |= head;
      buffer.fill(0xff, first + 1, last);
      buffer[last]! |= tail;
    }
    this.#first = Math.min(this.#first, first);
    this.#end = Math.max(this.#end, last + 1);
  }
}

/** __ffs. */
function lowestBit(value: bigint): bigint {
  let bit = 0n;
  while (((value >> bit) & 1n) === 0n) bit++;
  return bit;
}
