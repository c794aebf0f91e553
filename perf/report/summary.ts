/** A finished stress run as text: what each SMMU did, what was checked, and every violation as a story. */
import type { StressResult, ViolationStory } from '../stress/types.js';
import { DEFAULT_COLUMNS, figureTable, fold } from './layout.js';
import { bytes, compact, hitRate, micros, plural } from './units.js';

/** Stories told in full on a terminal; the report holds them all. */
const STORIES = 5;

const HEADINGS = [
  'SMMU',
  ['translations', 'transl.'],
  'per s',
  'hits',
  ['invalidations', 'inval.'],
  'SYNCs',
  'p50 us',
  'p99 us',
  'max us',
  'faults',
] as const;

/** @param columns  of the terminal, if it is one: then nothing is wider */
export function renderSummary(result: StressResult, columns?: number): string {
  const { final, options, versions, startup, guestLatency } = result;
  const guestP50 = micros(guestLatency.p50Us, guestLatency.count);
  const guestP99 = micros(guestLatency.p99Us, guestLatency.count);
  const seconds = final.atS;
  const perSecond = (total: number) => (seconds > 0 ? compact(total / seconds) : '-');
  const rows = final.iommus.map((iommu, index) => {
    const latency = final.syncLatency[index] ?? { count: 0, p50Us: 0, p99Us: 0, maxUs: 0 };
    return [
      iommu.name,
      compact(iommu.translations),
      perSecond(iommu.translations),
      hitRate(iommu.hits, iommu.translations),
      compact(iommu.invalidations),
      compact(iommu.syncs),
      micros(latency.p50Us, latency.count),
      micros(latency.p99Us, latency.count),
      micros(latency.maxUs, latency.count),
      compact(iommu.faults),
    ];
  });
  const atc = final.iommus
    .filter(({ atcHits }) => atcHits > 0)
    .map(({ name, atcHits, translations }) => `${name} ${hitRate(atcHits, translations)}`);
  const dropped = final.iommus.reduce((sum, { eventsDropped }) => sum + eventsDropped, 0);
  const rules = Object.entries(result.checksByRule).map(([rule, count]) => `${rule} ${count}`);
  const lines = [
    `${options.topologyName}: ${seconds.toFixed(1)} s of traffic${early(result)}, ` +
      `${plural(options.devices, 'device')}, ${plural(options.guests, 'guest')}, ${bytes(options.memoryBytes)}, seed ${options.seed}`,
    figureTable(HEADINGS, rows, columns ?? DEFAULT_COLUMNS),
    `map ${perSecond(final.maps)}/s, unmap ${perSecond(final.unmaps)}/s, ` +
      `guest invalidations ${perSecond(final.guestInvalidations)}/s` +
      (guestLatency.count > 0 ? ` (p50 ${guestP50} us, p99 ${guestP99} us)` : '') +
      (dropped > 0 ? `, ${plural(dropped, 'event')} dropped (queue full)` : ''),
    ...(atc.length > 0 ? [`translations served by devices' own ATCs: ${atc.join(', ')}`] : []),
    `start-up: machine ${startup.machineMs.toFixed(0)} ms, workers ${startup.workersMs.toFixed(0)} ms, ` +
      `first DMA after ${startup.firstDmaMs.toFixed(0)} ms; Node ${versions.node}, ${plural(versions.cores, 'core')}`,
    `checks: ${rules.length === 0 ? 'none were made' : rules.join(', ')}`,
  ].map((line) => (line.includes('\n') ? line : fold(line, columns)));
  for (const story of result.violations.slice(0, STORIES)) lines.push('', renderStory(story));
  const untold = result.violations.length - Math.min(result.violations.length, STORIES);
  if (untold > 0)
    lines.push('', `and ${plural(untold, 'more violation', 'more violations')}, not printed here`);
  if (final.violations > result.violations.length)
    lines.push('', `of ${final.violations} violations, ${result.violations.length} were recorded in full`);
  for (const { worker, reason } of result.deaths) lines.push('', `worker ${worker} died: ${reason}`);
  return lines.join('\n');
}

/** Why a run took less than the time it was given. */
export function early({ interrupted, final, options, deaths }: StressResult): string {
  if (interrupted) return ' (interrupted)';
  if (final.atS >= options.durationS) return '';
  const ended = ` (of ${options.durationS} s; ended early: `;
  if (deaths.length > 0) return `${ended}a worker died)`;
  if (options.inject !== null && final.violations > 0) return `${ended}the injected bug was caught)`;
  return '';
}

/** The facts of a story with their names, in the order of events; null where one is not known. */
export function storyFacts(story: ViolationStory): [name: string, value: string | null][] {
  return [
    ['device', story.device],
    ['SMMU', story.iommu],
    ['stream', story.stream],
    ['IOVA', story.iova],
    ['PA', story.pa],
    ['walk', story.walk],
    ['invalidation', story.invalidation],
    ['SYNC', story.sync],
  ];
}

/** A violation as a story: who used what, where it came from, what should have ended it. */
export function renderStory(story: ViolationStory): string {
  return [
    `VIOLATION ${story.rule}: ${story.summary}`,
    ...storyFacts(story).map(([name, value]) => `  ${name.padEnd(12)}  ${value ?? 'not known'}`),
    ...story.details.map((detail) => `  ${' '.repeat(12)}  ${detail}`),
  ].join('\n');
}

/** The last line of a run, whatever else it printed. */
export function tallyLine(checks: number, violations: number): string {
  return `${checks} checks, ${violations} violations`;
}
