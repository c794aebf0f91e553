/**
 * A set of small integers in shared memory that finds its least member in a few steps: a bitmap, a bitmap
 * of that bitmap's non-zero words, and so on up to a single word.
 *
 *   level 2   [.......x]                          one word; bit w: word w of level 1 is not zero
 *   level 1   [..x....x][........]...             bit w: word w of level 0 is not zero
 *   level 0   [x.x.....][........][....x...]...   bit i: i is a member
 *
 * One writer, plain accesses: another thread may read it for display, not rely on it.
 */
import { LINE, roundUp } from './layout.js';

/** Bytes of a tree over 0..bits-1, a multiple of a cache line. */
export function bitTreeBytes(bits: number): number {
  let words = 0;
  let level = bits;
  do {
    level = Math.ceil(level / 32);
    words += level;
  } while (level > 1);
  return roundUp(words * 4, LINE);
}

export class BitTree {
  readonly #i32: Int32Array;
  /** First word of each level, level 0 first. */
  readonly #levels: number[] = [];

  /** @param base byte offset in the memory that `i32` views, of bitTreeBytes(bits) bytes */
  constructor(i32: Int32Array, base: number, bits: number) {
    this.#i32 = i32;
    let word = base / 4;
    let level = bits;
    do {
      level = Math.ceil(level / 32);
      this.#levels.push(word);
      word += level;
    } while (level > 1);
  }

  has(index: number): boolean {
    return (this.#i32[this.#levels[0]! + (index >>> 5)]! & (1 << (index & 31))) !== 0;
  }

  set(index: number): void {
    let at = index;
    for (const base of this.#levels) {
      const word = base + (at >>> 5);
      const before = this.#i32[word]!;
      this.#i32[word] = before | (1 << (at & 31));
      if (before !== 0) return;
      at >>>= 5;
    }
  }

  clear(index: number): void {
    let at = index;
    for (const base of this.#levels) {
      const word = base + (at >>> 5);
      const after = this.#i32[word]! & ~(1 << (at & 31));
      this.#i32[word] = after;
      if (after !== 0) return;
      at >>>= 5;
    }
  }

  /** @returns the least member, or -1 */
  first(): number {
    let at = 0;
    for (let level = this.#levels.length - 1; level >= 0; level--) {
      const word = this.#i32[this.#levels[level]! + at]!;
      if (word === 0) return -1;
      at = at * 32 + (31 - Math.clz32(word & -word));
    }
    return at;
  }
}
