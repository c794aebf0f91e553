/** What the page's script draws: charts as data, without a word about where they came from. */

/** How an axis' numbers are told. */
export type ChartUnit = 'seconds' | 'per-second' | 'percent' | 'us' | 'percentile' | 'count';

export interface ChartSeries {
  readonly name: string;
  /** As long as the chart's xs; null where there is nothing to show. */
  readonly ys: readonly (number | null)[];
  /** Of the palette; same colour, same thing in all charts of a run. */
  readonly color: number;
  readonly dash?: boolean;
  /** Points as well as the line: measured, not sampled. */
  readonly points?: boolean;
  /** Error bars. */
  readonly low?: readonly (number | null)[];
  readonly high?: readonly (number | null)[];
}

export interface ChartSpec {
  /** Of the element that the chart is drawn in. */
  readonly id: string;
  /** Charts of one group show the cursor at the same x. */
  readonly group: string;
  readonly xUnit: ChartUnit;
  /** Logarithmic, to this base; linear when absent. */
  readonly xLog?: 2 | 10;
  readonly yUnit: ChartUnit;
  readonly yLog?: 10;
  /** What the y axis shows at least. Linear only. */
  readonly yMin?: number;
  readonly yMax?: number;
  /** Ascending. */
  readonly xs: readonly number[];
  readonly series: readonly ChartSeries[];
}

/** Colours that the style sheet declares: --c0 and on. */
export const PALETTE_SIZE = 8;
