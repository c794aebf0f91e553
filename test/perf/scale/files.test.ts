import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { folderProblem } from '../../../perf/report/folder.js';
import type { ScaleData, ScaleParams } from '../../../perf/report/scale-data.js';
import { scaleCsv, writeScaleFiles } from '../../../perf/scale/files.js';

const params: ScaleParams = {
  psmmus: 2,
  devices: 4,
  guests: 1,
  s2Sharing: 'per-psmmu',
  batch: 16,
  queues: 2,
};
const data: ScaleData = {
  report: 'iommufd-scale',
  version: 1,
  versions: {
    iommufd: '0.1.0',
    node: 'v20.20.2',
    cores: 2,
    os: 'Linux',
    cpu: 'some',
    startedAt: '2026-01-02T03:04:05.000Z',
  },
  options: { iommus: '2' },
  points: [
    {
      params,
      repeats: [
        { throughput: 1e6, syncP50Us: 2.5, syncP99Us: 80, hitRate: 0.9, invalidationsPerS: 10, mapsPerS: 11 },
        { throughput: 2e6, syncP50Us: 3, syncP99Us: 90 },
      ],
    },
    { params: { ...params, psmmus: 4 }, repeats: [], error: 'took too long' },
  ],
};

test('csv: a line a measurement, under the names of the columns', (t) => {
  t.deepEqual(scaleCsv(data).split('\n'), [
    'psmmus,devices,guests,s2_sharing,batch,queues,repeat,translations_per_s,sync_p50_us,sync_p99_us,hit_rate,invalidations_per_s,maps_per_s',
    '2,4,1,per-psmmu,16,2,1,1000000,2.5,80,0.9,10,11',
    '2,4,1,per-psmmu,16,2,2,2000000,3,90,,,',
    '',
  ]);
});

test('files: CSV, JSON and a page, in a folder that is made', (t) => {
  const above = mkdtempSync(join(tmpdir(), 'iommufd-scale-'));
  t.teardown(() => rmSync(above, { recursive: true }));
  const folder = join(above, 'a/b');
  t.is(folderProblem(folder), null);
  const paths = writeScaleFiles(folder, data);
  t.deepEqual(
    paths,
    ['scale.csv', 'scale.json', 'scale.html'].map((name) => join(folder, name)),
  );
  t.deepEqual(JSON.parse(readFileSync(paths[1]!, 'utf8')), data);
  t.regex(readFileSync(paths[2]!, 'utf8'), /^<!doctype html>/i);
  t.regex(folderProblem('/proc/nowhere')!, /nowhere/);
  t.regex(folderProblem(paths[0]!)!, /is not a folder/);
});
