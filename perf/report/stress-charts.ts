/** The charts of one stress run, as data. */
import type { LatencyDistribution, SeriesPoint, StressResult } from '../stress/types.js';
import { type ChartSeries, type ChartSpec, PALETTE_SIZE } from './page-data.js';

/** Percentile axis: points a decade, and how far it goes. */
const POINTS_A_DECADE = 20;
const MAX_DECADES = 7;

/** After the eighth the colours come round again, with dashes. */
export const lineOf = (index: number): { color: number; dash?: true } => ({
  color: index % PALETTE_SIZE,
  ...(Math.floor(index / PALETTE_SIZE) % 2 === 1 ? { dash: true } : {}),
});

/** Figures in the charts over time that a page has room for, all its runs together. */
const MAX_FIGURES = 48_000;
const CHARTS_OVER_TIME = 4;

/** A run with no more points than its share of a page: several become one, as `SampleSeries` does it. */
export function thinned(run: StressResult, runs: number): StressResult {
  const room = MAX_FIGURES / runs / CHARTS_OVER_TIME / Math.max(run.final.iommus.length, 1);
  const every = Math.ceil(run.samples.length / Math.max(Math.floor(room), 20));
  if (every <= 1) return run;
  const samples: SeriesPoint[] = [];
  for (let i = 0; i < run.samples.length; i += every) {
    const merged = run.samples.slice(i, i + every);
    const last = merged.at(-1)!;
    // Percentiles do not add up: the worst of the intervals stands for them.
    const syncInterval = last.syncInterval.map((_, iommu) =>
      merged
        .map((point) => point.syncInterval[iommu]!)
        .reduce((worst, latency) => (latency.p99Us > worst.p99Us ? latency : worst)),
    );
    samples.push({ ...last, syncInterval });
  }
  return { ...run, samples };
}

/** Of each interval between two points, by SMMU: a figure made of the totals before and after it. */
function overTime(
  result: StressResult,
  id: string,
  figure: (
    now: SeriesPoint,
    before: SeriesPoint | undefined,
    iommu: number,
    seconds: number,
  ) => number | null,
): Pick<ChartSpec, 'id' | 'group' | 'xUnit' | 'xs' | 'series'> {
  // A last point right behind the one before it is too short to be a rate.
  const points = result.samples.filter(
    ({ atS }, i, all) => atS > 0 && (i === 0 || atS - all[i - 1]!.atS > shortest(all) / 2),
  );
  const series = result.final.iommus.map(
    ({ name }, iommu): ChartSeries => ({
      name,
      ...lineOf(iommu),
      ys: points.map((now, i) => {
        const before = points[i - 1];
        return rounded(figure(now, before, iommu, now.atS - (before?.atS ?? 0)));
      }),
    }),
  );
  return {
    id,
    group: id.replace(/-.*/, ''),
    xUnit: 'seconds',
    xs: points.map(({ atS }) => rounded(atS)!),
    series,
  };
}

/** Seconds between two points, as a rule: the median, so that a late sample does not count. */
function shortest(points: readonly SeriesPoint[]): number {
  const gaps = points.slice(1).map(({ atS }, i) => atS - points[i]!.atS);
  return gaps.sort((a, b) => a - b)[gaps.length >> 1] ?? 0;
}

/** Four digits are more than anyone sees, and half the page's size. */
function rounded(value: number | null): number | null {
  return value === null || !Number.isFinite(value) ? null : Number(value.toPrecision(5));
}

export function throughputChart(result: StressResult, prefix: string): ChartSpec {
  return {
    ...overTime(
      result,
      `${prefix}-throughput`,
      (now, before, iommu, seconds) =>
        (now.iommus[iommu]!.translations - (before?.iommus[iommu]?.translations ?? 0)) / seconds,
    ),
    yUnit: 'per-second',
  };
}

export function hitChart(result: StressResult, prefix: string): ChartSpec {
  const spec = overTime(result, `${prefix}-hits`, (now, before, iommu) => {
    const hits = now.iommus[iommu]!.hits - (before?.iommus[iommu]?.hits ?? 0);
    const all = now.iommus[iommu]!.translations - (before?.iommus[iommu]?.translations ?? 0);
    return all > 0 ? (100 * hits) / all : null;
  });
  const lowest = Math.min(100, ...spec.series.flatMap(({ ys }) => ys.filter((y) => y !== null)));
  // Hit rates live near the top; where they do, that is what is worth seeing.
  return { ...spec, yUnit: 'percent', yMin: Math.max(0, Math.floor((lowest - 2) / 10) * 10), yMax: 100 };
}

export function syncOverTimeChart(result: StressResult, prefix: string): ChartSpec {
  const spec = overTime(result, `${prefix}-synctime`, (now, _, iommu) => {
    const interval = now.syncInterval[iommu];
    return interval !== undefined && interval.count > 0 ? interval.p99Us : null;
  });
  return { ...spec, yUnit: 'us', yLog: 10 };
}

export function invalidationChart(result: StressResult, prefix: string): ChartSpec {
  return {
    ...overTime(
      result,
      `${prefix}-inval`,
      (now, before, iommu, seconds) =>
        (now.iommus[iommu]!.invalidations - (before?.iommus[iommu]?.invalidations ?? 0)) / seconds,
    ),
    yUnit: 'per-second',
  };
}

/**
 * HDR style: latency against percentile, the axis stretched towards 100 % by 1 / (1 - p), so that each further
 * nine takes as much room as the one before.
 */
export function percentileChart(
  distributions: readonly LatencyDistribution[],
  id: string,
  colorOf: (distribution: LatencyDistribution) => { color: number; dash?: true },
): ChartSpec | null {
  const most = Math.max(0, ...distributions.map(({ count }) => count));
  if (most === 0) return null;
  const decades = Math.min(Math.max(Math.log10(most), 2), MAX_DECADES);
  const xs = Array.from(
    { length: Math.ceil(decades * POINTS_A_DECADE) + 2 },
    (_, i) => 10 ** (i / POINTS_A_DECADE),
  );
  return {
    id,
    group: id,
    xUnit: 'percentile',
    xLog: 10,
    yUnit: 'us',
    yLog: 10,
    xs: xs.map((x) => rounded(x)!),
    series: distributions.map((distribution) => ({
      name: distribution.name,
      ...colorOf(distribution),
      ys: latenciesAt(distribution, xs),
    })),
  };
}

/** Latency at each percentile, 1 / (1 - p); null from where a single value would have to be split. */
function latenciesAt(
  { buckets, count, maxUs }: LatencyDistribution,
  xs: readonly number[],
): (number | null)[] {
  let bucket = 0;
  let seen = buckets[0]?.[1] ?? 0;
  let over = false;
  return xs.map((x) => {
    if (over) return null;
    // One point past the last value is still its own: there the curve ends, at the maximum.
    over = x > count;
    const wanted = Math.max(1, Math.ceil(count * (1 - 1 / x) - 1e-9));
    while (seen < wanted && bucket + 1 < buckets.length) {
      bucket++;
      seen += buckets[bucket]![1];
    }
    // What is below the clock's resolution would have no place on a logarithmic axis.
    return rounded(Math.max(Math.min(over ? maxUs : buckets[bucket]![0], maxUs), 0.001));
  });
}

/** Microseconds, within a bucket. */
export function percentileOf({ buckets, count, maxUs }: LatencyDistribution, share: number): number {
  let seen = 0;
  for (const [upToUs, n] of buckets) {
    seen += n;
    if (seen >= count * share) return Math.min(upToUs, maxUs);
  }
  return maxUs;
}
