/**
 * Latencies counted in shared memory: one thread records, any thread reads.
 *
 *   ns      0 1 2 ... 15 | 16 17 ... 31 | 32 34 ... 62 | 64 68 ... | ...      16 buckets an octave, so a
 *   bucket  0 1 2 ... 15 | 16 17 ... 31 | 32 33 ... 47 | 48 ...               bucket is 1/16 wide at most
 *
 * Recording is one plain increment, because there is one writer: a reader may miss the very last values, and
 * never sees a torn count. Percentiles are taken from one pass over the buckets, so they agree with `count`.
 *
 * Not kept: single values, their order, and anything finer than a sixteenth.
 */
import { array, type Field, LINE, u32 } from '../../hw/memory/layout.js';
import type { LatencySummary } from '../stress/types.js';

const SUB_BUCKETS = 16;
/** 2^38 ns are four and a half minutes: what is longer counts as that. The maximum still fits its word. */
const OCTAVES = 38;
const BUCKETS = (OCTAVES - 3) * SUB_BUCKETS;
const MAX_UNIT_NS = 100;
const WORDS = BUCKETS + 1;
const LAST = 2 ** OCTAVES - 1;

/** What a histogram needs of a layout: buckets (u32 each), then the longest value in 100 ns. Writer: the recorder. */
export function histogramField(): Field {
  return { ...array(u32(), WORDS), align: LINE };
}

/** @param ns whole and not negative */
function bucketOf(ns: number): number {
  if (ns < SUB_BUCKETS) return ns;
  if (ns <= 0xffff_ffff) {
    const octave = 31 - Math.clz32(ns);
    return (octave - 3) * SUB_BUCKETS + ((ns >>> (octave - 4)) & (SUB_BUCKETS - 1));
  }
  const octave = 63 - Math.clz32(ns / 2 ** 32);
  return (octave - 3) * SUB_BUCKETS + (Math.floor(ns / 2 ** (octave - 4)) & (SUB_BUCKETS - 1));
}

/** The middle of a bucket, ns. */
function middleOf(bucket: number): number {
  if (bucket < 2 * SUB_BUCKETS) return bucket;
  const octave = Math.floor(bucket / SUB_BUCKETS) + 3;
  const width = 2 ** (octave - 4);
  return (SUB_BUCKETS + (bucket % SUB_BUCKETS)) * width + width / 2;
}

/** The longest value that counts in a bucket, ns. */
function lastOf(bucket: number): number {
  if (bucket < 2 * SUB_BUCKETS) return bucket;
  const octave = Math.floor(bucket / SUB_BUCKETS) + 3;
  return (SUB_BUCKETS + (bucket % SUB_BUCKETS) + 1) * 2 ** (octave - 4) - 1;
}

export class Histogram {
  readonly #u32: Uint32Array;
  readonly #first: number;

  /**
   * @param u32   the machine memory's word view
   * @param base  byte offset of a `histogramField()`
   */
  constructor(u32: Uint32Array, base: number) {
    this.#u32 = u32;
    this.#first = base >>> 2;
  }

  /** One on memory of its own, to merge others into. */
  static local(): Histogram {
    return new Histogram(new Uint32Array(WORDS), 0);
  }

  /** @param ns any number: what is negative or not a number counts as 0, fractions are dropped */
  record(ns: number): void {
    const whole = ns > 0 ? Math.min(Math.floor(ns), LAST) : 0;
    const at = this.#first + bucketOf(whole);
    this.#u32[at] = this.#u32[at]! + 1;
    const longest = Math.ceil(whole / MAX_UNIT_NS);
    const maxAt = this.#first + BUCKETS;
    if (longest > this.#u32[maxAt]!) this.#u32[maxAt] = longest;
  }

  /** Adds everything `other` counted. This one's recorder only. */
  merge(other: Histogram): void {
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const at = this.#first + bucket;
      this.#u32[at] = this.#u32[at]! + other.#u32[other.#first + bucket]!;
    }
    const maxAt = this.#first + BUCKETS;
    this.#u32[maxAt] = Math.max(this.#u32[maxAt]!, other.#u32[other.#first + BUCKETS]!);
  }

  /** What was recorded since `earlier` was a copy of this one; its maximum is to the bucket. */
  since(earlier: Histogram): Histogram {
    const difference = Histogram.local();
    let longest = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const count = this.#u32[this.#first + bucket]! - earlier.#u32[earlier.#first + bucket]!;
      difference.#u32[bucket] = count;
      if (count > 0) longest = lastOf(bucket);
    }
    const maxUnits = this.#u32[this.#first + BUCKETS]!;
    difference.#u32[BUCKETS] = Math.min(Math.ceil(longest / MAX_UNIT_NS), maxUnits);
    return difference;
  }

  copy(): Histogram {
    return new Histogram(this.#u32.slice(this.#first, this.#first + WORDS), 0);
  }

  /** Filled buckets in order: the longest value that counts there, us, and how many did. */
  buckets(): [upToUs: number, count: number][] {
    const filled: [number, number][] = [];
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const count = this.#u32[this.#first + bucket]!;
      if (count > 0) filled.push([lastOf(bucket) / 1000, count]);
    }
    return filled;
  }

  /** Percentiles within 1/32; `maxUs` to 0.1 us, rounded up. All 0 when nothing was recorded. */
  summary(): LatencySummary {
    const counts = this.#u32.slice(this.#first, this.#first + WORDS);
    let count = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) count += counts[bucket]!;
    const maxNs = counts[BUCKETS]! * MAX_UNIT_NS;
    const at = (share: number): number => {
      const wanted = Math.max(1, Math.ceil(count * share));
      let seen = 0;
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        seen += counts[bucket]!;
        if (seen >= wanted) return Math.min(middleOf(bucket), maxNs) / 1000;
      }
      return 0;
    };
    return { count, p50Us: at(0.5), p99Us: at(0.99), maxUs: maxNs / 1000 };
  }
}
