/** The page of a scale run: throughput and SYNC latency against the number of SMMUs, with spread and the ideal. */
import { html, type Markup } from './html.js';
import { renderPage } from './page.js';
import { type ChartSeries, type ChartSpec, PALETTE_SIZE } from './page-data.js';
import { chart, pairs, table, tiles } from './page-parts.js';
import type { ScaleData, ScaleParams, ScalePoint, ScaleRepeat } from './scale-data.js';
import { compact, micros, plural } from './units.js';

type Figure = 'throughput' | 'syncP50Us' | 'syncP99Us';

export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** Median, least and most; null without repeats. */
export function spreadOf(repeats: readonly ScaleRepeat[], figure: Figure): Spread | null {
  const sorted = repeats.map((repeat) => repeat[figure]).sort((a, b) => a - b);
  if (sorted.length === 0) return null;
  const half = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
  return { median, low: sorted[0]!, high: sorted.at(-1)! };
}

/** Points that differ in the number of SMMUs only (and in devices, where they come with the SMMUs). */
interface Family {
  readonly name: string;
  readonly byPsmmus: ReadonlyMap<number, ScalePoint>;
}

const PARAM_NAMES: Readonly<Record<keyof ScaleParams, string>> = {
  psmmus: 'SMMUs',
  devices: 'devices',
  guests: 'guests',
  s2Sharing: 'stage 2',
  batch: 'batch',
  queues: 'queues',
};

function familiesOf(points: readonly ScalePoint[]): Family[] {
  const varied = (['guests', 's2Sharing', 'batch', 'queues'] as const).filter(
    (name) => new Set(points.map(({ params }) => params[name])).size > 1,
  );
  // Devices are told by SMMU when they grow with the SMMUs, else in all.
  const each = new Set(points.map(({ params }) => params.devices / params.psmmus));
  const total = new Set(points.map(({ params }) => params.devices));
  const deviceText = ({ devices, psmmus }: ScaleParams): string[] => {
    if (each.size === 1 || total.size === 1) return [];
    return each.size <= total.size ? [`devices ${devices / psmmus} an SMMU`] : [`devices ${devices}`];
  };
  const groups = new Map<string, Map<number, ScalePoint>>();
  for (const point of points) {
    const name =
      [
        ...varied.map((param) => `${PARAM_NAMES[param]} ${point.params[param]}`),
        ...deviceText(point.params),
      ].join(', ') || 'measured';
    const group = groups.get(name) ?? new Map<number, ScalePoint>();
    groups.set(name, group);
    // The same point twice is more repeats of it.
    const same = group.get(point.params.psmmus);
    group.set(
      point.params.psmmus,
      same === undefined ? point : { ...same, repeats: [...same.repeats, ...point.repeats] },
    );
  }
  return [...groups].map(([name, byPsmmus]) => ({ name, byPsmmus }));
}

/** @returns a whole HTML document */
export function renderScaleHtml(data: ScaleData): string {
  const families = familiesOf(data.points);
  const xs = [...new Set(data.points.map(({ params }) => params.psmmus))].sort((a, b) => a - b);
  const charts: ChartSpec[] = [];
  const add = (spec: ChartSpec, title: string, text: string, what: string): Markup => {
    charts.push(spec);
    return chart(spec, title, text, what, true);
  };
  const shape = {
    group: 'scale',
    xUnit: 'count',
    ...(xs.length > 1 ? { xLog: 2 as const } : {}),
    xs,
  } as const;
  const { versions } = data;
  const failed = data.points.filter(({ error }) => error !== undefined);
  const repeats = data.points.reduce((sum, point) => sum + point.repeats.length, 0);
  const body = html`<header><h1>iommufd scale ${
    failed.length === 0
      ? html`<span class="verdict ok">complete</span>`
      : html`<span class="verdict warn">${plural(failed.length, 'point')} with errors</span>`
  }</h1>
<p class="sub">${plural(data.points.length, 'point')}, ${plural(repeats, 'measurement')}. iommufd ${versions.iommufd}, Node ${versions.node}, ${versions.os}, ${plural(versions.cores, 'core')}</p></header>
<main><section class="run">
${headline(families)}
${failed.map(({ params, error }) => html`<p class="alert">${paramText(params)}: ${error ?? ''}</p>`)}
<div class="grid">
${add(
  { id: 'scale-throughput', ...shape, yUnit: 'per-second', yLog: 10, series: throughputSeries(families, xs) },
  'Throughput against SMMUs',
  'Translations a second, all devices together: median of the repeats, bars from least to most. Dashed: the ideal, the smallest machine’s rate times as many SMMUs.',
  describe(families, xs, 'throughput', (value) => `${compact(value)}/s`),
)}
${add(
  { id: 'scale-p50', ...shape, yUnit: 'us', yLog: 10, series: latencySeries(families, xs, 'syncP50Us') },
  'SYNC latency against SMMUs: median',
  'From issuing an invalidation until its SYNC is complete. Dashed: the ideal, no longer than on the smallest machine.',
  describe(families, xs, 'syncP50Us', (value) => `${micros(value, 1)} µs`),
)}
${add(
  { id: 'scale-p99', ...shape, yUnit: 'us', yLog: 10, series: latencySeries(families, xs, 'syncP99Us') },
  'SYNC latency against SMMUs: 99th percentile',
  'As above, for the slowest hundredth.',
  describe(families, xs, 'syncP99Us', (value) => `${micros(value, 1)} µs`),
)}
<div class="card wide"><h3>Points</h3>${pointTable(data.points)}</div>
<div class="card"><h3>Options</h3>${pairs(Object.entries(data.options).map(([name, value]) => [name, String(value)] as const))}</div>
<div class="card"><h3>Versions</h3>${pairs([
    ['iommufd', versions.iommufd],
    ['Node', versions.node],
    ['system', versions.os],
    ['processor', versions.cpu],
    ['cores', versions.cores],
    ['began', `${versions.startedAt.slice(0, 10)} ${versions.startedAt.slice(11, 19)} UTC`],
  ])}</div>
</div></section></main>
<footer><p>Figures are of this simulator on this machine, not of any real SMMU.</p></footer>`;
  return renderPage('iommufd scale', body, charts);
}

function measuredSeries(family: Family, xs: readonly number[], figure: Figure, color: number): ChartSeries {
  const spreads = xs.map((x) => {
    const point = family.byPsmmus.get(x);
    return point === undefined ? null : spreadOf(point.repeats, figure);
  });
  return {
    name: family.name,
    color,
    points: true,
    ys: spreads.map((spread) => spread?.median ?? null),
    low: spreads.map((spread) => spread?.low ?? null),
    high: spreads.map((spread) => spread?.high ?? null),
  };
}

/** The first measured point of a family: what the others would ideally be made of. */
function baseOf(series: ChartSeries, xs: readonly number[]): { x: number; y: number } | null {
  const at = series.ys.findIndex((y) => y !== null);
  return at < 0 ? null : { x: xs[at]!, y: series.ys[at]! };
}

function withIdeal(
  families: readonly Family[],
  xs: readonly number[],
  figure: Figure,
  ideal: (base: { x: number; y: number }, x: number) => number,
): ChartSeries[] {
  return families.flatMap((family, i) => {
    const color = i % PALETTE_SIZE;
    const measured = measuredSeries(family, xs, figure, color);
    const base = baseOf(measured, xs);
    if (base === null || xs.length < 2) return [measured];
    const name = families.length === 1 ? 'ideal' : `ideal: ${family.name}`;
    return [measured, { name, color, dash: true, ys: xs.map((x) => (x < base.x ? null : ideal(base, x))) }];
  });
}

function throughputSeries(families: readonly Family[], xs: readonly number[]): ChartSeries[] {
  return withIdeal(families, xs, 'throughput', (base, x) => (base.y * x) / base.x);
}

function latencySeries(families: readonly Family[], xs: readonly number[], figure: Figure): ChartSeries[] {
  return withIdeal(families, xs, figure, (base) => base.y);
}

function describe(
  families: readonly Family[],
  xs: readonly number[],
  figure: Figure,
  told: (value: number) => string,
): string {
  return families
    .map((family) => {
      const figures = xs.flatMap((x) => {
        const spread = spreadOf(family.byPsmmus.get(x)?.repeats ?? [], figure);
        return spread === null ? [] : [`${plural(x, 'SMMU')} ${told(spread.median)}`];
      });
      return `${family.name}: ${figures.join(', ')}`;
    })
    .join('. ');
}

function headline(families: readonly Family[]): Markup | null {
  const [family] = families;
  if (family === undefined) return null;
  const measured = [...family.byPsmmus.entries()]
    .sort(([a], [b]) => a - b)
    .filter(([, point]) => point.repeats.length > 0);
  const first = measured[0];
  const last = measured.at(-1);
  if (first === undefined || last === undefined) return null;
  const low = spreadOf(first[1].repeats, 'throughput')!;
  const high = spreadOf(last[1].repeats, 'throughput')!;
  const speedup = high.median / low.median;
  return tiles([
    { name: plural(first[0], 'SMMU'), figure: compact(low.median), unit: '/s' },
    { name: plural(last[0], 'SMMU'), figure: compact(high.median), unit: '/s' },
    {
      name: 'Speed-up',
      figure: `${speedup.toFixed(2)}×`,
      more: `${((100 * speedup * first[0]) / last[0]).toFixed(0)} % of ideal`,
    },
    {
      name: 'SYNC p50',
      figure: micros(spreadOf(last[1].repeats, 'syncP50Us')!.median, 1),
      unit: 'µs',
      more: `with ${plural(last[0], 'SMMU')}; ${micros(spreadOf(first[1].repeats, 'syncP50Us')!.median, 1)} µs with ${first[0]}`,
    },
  ]);
}

function paramText(params: ScaleParams): string {
  return Object.entries(params)
    .map(([name, value]) => `${PARAM_NAMES[name as keyof ScaleParams]} ${value}`)
    .join(', ');
}

function pointTable(points: readonly ScalePoint[]): Markup {
  const told = (spread: Spread | null, text: (value: number) => string): string =>
    spread === null ? '–' : `${text(spread.median)} (${text(spread.low)} to ${text(spread.high)})`;
  const us = (value: number) => micros(value, 1);
  return table(
    'Median of the repeats, and from least to most; latencies in microseconds',
    [
      'SMMUs',
      'devices',
      'guests',
      'stage 2',
      'batch',
      'queues',
      'repeats',
      'translations/s',
      'SYNC p50',
      'SYNC p99',
    ],
    points.map(({ params, repeats }) => [
      params.psmmus,
      params.devices,
      params.guests,
      params.s2Sharing,
      params.batch,
      params.queues,
      repeats.length,
      told(spreadOf(repeats, 'throughput'), compact),
      told(spreadOf(repeats, 'syncP50Us'), us),
      told(spreadOf(repeats, 'syncP99Us'), us),
    ]),
  );
}
