/**
 * What a benchmark hands over, and how samples become it: the median, because single rounds on a shared
 * machine are worth little, and the quartiles, because they say how little.
 *
 * Every goal is told as a ratio that should be at least so much: of C's time to ours, of two threads' rate to
 * one's, of what was reached to what was wanted. More is always better, so that runs can be compared blindly.
 */

export type Unit = 'ns' | 'us' | 'ms' | 'M/s' | '1/s' | 'MiB';

export type Goal =
  /** The case measures a ratio in each round, which is to be at least this. */
  | { readonly kind: 'ratio'; readonly atLeast: number; readonly of: string }
  /** The median, in the figure's unit. */
  | { readonly kind: 'at-most'; readonly value: number }
  | { readonly kind: 'at-least'; readonly value: number };

/** A figure's name says what was done, under what conditions. */
export interface FigureName {
  readonly name: string;
  readonly unit: Unit;
  readonly goal?: Goal;
  /** Why there is no ratio, where there should be one. */
  readonly noRatio?: string;
}

/** What a round gave for one figure; the ratio where the case compares. */
export interface Sample {
  readonly value: number;
  readonly ratio: number | null;
}

export interface Figure extends FigureName {
  /** At least `target` is good. Null without a goal or a comparison, or when there was nothing to compare with. */
  readonly ratio: number | null;
  readonly target: number | null;
  readonly median: number;
  /** First and third quartile. */
  readonly spread: readonly [number, number];
  /** The same, of the ratios that rounds gave. */
  readonly ratioSpread: readonly [number, number] | null;
  /** Rounds that count. */
  readonly n: number;
  /** Rounds that did not, because others used the processors. */
  readonly dropped: number;
  /** Rounds that count although others used the processors, because there were hardly any other. */
  readonly disturbed: number;
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

const quartiles = (samples: readonly number[]): readonly [number, number] => [
  percentile(samples, 0.25),
  percentile(samples, 0.75),
];

export function figureOf(
  name: FigureName,
  samples: readonly Sample[],
  { dropped = 0, disturbed = 0 } = {},
): Figure {
  const values = samples.map(({ value }) => value);
  const ratios = samples.flatMap(({ ratio }) => (ratio === null ? [] : [ratio]));
  const median = percentile(values, 0.5);
  const measured = ratios.length > 0 ? percentile(ratios, 0.5) : null;
  const { goal } = name;
  const reached =
    goal?.kind === 'at-most' ? goal.value / median : goal?.kind === 'at-least' ? median / goal.value : null;
  return {
    ...name,
    ratio: reached ?? measured,
    target: goal === undefined ? null : goal.kind === 'ratio' ? goal.atLeast : 1,
    median,
    spread: quartiles(values),
    ratioSpread: ratios.length > 0 ? quartiles(ratios) : null,
    n: samples.length,
    dropped,
    disturbed,
  };
}

/** Whether a figure reached its goal; null when it has none, or nothing could be compared. */
export function passed({ ratio, target }: Pick<Figure, 'ratio' | 'target'>): boolean | null {
  return ratio === null || target === null ? null : ratio >= target;
}

/** Three digits that count. */
export function digits(value: number): string {
  if (value >= 1000) return Math.round(value).toLocaleString('en');
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
