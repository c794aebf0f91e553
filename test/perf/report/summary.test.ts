import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { reportProblem, writeReport } from '../../../perf/report/report-json.js';
import { renderStory, renderSummary } from '../../../perf/report/summary.js';
import { compact, hitRate, micros, plural } from '../../../perf/report/units.js';
import { stressOptions } from '../../../perf/stress/options.js';
import { createProgress, renderLine, renderTable } from '../../../perf/stress/progress.js';
import { resultOf, STORY, sampleAt } from '../stress-sample.js';

const options = stressOptions({ topology: 'cix-p1', seed: 7 });

test('summary: a row an SMMU, the checks by rule, and what repeats the run', (t) => {
  const text = renderSummary(resultOf(options));
  t.regex(text, /cix-p1: 4\.0 s of traffic, 4 devices, 2 guests, 256 MiB, seed 7/);
  t.regex(text, /smmu0 .* 8\.00M .* 2\.00M .* 95\.0% .* 12\.0k .* 4000 .* 0\.42 .* 17\.5 .* 250 .* 12$/m);
  t.regex(text, /smmu1 .* - .* - /);
  t.regex(text, /R1 3990, R6 10/);
  t.regex(text, /guest invalidations 200\/s \(p50 31\.0 us, p99 210 us\)/);
  t.regex(text, /first DMA after 95 ms/);
  t.notRegex(text, /VIOLATION|died|interrupted/);
});

test('summary: tells a violation with every fact it has, and says of the rest that it is not known', (t) => {
  const text = renderStory({ ...STORY, pa: null });
  for (const fact of [STORY.device, STORY.stream, STORY.iova, STORY.walk, STORY.invalidation, STORY.sync])
    t.true(text.includes(fact!), `${fact} in:\n${text}`);
  t.regex(text, /PA +not known/);
  t.true(text.includes('used at tick 90'));
});

test('summary: many violations are counted, a few are told', (t) => {
  const text = renderSummary(
    resultOf(
      options,
      Array.from({ length: 12 }, () => STORY),
    ),
  );
  t.is(text.match(/VIOLATION R1/g)?.length, 5);
  t.regex(text, /and 7 more violations, not printed here/);
});

test('summary: a run without a single check says so, and names who died', (t) => {
  const text = renderSummary({
    ...resultOf(options),
    checksByRule: {},
    deaths: [{ worker: 'piommu smmu1', reason: 'exit code 1' }],
    interrupted: true,
  });
  t.regex(text, /checks: none were made/);
  t.regex(text, /worker piommu smmu1 died: exit code 1/);
  t.regex(text, /\(interrupted\)/);
});

/** A sample as wide as they get: large totals on each SMMU, high latencies. */
function wideSample() {
  const sample = sampleAt(888);
  const iommu = { ...sample.iommus[0]!, faults: 888_888, invalidations: 888_888_888, syncs: 888_888_888 };
  const latency = { count: 1, p50Us: 88_888, p99Us: 888_888, maxUs: 888_888 };
  return {
    ...sample,
    iommus: ['smmu0', 'smmu10'].map((name) => ({ ...iommu, name })),
    syncLatency: [latency, latency],
  };
}

for (const columns of [80, 160])
  test(`summary, progress: no line is wider than ${columns} columns`, (t) => {
    const result = resultOf(options);
    const final = wideSample();
    const texts = [
      renderTable(undefined, final, 1000, columns),
      renderSummary(
        { ...result, final, options: { ...result.options, topologyName: 'x'.repeat(30) } },
        columns,
      ),
    ];
    for (const text of texts) {
      t.deepEqual(
        text.split('\n').filter((line) => line.length > columns),
        [],
      );
      t.is(text.includes('│'), columns === 160, 'a frame where there is room');
      t.is(
        text.split('\n').filter((line) => /smmu1?0 .* 889k$| smmu1?0 .* 889k │/.test(line)).length,
        2,
        text,
      );
    }
  });

for (const [reason, change, text] of [
  [
    'a bug that was caught',
    { inject: 'early-sync', violations: 3 },
    /4\.0 s of traffic \(of 9 s; ended early: the injected bug was caught\), /,
  ],
  ['a death', { inject: null, violations: 0, death: true }, /\(of 9 s; ended early: a worker died\), /],
  ['a violation nobody injected', { inject: null, violations: 3 }, /4\.0 s of traffic, /],
] as const)
  test(`summary: a run is told to have ended early, and why: ${reason}`, (t) => {
    const result = resultOf(options);
    const rendered = renderSummary({
      ...result,
      options: { ...result.options, inject: change.inject },
      final: { ...result.final, violations: change.violations },
      deaths: 'death' in change ? [{ worker: 'nic', reason: 'exit code 1' }] : [],
    });
    t.regex(rendered, text);
  });

test('progress: rates are of the time since the sample before', (t) => {
  const now = sampleAt(4);
  t.regex(
    renderLine(sampleAt(2), now),
    /^ +4\.0 s {2}smmu0 2\.00M\/s 95\.0% hits, 3000 inv\/s, sync 0\.42\/17\.5 us/,
  );
  const stalled = { ...now, atS: 6 };
  t.regex(renderLine(now, stalled), /smmu0 0\/s - hits, 0 inv\/s/);
  t.regex(
    renderTable(undefined, now, 9),
    /smmu0 .* 2\.00M .* 95\.0% .* 3000 .*\n[\s\S]*4\.0 of 9 s .*\n4000 checks, 0 violations/,
  );
});

test('progress: what is not a terminal gets one line every two seconds, without escapes', (t) => {
  let text = '';
  const progress = createProgress({ write: (part: string) => (text += part) }, 9);
  for (let atS = 0; atS <= 9; atS += 0.5) progress.sample(sampleAt(atS));
  progress.end();
  const lines = text.trimEnd().split('\n');
  t.deepEqual(
    lines.map((line) => line.trim().split(' ')[0]),
    ['2.0', '4.0', '6.0', '8.0'],
  );
  t.false(text.includes('\u001b'));
});

test('units: three digits and a suffix, and no 100 % that is not one', (t) => {
  t.deepEqual([0, 7, 999, 9999, 10_000, 999_499, 999_500, 1_234_567, 2_500_000_000].map(compact), [
    '0',
    '7',
    '999',
    '9999',
    '10.0k',
    '999k',
    '1.00M',
    '1.23M',
    '2.50G',
  ]);
  t.deepEqual(
    [0, 1, 2].map((count) => plural(count, 'SMMU')),
    ['0 SMMUs', '1 SMMU', '2 SMMUs'],
  );
  t.is(hitRate(99_999, 100_000), '>99.9%');
  t.is(hitRate(5, 5), '100.0%');
  t.is(hitRate(0, 0), '-');
  t.is(micros(0, 0), '-');
  t.is(micros(0.384, 9), '0.38');
});

test('report: is written whole, replaces the one before, and leaves nothing else behind', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-report-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'report.json');
  writeFileSync(file, 'old');
  t.is(writeReport(file, [resultOf(options, [STORY])]), file);
  const report = JSON.parse(readFileSync(file, 'utf8'));
  t.is(report.report, 'iommufd-stress');
  t.is(report.version, 1);
  t.is(report.runs.length, 1);
  t.is(report.runs[0].violations[0].iova, '0x10003000');
  t.is(report.runs[0].options.seed, 7);
  t.deepEqual(readdirSync(folder), ['report.json']);
});

test('report: a place that cannot take one is known before the run', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-report-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  t.is(reportProblem(join(folder, 'new.json')), null);
  t.regex(reportProblem(folder)!, /is a directory/);
  t.regex(reportProblem('/dev/null')!, /is not a file/);
  t.regex(reportProblem(join(folder, 'none', 'r.json'))!, /there is no directory .*none/);
  if (process.platform === 'linux') t.regex(reportProblem('/proc/report.json')!, /cannot be written: E/);
  t.regex(reportProblem(join(folder, 'x'.repeat(300)))!, /cannot be written: ENAMETOOLONG/);
  t.deepEqual(readdirSync(folder), [], 'trying leaves nothing behind');
  t.throws(() => writeReport(join(folder, 'none', 'r.json'), []), { code: 'ENOENT' });
  t.false(existsSync(join(folder, 'none')));
});
