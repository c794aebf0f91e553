/**
 * A run's samples, kept for its charts without growing with its length: when there are too many, neighbours
 * are merged, and each later point is made of twice as many samples.
 *
 *   offered   . . . . . . . . . . . . . . . .      totals since the start: of a merged pair, the later
 *   kept      o o o o|o o o o|                     latencies of the interval: the sum of both
 *              merge  o   o   o   o   o ...
 */
import type { Histogram } from '../report/histogram.js';
import type { LatencySummary, SeriesPoint, StressSample } from './types.js';

/** Even, so that merging in pairs leaves none over. */
export const MAX_POINTS = 2000;

interface Kept {
  sample: StressSample;
  /** By SMMU: what was recorded in the interval that ends here. */
  readonly intervals: Histogram[];
}

export class SampleSeries {
  readonly #points: Kept[] = [];
  readonly #maxPoints: number;
  /** Samples a point is made of. */
  #stride = 1;
  /** Samples in the last point. */
  #filled = 0;

  constructor(maxPoints = MAX_POINTS) {
    this.#maxPoints = maxPoints;
  }

  /** @param intervals  by SMMU, of the time since the sample before; kept, not copied */
  add(sample: StressSample, intervals: readonly Histogram[]): void {
    const last = this.#points.at(-1);
    if (last !== undefined && this.#filled < this.#stride) {
      absorb(last, sample, intervals);
      this.#filled++;
      return;
    }
    if (this.#points.length === this.#maxPoints) {
      this.#halve();
      this.add(sample, intervals);
      return;
    }
    this.#points.push({ sample, intervals: [...intervals] });
    this.#filled = 1;
  }

  points(): SeriesPoint[] {
    return this.#points.map(({ sample, intervals }) => ({
      ...sample,
      syncInterval: intervals.map((interval): LatencySummary => interval.summary()),
    }));
  }

  #halve(): void {
    const all = this.#points.splice(0);
    for (let i = 0; i + 1 < all.length; i += 2) {
      absorb(all[i]!, all[i + 1]!.sample, all[i + 1]!.intervals);
      this.#points.push(all[i]!);
    }
    this.#stride *= 2;
    this.#filled = this.#stride;
  }
}

function absorb(into: Kept, sample: StressSample, intervals: readonly Histogram[]): void {
  into.sample = sample;
  for (const [index, interval] of intervals.entries()) into.intervals[index]!.merge(interval);
}
