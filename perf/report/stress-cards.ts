/** The parts of a stress run's page that are no charts: tables, bars, stories. */
import { mixText } from '../stress/options.js';
import type { StressResult, ViolationStory } from '../stress/types.js';
import { html, type Markup } from './html.js';
import { PALETTE_SIZE } from './page-data.js';
import { bars, pairs, table } from './page-parts.js';
import { percentileOf } from './stress-charts.js';
import { storyFacts } from './summary.js';
import { bytes, compact, hitRate, micros, plural } from './units.js';

export const rate = (total: number, seconds: number): string =>
  seconds > 0 ? compact(total / seconds) : '-';

/** `2026-11-20 21:11:58 UTC`. */
export function instant(iso: string): string {
  return `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`;
}

/** Stories that stand open on the page. */
const SHOWN = 5;

export function stories({ violations, final }: StressResult): Markup | null {
  if (violations.length === 0) return null;
  const [first, rest] = [violations.slice(0, SHOWN), violations.slice(SHOWN)];
  return html`<div class="stories"><h3>Violations</h3>
${first.map(story)}
${rest.length === 0 ? null : html`<details><summary>${plural(rest.length, 'more violation', 'more violations')}</summary><div class="stories">${rest.map(story)}</div></details>`}
${final.violations > violations.length ? html`<p class="note">Of ${final.violations} violations, ${violations.length} were recorded in full.</p>` : null}</div>`;
}

function story(told: ViolationStory): Markup {
  return html`<article class="card story"><h3>${told.rule}: ${told.summary}</h3><dl>${storyFacts(told).map(
    ([name, value]) => html`<dt>${name}</dt><dd>${value ?? 'not known'}</dd>`,
  )}${told.details.map((detail, i) => html`<dt>${i === 0 ? 'details' : ''}</dt><dd>${detail}</dd>`)}</dl></article>`;
}

export function smmuTable({ final }: StressResult): Markup {
  const { atS } = final;
  return html`<div class="card wide"><h3>By SMMU</h3>${table(
    `Totals over ${atS.toFixed(1)} s; SYNC latency in microseconds`,
    [
      'SMMU',
      'translations',
      'per s',
      'hits',
      'in ATCs',
      'walks',
      'invalidations',
      'SYNCs',
      'inval. a SYNC',
      'SYNC p50',
      'p99',
      'max',
      'faults',
    ],
    final.iommus.map((iommu, index) => {
      const { count, p50Us, p99Us, maxUs } = final.syncLatency[index] ?? {
        count: 0,
        p50Us: 0,
        p99Us: 0,
        maxUs: 0,
      };
      return [
        iommu.name,
        compact(iommu.translations),
        rate(iommu.translations, atS),
        hitRate(iommu.hits, iommu.translations),
        hitRate(iommu.atcHits, iommu.translations),
        compact(iommu.misses),
        compact(iommu.invalidations),
        compact(iommu.syncs),
        iommu.syncs > 0 ? (iommu.invalidations / iommu.syncs).toFixed(2) : '-',
        micros(p50Us, count),
        micros(p99Us, count),
        micros(maxUs, count),
        compact(iommu.faults),
      ];
    }),
  )}</div>`;
}

export function latencyTable({ latencies }: StressResult): Markup | null {
  if (latencies.length === 0) return null;
  const what = { sync: 'SYNC', guest: 'guest invalidation', miss: 'DMA miss' } as const;
  return html`<div class="card wide"><h3>Latency percentiles</h3>${table(
    'Microseconds, within a sixteenth',
    ['of', 'count', 'p50', 'p90', 'p99', 'p99.9', 'longest'],
    latencies.map((one) => [
      `${what[one.what]}, ${one.name}`,
      compact(one.count),
      ...[0.5, 0.9, 0.99, 0.999].map((share) => micros(percentileOf(one, share), one.count)),
      micros(one.maxUs, one.count),
    ]),
  )}</div>`;
}

const ABORTED = 'aborted, no event';
const NOT_GRANTED = 'ATS request not granted';

export function faultCard(run: StressResult): Markup {
  const kinds = [...new Set(run.faults.flatMap(({ events }) => Object.keys(events)))].sort();
  const parts = [...kinds, ABORTED, NOT_GRANTED].map((name, i) => ({ name, color: (i + 2) % PALETTE_SIZE }));
  const rows = run.faults.map(({ name, events, merged, aborted, notGranted }, index) => {
    const counts = [...kinds.map((kind) => events[kind] ?? 0), aborted, notGranted];
    return { name, counts, merged, dropped: run.final.iommus[index]?.eventsDropped ?? 0 };
  });
  return html`<div class="card"><h3>Faults by event</h3>
<p class="note">Transactions that were refused: hostile ones (${run.options.hostilePercent} %), and those that met a mapping just taken away.</p>
${bars(
  rows.map(({ name, counts, merged }) => ({
    name,
    parts: counts,
    total: compact(counts.reduce((a, b) => a + b, merged)),
  })),
  parts,
)}
${table(
  'Events that reached the driver, were merged with an equal one before, or lost to a full queue',
  ['event', ...rows.map(({ name }) => name)],
  [
    ...parts.map(({ name }, i) => [name, ...rows.map(({ counts }) => compact(counts[i]!))]),
    ['merged', ...rows.map(({ merged }) => compact(merged))],
    ['lost', ...rows.map(({ dropped }) => compact(dropped))],
  ],
)}</div>`;
}

const RULES: Readonly<Record<string, string>> = {
  R1: 'a frame that a DMA reached, against its shadow',
  'R1 canary': 'the pattern in a dead frame',
  R2: 'a device’s own translations, after ATC_INV',
  R6: 'no IOTLB entry left when a tag is handed out',
  R7: 'no IOTLB entry reaches a frame being freed',
  FAULT: 'the answer to a DMA, against the one it has to get',
};

export function checkCard({ checksByRule, final }: StressResult): Markup {
  return html`<div class="card"><h3>Checks</h3>
<p class="note">Questions asked of the running machine, and ${plural(final.violations, 'answer')} that should not have been.</p>${table(
    'Checks made, by rule',
    ['rule', 'checks'],
    Object.entries(checksByRule).map(([rule, count]) => [
      html`${rule} <span class="note">${RULES[rule] ?? ''}</span>`,
      compact(count),
    ]),
  )}</div>`;
}

export function deviceTable({ devices, final }: StressResult): Markup {
  return html`<details><summary>Devices</summary>${table(
    'Devices',
    ['device', 'traffic', 'owner', 'SMMU', 'stream', 'ATC'],
    devices.map(({ label, kind, guest, space, iommu, streamId, ats }) => [
      label,
      kind === 'guest' ? 'nested' : kind,
      guest !== null ? `guest ${guest}` : `host space ${space ?? 0}`,
      final.iommus[iommu]?.name ?? '-',
      `0x${streamId.toString(16)}`,
      ats ? 'yes' : '-',
    ]),
  )}</details>`;
}

export function optionCards({ options, versions, trace }: StressResult): Markup {
  return html`<div class="card"><h3>Options</h3>${pairs([
    ['topology', options.topologyName],
    ['duration', `${options.durationS} s`],
    ['devices', options.devices],
    ['guests', options.guests],
    ['seed', options.seed],
    ['mix', mixText(options.mix)],
    ['hostile', `${options.hostilePercent} %`],
    ['stage 2', options.s2Sharing],
    ['ATCs', options.ats ?? 'auto'],
    ['memory', bytes(options.memoryBytes)],
    ['injected bug', options.inject ?? 'none'],
    ['killed', options.kill === null ? 'nobody' : `a ${options.kill.kind} after ${options.kill.afterMs} ms`],
    ...(trace ? [['trace', `${trace.file}, the last ${(trace.windowMs / 1000).toFixed(2)} s`] as const] : []),
    [
      'not modelled',
      options.unsupported.length === 0 ? 'nothing' : options.unsupported.map((part) => html`${part}<br>`),
    ],
  ])}</div><div class="card"><h3>Versions</h3>${pairs([
    ['iommufd', versions.iommufd],
    ['Node', versions.node],
    ['system', versions.os],
    ['processor', versions.cpu],
    ['cores', versions.cores],
    ['began', instant(versions.startedAt)],
  ])}</div>`;
}
