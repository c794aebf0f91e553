/** Report pages as text: nothing in them acts but what the policy names. */
import { createHash } from 'node:crypto';
import test from 'ava';
import { escapeText, html, jsonBlock } from '../../../perf/report/html.js';
import { renderScaleHtml, spreadOf } from '../../../perf/report/scale-page.js';
import { percentileChart, percentileOf, thinned } from '../../../perf/report/stress-charts.js';
import { renderStressHtml } from '../../../perf/report/stress-page.js';
import type { StressResult } from '../../../perf/stress/types.js';
import { fullRun, HOSTILE, scaleData } from './page-samples.js';

const report = (...runs: StressResult[]) => ({ report: 'iommufd-stress', version: 1, runs }) as const;
const plain = (name: string) => name;
const pages: [name: string, page: string][] = [
  ['stress', renderStressHtml(report(fullRun(plain), fullRun(plain)))],
  ['stress, hostile names', renderStressHtml(report(fullRun((name) => HOSTILE + name)))],
  ['scale', renderScaleHtml(scaleData())],
  ['scale, hostile names', renderScaleHtml(scaleData((name) => HOSTILE + name))],
];

for (const [name, page] of pages)
  test(`page: ${name}: nothing is fetched, and only scripts and styles with a known hash count`, (t) => {
    const tags = page.replace(/(<script[^>]*>)[\s\S]*?<\/script>/g, '$1').match(/<\w[^>]*>/g)!;
    t.true(tags.length > 200);
    t.deepEqual(
      tags.filter((tag) => /\s(src|href)="(?!#|data:,")|\s(style|on\w+)="/.test(tag)),
      [],
    );
    t.notRegex(page.replace(/<script[\s\S]*?<\/script>/g, ''), /@import|url\(/);
    const policy = /Content-Security-Policy" content="([^"]*)"/.exec(page)![1]!.replaceAll('&#39;', "'");
    t.true(policy.startsWith("default-src 'none';"));
    t.notRegex(policy, /unsafe|https?:|\*/);
    const parts = [...page.matchAll(/<(script|style)([^>]*)>([\s\S]*?)<\/\1>/g)];
    t.is(parts.length, 5, 'two styles, the data, the library and our script: nothing else became one');
    for (const [, , attributes, text] of parts) {
      if (attributes!.includes('application/json')) continue;
      t.true(policy.includes(`'sha256-${createHash('sha256').update(text!).digest('base64')}'`), attributes);
    }
    t.true(page.length < 1.5 * 2 ** 20, `${page.length} bytes`);
  });

for (const [runs, iommus] of [
  [1, 8],
  [1, 64],
  [4, 16],
] as const)
  test(`page: ${runs} of the longest runs behind ${iommus} SMMUs stay below 1.5 MiB`, (t) => {
    const run = fullRun(plain, 2000, iommus);
    const page = renderStressHtml(report(...Array.from({ length: runs }, () => run)));
    t.true(page.length < 1.5 * 2 ** 20, `${page.length} bytes`);
    t.log(`${page.length} bytes`);
    t.true(page.includes(`${run.final.atS.toFixed(1)} s of traffic`));
  });

test('page: points that are merged keep their totals, and the worst of their latencies', (t) => {
  const run = fullRun(plain, 2000, 64);
  const spike = { count: 1, p50Us: 9, p99Us: 7777, maxUs: 7777 };
  const samples = run.samples.map((point, i) =>
    i === 1001 ? { ...point, syncInterval: point.syncInterval.map(() => spike) } : point,
  );
  const thin = thinned({ ...run, samples }, 1);
  t.true(thin.samples.length > 100 && thin.samples.length < 200, `${thin.samples.length}`);
  t.deepEqual(thin.samples.at(-1)!.iommus, run.samples.at(-1)!.iommus);
  t.is(thin.samples.filter(({ syncInterval }) => syncInterval[0]!.p99Us === 7777).length, 1);
  t.is(thinned(run, 1).options, run.options);
  t.is(thinned(fullRun(plain, 40), 2).samples.length, 40, 'short runs are left alone');
});

test('page: a run without any result worth drawing still has a page', (t) => {
  const run = fullRun(plain);
  const empty: StressResult = {
    ...run,
    samples: [],
    latencies: [],
    faults: [],
    devices: [],
    violations: [],
    deaths: [],
    final: { ...run.final, atS: 0, violations: 0 },
    interrupted: true,
  };
  t.regex(renderStressHtml(report(empty)), /clean, interrupted/);
  t.regex(renderStressHtml(report()), /0 runs/);
  t.regex(renderScaleHtml({ ...scaleData(), points: [] }), /0 points/);
});

test('page: the verdict, the stories and every option are told', (t) => {
  const page = renderStressHtml(report(fullRun(plain)));
  for (const text of [
    '2 violations, 1 worker died',
    'a DMA used a translation after its invalidation was complete',
    'CMD_SYNC at queue index 512',
    'Worker piommu smmu1 died: exit code 1',
    'nic=3,nvme=2,gpu=1,guest=4',
    '256 MiB',
    'SMMUv2: not modelled',
    'F_TRANSLATION',
  ])
    t.true(page.includes(text), text);
  const clean = { ...fullRun(plain), violations: [], deaths: [] };
  t.regex(
    renderStressHtml(report({ ...clean, final: { ...clean.final, violations: 0 } })),
    /verdict ok">clean</,
  );
});

test('page: refused transactions add up, those whose events were merged included', (t) => {
  const run = fullRun(plain);
  const faults = [{ name: 'smmu0', events: { F_TRANSLATION: 30 }, merged: 5, aborted: 2, notGranted: 1 }];
  const page = renderStressHtml(report({ ...run, faults }));
  const card = page.slice(
    page.indexOf('Faults by event'),
    page.indexOf('lost</th>', page.indexOf('Faults by event')),
  );
  t.regex(card, />38</);
  t.regex(card.slice(card.indexOf('>merged<')), />5</);
});

test('html: what is put in is text, wherever', (t) => {
  t.is(String(html`<a title="${`"'<&>`}">${'<b>'}</a>`), '<a title="&quot;&#39;&lt;&amp;&gt;">&lt;b&gt;</a>');
  t.is(String(html`${[html`<i>${1}</i>`, '<', null]}`), '<i>1</i>&lt;');
  t.is(escapeText('a\u0000b\u001b[31m\u202ec\nd'), 'a\ufffdb\ufffd[31m\ufffdc\nd');
  const block = String(jsonBlock({ [HOSTILE]: HOSTILE }));
  t.notRegex(block, /[<>\u2028]/);
  t.deepEqual(JSON.parse(block), { [HOSTILE]: HOSTILE });
});

test('charts: percentiles come from the buckets, and the curve ends at the longest', (t) => {
  const distribution = {
    what: 'sync',
    name: 'smmu0',
    count: 1000,
    p50Us: 1,
    p99Us: 5,
    maxUs: 90,
    buckets: [
      [1, 900],
      [5, 95],
      [100, 5],
    ],
  } as const;
  t.deepEqual(
    [0.5, 0.9, 0.95, 0.995, 0.999, 1].map((share) => percentileOf(distribution, share)),
    [1, 1, 5, 5, 90, 90],
  );
  const spec = percentileChart([distribution], 'x', () => ({ color: 0 }))!;
  const [{ ys }] = spec.series as [(typeof spec.series)[0]];
  const shown = ys.filter((y) => y !== null);
  t.is(shown[0], 1);
  t.is(shown.at(-1), 90);
  t.deepEqual(
    shown,
    [...shown].sort((a, b) => a - b),
    'never falls',
  );
  t.is(ys[spec.xs.findIndex((x) => x >= 15)], 5, '93 %');
  t.true(spec.xs.at(-1)! >= 1000);
  t.is(
    percentileChart([], 'x', () => ({ color: 0 })),
    null,
  );
});

test('scale: the spread of a point is its median, its least and its most', (t) => {
  const repeats = [3, 1, 2, 10].map((throughput) => ({ throughput, syncP50Us: 1, syncP99Us: 2 }));
  t.deepEqual(spreadOf(repeats, 'throughput'), { median: 2.5, low: 1, high: 10 });
  t.deepEqual(spreadOf(repeats.slice(0, 3), 'throughput'), { median: 2, low: 1, high: 3 });
  t.is(spreadOf([], 'throughput'), null);
});
