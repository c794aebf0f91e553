/**
 * A stress run while it runs, as text: a table redrawn in place for a terminal, one line every two seconds
 * for anything else. Rates are of the time since the sample before, totals since the start of traffic.
 */
import { createLogUpdate } from 'log-update';
import { DEFAULT_COLUMNS, figureTable, fold } from '../report/layout.js';
import { compact, hitRate, micros, plural } from '../report/units.js';
import type { IommuTotals, StressSample } from './types.js';

export interface Progress {
  sample(sample: StressSample): void;
  /** Prints above what is redrawn. */
  say(text: string): void;
  /** Takes the redrawn part away; nothing more is drawn. */
  end(): void;
}

/** What a `Progress` writes to: `process.stdout`, or less. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  /** Of a terminal; changes when its window does. */
  readonly columns?: number;
  write(text: string): unknown;
}

/** Two seconds, less the jitter of samples that come twice a second. */
const LINE_EVERY_S = 1.8;

export function createProgress(stream: ProgressStream, durationS: number): Progress {
  return stream.isTTY ? liveProgress(stream as NodeJS.WriteStream, durationS) : lineProgress(stream);
}

function liveProgress(stream: NodeJS.WriteStream, durationS: number): Progress {
  const log = createLogUpdate(stream);
  let previous: StressSample | undefined;
  return {
    sample(sample) {
      log(renderTable(previous, sample, durationS, stream.columns));
      previous = sample;
    },
    say(text) {
      log.clear();
      stream.write(`${text}\n`);
    },
    end() {
      log.clear();
      log.done();
    },
  };
}

function lineProgress(stream: ProgressStream): Progress {
  let previous: StressSample | undefined;
  return {
    sample(sample) {
      if (previous !== undefined && sample.atS - previous.atS < LINE_EVERY_S) return;
      if (previous === undefined && sample.atS < LINE_EVERY_S) return;
      stream.write(`${renderLine(previous, sample)}\n`);
      previous = sample;
    },
    say(text) {
      stream.write(`${text}\n`);
    },
    end() {
      previous = undefined;
    },
  };
}

/** Per second since `previous`, or since the start. */
function rate(
  previous: StressSample | undefined,
  sample: StressSample,
  index: number,
  field: 'translations' | 'invalidations',
): number {
  const seconds = sample.atS - (previous?.atS ?? 0);
  const before = previous?.iommus[index]?.[field] ?? 0;
  return seconds > 0 ? (sample.iommus[index]![field] - before) / seconds : 0;
}

/** Hit rate since `previous`, or since the start. */
function recentHits(before: IommuTotals | undefined, now: IommuTotals): string {
  return hitRate(now.hits - (before?.hits ?? 0), now.translations - (before?.translations ?? 0));
}

const HEADINGS = [
  'SMMU',
  ['translations/s', 'transl./s'],
  'hits',
  ['invalidations/s', 'inval./s'],
  'SYNC p50',
  'p99 us',
  'faults',
] as const;

/** One row an SMMU, then the checker's tally; nothing wider than `columns`. */
export function renderTable(
  previous: StressSample | undefined,
  sample: StressSample,
  durationS: number,
  columns = DEFAULT_COLUMNS,
): string {
  const rows = sample.iommus.map((iommu, index) => {
    const { count, p50Us, p99Us } = sample.syncLatency[index] ?? { count: 0, p50Us: 0, p99Us: 0 };
    return [
      iommu.name,
      compact(rate(previous, sample, index, 'translations')),
      recentHits(previous?.iommus[index], iommu),
      compact(rate(previous, sample, index, 'invalidations')),
      micros(p50Us, count),
      micros(p99Us, count),
      compact(iommu.faults),
    ];
  });
  const { atS, maps, unmaps, guestInvalidations } = sample;
  const work =
    `${atS.toFixed(1)} of ${durationS} s   ${plural(maps, 'map')}, ${plural(unmaps, 'unmap')}, ` +
    plural(guestInvalidations, 'guest invalidation');
  const foot = `${work}   ${tally(sample)}`;
  return [
    figureTable(HEADINGS, rows, columns),
    foot.length <= columns ? foot : `${fold(work, columns)}\n${tally(sample)}`,
  ].join('\n');
}

/** `   4.0 s  smmu0 1.2M/s 98.1% hits 3.1k inv/s sync 0.5/12 us 12 faults | smmu1 ... | 1200 checks, 0 violations` */
export function renderLine(previous: StressSample | undefined, sample: StressSample): string {
  const parts = sample.iommus.map((iommu, index) => {
    const { count, p50Us, p99Us } = sample.syncLatency[index] ?? { count: 0, p50Us: 0, p99Us: 0 };
    return (
      `${iommu.name} ${compact(rate(previous, sample, index, 'translations'))}/s ` +
      `${recentHits(previous?.iommus[index], iommu)} hits, ` +
      `${compact(rate(previous, sample, index, 'invalidations'))} inv/s, ` +
      `sync ${micros(p50Us, count)}/${micros(p99Us, count)} us, ${compact(iommu.faults)} faults`
    );
  });
  return [`${sample.atS.toFixed(1).padStart(6)} s  ${parts[0] ?? ''}`, ...parts.slice(1), tally(sample)].join(
    ' | ',
  );
}

function tally({ checks, violations }: StressSample): string {
  return `${compact(checks)} checks, ${violations} violations`;
}
