/** What a sweep leaves behind: scale.json, scale.csv (a line a measurement) and scale.html with the plots. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ScaleData } from '../report/scale-data.js';
import { renderScaleHtml } from '../report/scale-page.js';

const COLUMNS = [
  'psmmus',
  'devices',
  'guests',
  's2_sharing',
  'batch',
  'queues',
  'repeat',
  'translations_per_s',
  'sync_p50_us',
  'sync_p99_us',
  'hit_rate',
  'invalidations_per_s',
  'maps_per_s',
] as const;

export function scaleCsv({ points }: ScaleData): string {
  const lines = points.flatMap(({ params: p, repeats }) =>
    repeats.map((r, i) =>
      [
        p.psmmus,
        p.devices,
        p.guests,
        p.s2Sharing,
        p.batch,
        p.queues,
        i + 1,
        r.throughput,
        r.syncP50Us,
        r.syncP99Us,
        r.hitRate ?? '',
        r.invalidationsPerS ?? '',
        r.mapsPerS ?? '',
      ].join(','),
    ),
  );
  return `${[COLUMNS.join(','), ...lines].join('\n')}\n`;
}

/** @returns the paths */
export function writeScaleFiles(folder: string, data: ScaleData): string[] {
  const files = {
    'scale.csv': scaleCsv(data),
    'scale.json': `${JSON.stringify(data, null, 2)}\n`,
    'scale.html': renderScaleHtml(data),
  };
  return Object.entries(files).map(([name, text]) => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  });
}
