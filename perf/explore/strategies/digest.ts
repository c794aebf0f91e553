/**
 * Which schedules a campaign ran, as 16 hexadecimal digits: the sum of a hash of each, so that neither order nor
 * partition matters. Two campaigns with one digest ran the same schedules; those of shards add up to the whole's.
 */
import type { Run } from './strategy.js';

export class ScheduleDigest {
  #high = 0;
  #low = 0;

  add(run: Run): void {
    let a = 0x811c9dc5;
    let b = 0x9e3779b1;
    for (let i = 0; i < run.length; i++) {
      const choice = run.choice(i);
      a = Math.imul(a ^ choice, 0x01000193);
      b = Math.imul(b ^ (choice + i), 0x85ebca6b);
      b ^= b >>> 15;
    }
    this.#high = (this.#high + mixed(a)) | 0;
    this.#low = (this.#low + mixed(b)) | 0;
  }

  get text(): string {
    return hex(this.#high) + hex(this.#low);
  }
}

/** The digest of both sets of schedules. */
export function sumOfDigests(a: string, b: string): string {
  const half = (text: string, at: number): number => Number.parseInt(text.slice(at, at + 8), 16);
  return hex((half(a, 0) + half(b, 0)) | 0) + hex((half(a, 8) + half(b, 8)) | 0);
}

function mixed(hash: number): number {
  let x = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}

const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');
