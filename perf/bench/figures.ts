/**
 * What a benchmark hands over, and how samples become it: the median, because single rounds on a shared
 * machine are worth little, and the tenth and ninetieth percentile, because they say how little.
 */

/** A figure's name says what was done, under what conditions. */
export interface FigureName {
  readonly name: string;
  readonly unit: 'ns' | 'us' | 'ms' | 'M/s' | '1/s';
}

export interface Figure extends FigureName {
  readonly median: number;
  /** 10th and 90th percentile. */
  readonly spread: readonly [number, number];
  /** Rounds that count. */
  readonly n: number;
  /** Rounds that did not, because others used the processors. */
  readonly dropped: number;
}

/**
 * Linear interpolation between the two nearest ranks.
 * @param share  0..1
 * @throws RangeError when there are no samples
 */
export function percentile(samples: ArrayLike<number>, share: number): number {
  const sorted = Float64Array.from(samples).sort();
  if (sorted.length === 0) throw new RangeError('percentile of no samples');
  const rank = share * (sorted.length - 1);
  const below = Math.floor(rank);
  const low = sorted[below]!;
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!;
  return low + (high - low) * (rank - below);
}

export function figureOf({ name, unit }: FigureName, samples: readonly number[]): Figure {
  const spread = [percentile(samples, 0.1), percentile(samples, 0.9)] as const;
  return { name, unit, median: percentile(samples, 0.5), spread, n: samples.length, dropped: 0 };
}

/** Three digits that count. */
export function digits(value: number): string {
  if (value >= 1000) return Math.round(value).toLocaleString('en');
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
