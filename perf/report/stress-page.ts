/** `report.html` of `iommufd stress`: every run of a report on one page. */
import type { StressResult } from '../stress/types.js';
import { html, type Markup } from './html.js';
import { renderPage } from './page.js';
import { type ChartSpec, PALETTE_SIZE } from './page-data.js';
import { chart, tiles } from './page-parts.js';
import type { StressReport } from './report-json.js';
import {
  checkCard,
  deviceTable,
  faultCard,
  instant,
  latencyTable,
  optionCards,
  rate,
  smmuTable,
  stories,
} from './stress-cards.js';
import {
  hitChart,
  invalidationChart,
  lineOf,
  percentileChart,
  syncOverTimeChart,
  thinned,
  throughputChart,
} from './stress-charts.js';
import { early } from './summary.js';
import { topologySvg } from './topology-svg.js';
import { bytes, compact, hitRate, micros, plural } from './units.js';

/** @returns a whole HTML document */
export function renderStressHtml(report: StressReport): string {
  const { runs } = report;
  const charts: ChartSpec[] = [];
  const sections = runs.map((run, index) => runSection(thinned(run, runs.length), `r${index}`, charts));
  const checks = runs.reduce((sum, { final }) => sum + final.checks, 0);
  const first = runs[0];
  const body = html`<header><h1>iommufd stress ${overall(runs)}</h1>
<p class="sub">${plural(runs.length, 'run')}, ${compact(checks)} checks${
    first === undefined
      ? null
      : html`. iommufd ${first.versions.iommufd}, Node ${first.versions.node}, ${first.versions.os}, ${plural(first.versions.cores, 'core')}, seed ${first.options.seed}, began ${instant(first.versions.startedAt)}`
  }</p></header>
<nav aria-label="Runs"><ul>${runs.map(
    ({ options }, i) => html`<li><a href="#r${i}">${options.topologyName}</a></li>`,
  )}${runs.length === 1 ? PARTS.map(([id, name]) => html`<li><a href="#r0-${id}">${name}</a></li>`) : null}</ul></nav>
<main><noscript><p>Charts need the script in this page; their numbers are in the tables below each.</p></noscript>
${sections}</main>
<footer><p>Figures are of this simulator on this machine, not of any real SMMU. The same data, complete: the JSON report.</p></footer>`;
  return renderPage(
    `iommufd stress: ${runs.map(({ options }) => options.topologyName).join(', ')}`,
    body,
    charts,
  );
}

const PARTS = [
  ['time', 'Over time'],
  ['latency', 'Latency'],
  ['faults', 'Faults'],
  ['machine', 'Machine'],
  ['options', 'Options'],
] as const;

function overall(runs: readonly StressResult[]): Markup {
  const violations = runs.reduce((sum, { final }) => sum + final.violations, 0);
  const deaths = runs.reduce((sum, run) => sum + run.deaths.length, 0);
  return badge(
    violations,
    deaths,
    runs.some(({ interrupted }) => interrupted),
    missedOf(runs),
  );
}

const missedOf = (runs: readonly StressResult[]): number =>
  runs.filter(({ options, final }) => options.inject !== null && final.violations === 0).length;

function badge(violations: number, deaths: number, interrupted: boolean, missed: number): Markup {
  const faults = [
    ...(violations > 0 ? [plural(violations, 'violation')] : []),
    ...(deaths > 0 ? [`${plural(deaths, 'worker')} died`] : []),
    ...(missed > 0 ? ['injected bug not caught'] : []),
  ];
  if (faults.length > 0) return html`<span class="verdict bad">${faults.join(', ')}</span>`;
  if (interrupted) return html`<span class="verdict warn">clean, interrupted</span>`;
  return html`<span class="verdict ok">clean</span>`;
}

function runSection(run: StressResult, id: string, charts: ChartSpec[]): Markup {
  const { options, final, deaths } = run;
  const add = (spec: ChartSpec, title: string, text: string, what: string, wide = false): Markup => {
    charts.push(spec);
    return chart(spec, title, text, what, wide);
  };
  const names = final.iommus.map(({ name }) => name).join(', ');
  return html`<section class="run" id="${id}" aria-label="${options.topologyName}">
<div class="head"><h2>${options.topologyName}</h2>${badge(final.violations, deaths.length, run.interrupted, missedOf([run]))}</div>
<p class="sub">${final.atS.toFixed(1)} s of traffic${early(run)}: ${plural(final.iommus.length, 'SMMU')}, ${plural(options.devices, 'device')}, ${plural(options.guests, 'guest')}, ${bytes(options.memoryBytes)}, seed ${options.seed}</p>
${deaths.map(({ worker, reason }) => html`<p class="alert">Worker ${worker} died: ${reason}</p>`)}
${headline(run)}
${stories(run)}
<div class="grid" id="${id}-time">
${add(throughputChart(run, id), 'Throughput', 'Page translations that devices asked for, by SMMU.', `Translations a second over ${final.atS.toFixed(1)} s for ${names}; ${totals(run)}.`, true)}
${add(hitChart(run, id), 'Hit rate', 'Found in a device’s own TLB or in the SMMU’s IOTLB; the rest is walked.', hitText(run))}
${add(invalidationChart(run, id), 'Invalidations', 'TLBI and CFGI commands that each SMMU consumed.', `Invalidation commands a second, for ${names}.`)}
</div>
<div class="grid" id="${id}-latency">${latencyFigures(run, id, add)}</div>
<div class="grid">${smmuTable(run)}</div>
<div class="grid" id="${id}-faults">${faultCard(run)}${checkCard(run)}</div>
<div class="grid" id="${id}-machine"><figure class="card wide topology"><figcaption><h3>Topology</h3><p>Who owns a device, and which SMMU its DMA goes through.</p></figcaption>
<div class="scroll" tabindex="0" role="region" aria-label="Topology picture">${topologySvg(
    final.iommus.map(({ name }) => name),
    run.devices,
  )}</div>${deviceTable(run)}</figure></div>
<div class="grid" id="${id}-options">${optionCards(run)}</div>
</section>`;
}

function totals(run: StressResult): string {
  const { final } = run;
  return final.iommus
    .map(({ name, translations }) => `${name} ${rate(translations, final.atS)}/s`)
    .join(', ');
}

function hitText({ final }: StressResult): string {
  const rates = final.iommus.map(({ name, hits, translations }) => `${name} ${hitRate(hits, translations)}`);
  return `Share of hits over time. Over the whole run: ${rates.join(', ')}.`;
}

function headline(run: StressResult): Markup {
  const { final, startup, guestLatency } = run;
  const sum = (field: 'translations' | 'hits' | 'misses' | 'invalidations' | 'syncs' | 'faults') =>
    final.iommus.reduce((total, iommu) => total + iommu[field], 0);
  const measured = final.syncLatency.filter(({ count }) => count > 0);
  const span = (field: 'p50Us' | 'p99Us') => {
    const values = measured.map((latency) => latency[field]);
    if (values.length === 0) return '-';
    const low = micros(Math.min(...values), 1);
    const high = micros(Math.max(...values), 1);
    return low === high ? low : `${low}–${high}`;
  };
  return tiles([
    {
      name: 'Translations',
      figure: rate(sum('translations'), final.atS),
      unit: '/s',
      more: `${compact(sum('translations'))} in all`,
    },
    {
      name: 'Hit rate',
      figure: hitRate(sum('hits'), sum('translations')),
      more: `${rate(sum('misses'), final.atS)} walks/s`,
    },
    {
      name: 'SYNC p50',
      figure: span('p50Us'),
      unit: 'µs',
      more: measured.length === 0 ? 'nothing was unmapped' : `p99 ${span('p99Us')} µs`,
    },
    {
      name: 'Invalidations',
      figure: rate(sum('invalidations'), final.atS),
      unit: '/s',
      more: `${compact(sum('syncs'))} SYNCs`,
    },
    {
      name: 'Map, unmap',
      figure: `${rate(final.maps, final.atS)}, ${rate(final.unmaps, final.atS)}`,
      unit: '/s',
      more:
        guestLatency.count > 0
          ? `guest invalidation p50 ${micros(guestLatency.p50Us, 1)} µs`
          : 'no guest invalidations',
    },
    {
      name: 'Faults',
      figure: compact(sum('faults')),
      more: `${hitRate(sum('faults'), sum('translations') + sum('faults'))} of transactions`,
    },
    { name: 'Checks', figure: compact(final.checks), more: plural(final.violations, 'violation') },
    {
      name: 'First DMA',
      figure: startup.firstDmaMs.toFixed(0),
      unit: 'ms',
      more: `machine ${startup.machineMs.toFixed(0)}, workers ${startup.workersMs.toFixed(0)} ms`,
    },
  ]);
}

function latencyFigures(
  run: StressResult,
  id: string,
  add: (spec: ChartSpec, title: string, text: string, what: string, wide?: boolean) => Markup,
): (Markup | null)[] {
  const names = run.final.iommus.map(({ name }) => name);
  const sync = run.latencies.filter(({ what }) => what !== 'miss');
  const miss = run.latencies.filter(({ what }) => what === 'miss');
  const colorOf = ({ what, name }: (typeof sync)[number]) =>
    what === 'guest'
      ? { color: (names.length + 1) % PALETTE_SIZE, dash: true as const }
      : lineOf(Math.max(names.indexOf(name), 0));
  const told = (list: typeof sync) =>
    list
      .map(
        (one) =>
          `${one.name}: p50 ${micros(one.p50Us, 1)}, p99 ${micros(one.p99Us, 1)}, longest ${micros(one.maxUs, 1)} µs`,
      )
      .join('; ');
  const syncSpec = percentileChart(sync, `${id}-sync`, colorOf);
  const missSpec = percentileChart(miss, `${id}-miss`, colorOf);
  return [
    syncSpec === null
      ? null
      : add(
          syncSpec,
          'SYNC latency by percentile',
          'From issuing an invalidation until its SYNC is complete: the host’s by SMMU, and what guests saw of theirs.',
          `${told(sync)}.`,
        ),
    missSpec === null
      ? null
      : add(
          missSpec,
          'DMA miss latency by percentile',
          'Translating a batch of up to 64 transactions of which at least one had to be walked.',
          `${told(miss)}.`,
        ),
    syncSpec === null
      ? null
      : add(
          syncOverTimeChart(run, id),
          'SYNC p99 over time',
          'The 99th percentile of each interval’s invalidations.',
          `99th percentile of SYNC latency over time, for ${names.join(', ')}.`,
          true,
        ),
    latencyTable(run),
  ];
}
