/** A finished stress run as text: what each SMMU did, what was checked, and every violation as a story. */
import Table from 'cli-table3';
import type { StressResult, ViolationStory } from '../stress/types.js';
import { bytes, compact, hitRate, micros } from './units.js';

/** Stories told in full on a terminal; the report holds them all. */
const STORIES = 5;

export function renderSummary(result: StressResult): string {
  const { final, options, versions, startup, guestLatency } = result;
  const guestP50 = micros(guestLatency.p50Us, guestLatency.count);
  const guestP99 = micros(guestLatency.p99Us, guestLatency.count);
  const seconds = final.atS;
  const perSecond = (total: number) => (seconds > 0 ? compact(total / seconds) : '-');
  const table = new Table({
    head: [
      'SMMU',
      'translations',
      'per s',
      'hits',
      'invalidations',
      'SYNCs',
      'p50 us',
      'p99 us',
      'max us',
      'faults',
    ],
    colAligns: ['left', ...Array.from({ length: 9 }, () => 'right' as const)],
    style: { head: [], border: [], compact: true },
  });
  final.iommus.forEach((iommu, index) => {
    const latency = final.syncLatency[index] ?? { count: 0, p50Us: 0, p99Us: 0, maxUs: 0 };
    table.push([
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
    ]);
  });
  const dropped = final.iommus.reduce((sum, { eventsDropped }) => sum + eventsDropped, 0);
  const rules = Object.entries(result.checksByRule).map(([rule, count]) => `${rule} ${count}`);
  const lines = [
    `${options.topologyName}: ${seconds.toFixed(1)} s of traffic${result.interrupted ? ' (interrupted)' : ''}, ` +
      `${options.devices} devices, ${options.guests} guests, ${bytes(options.memoryBytes)}, seed ${options.seed}`,
    table.toString(),
    `map ${perSecond(final.maps)}/s, unmap ${perSecond(final.unmaps)}/s, ` +
      `guest invalidations ${perSecond(final.guestInvalidations)}/s` +
      (guestLatency.count > 0 ? ` (p50 ${guestP50} us, p99 ${guestP99} us)` : '') +
      (dropped > 0 ? `, ${compact(dropped)} events dropped (queue full)` : ''),
    `start-up: machine ${startup.machineMs.toFixed(0)} ms, workers ${startup.workersMs.toFixed(0)} ms, ` +
      `first DMA after ${startup.firstDmaMs.toFixed(0)} ms; Node ${versions.node}, ${versions.cores} cores`,
    `checks: ${rules.length === 0 ? 'none were made' : rules.join(', ')}`,
  ];
  for (const story of result.violations.slice(0, STORIES)) lines.push('', renderStory(story));
  const untold = result.violations.length - Math.min(result.violations.length, STORIES);
  if (untold > 0) lines.push('', `and ${untold} more violations in the report`);
  if (final.violations > result.violations.length)
    lines.push('', `of ${final.violations} violations, ${result.violations.length} were recorded in full`);
  for (const { worker, reason } of result.deaths) lines.push('', `worker ${worker} died: ${reason}`);
  return lines.join('\n');
}

/** A violation as a story: who used what, where it came from, what should have ended it. */
export function renderStory(story: ViolationStory): string {
  const facts: [string, string | null][] = [
    ['device', story.device],
    ['SMMU', story.iommu],
    ['stream', story.stream],
    ['IOVA', story.iova],
    ['PA', story.pa],
    ['walk', story.walk],
    ['invalidation', story.invalidation],
    ['SYNC', story.sync],
  ];
  return [
    `VIOLATION ${story.rule}: ${story.summary}`,
    ...facts.map(([name, value]) => `  ${name.padEnd(12)}  ${value ?? 'not known'}`),
    ...story.details.map((detail) => `  ${' '.repeat(12)}  ${detail}`),
  ].join('\n');
}

/** The last line of a run, whatever else it printed. */
export function tallyLine(checks: number, violations: number): string {
  return `${checks} checks, ${violations} violations`;
}
