import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { exploreReport } from '../../../perf/explore/report.js';
import { mergeFiles } from '../../../perf/explore/report-file.js';

const RESULT = {
  schedules: 10,
  steps: 100,
  seconds: 1,
  checks: { 'mutual exclusion': 10 },
  exhausted: true,
  diverged: false,
  digest: '0123456789abcdef',
  summary: 'all',
  failure: null,
};
const HEAD = {
  scenario: 'mutex-2',
  bugs: [],
  strategy: 'dfs',
  seed: 1,
  bounds: { depth: 3, preemptions: 2 },
};

const line = (change: object = {}): string =>
  `${JSON.stringify({ type: 'report', ...exploreReport({ ...HEAD, shard: { index: 0, count: 1 } }, RESULT), ...change })}\n`;

test('report file: one that others wrote is read, or refused in one line', (t) => {
  const path = mkdtempSync(join(tmpdir(), 'iommufd-report-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  const file = join(path, 'a.jsonl');
  const of = (text: string): string[] => {
    writeFileSync(file, text);
    return [file];
  };
  t.is(mergeFiles(of(`{"type":"other"}\n\n${line()}`))[0]!.schedules, 10);
  const cases: [string, RegExp][] = [
    ['', /has no report/],
    ['{', /line 1/],
    [`${'['.repeat(1e6)}\n`, /line 1/],
    [line({ schedules: 1e308 }), /schedules/],
    [line({ schedules: -1 }), /schedules/],
    [line({ bounds: undefined }), /bounds/],
    [line({ digest: 'f'.repeat(17) }), /digest/],
    [line({ shard: '1/1' }), /there is no shard 1\/1/],
    [line({ shard: `0/${'9'.repeat(1e5)}` }), /names no shards/],
    [line({ shard: `${'0,'.repeat(1e5)}0/1` }), /shard 0\/1 is there twice/],
    [line() + line(), /shard 0\/1 is there twice/],
    [line() + line({ shard: '0/2' }), /shards of one number/],
  ];
  for (const [text, message] of cases) t.throws(() => mergeFiles(of(text)), { name: 'OptionError', message });
  t.throws(() => mergeFiles(['/dev/zero']), { message: /it is not a file/ });
  t.throws(() => mergeFiles([path]), { message: /it is not a file/ });
});
