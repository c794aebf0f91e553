/** Report pages in a real browser: drawn, quiet, and readable on any screen. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { renderScaleHtml } from '../../../perf/report/scale-page.js';
import { renderStressHtml } from '../../../perf/report/stress-page.js';
import { browserTest, type Opened, withPage } from '../../kit/browser.js';
import { fullRun, HOSTILE, scaleData } from './page-samples.js';

const STRESS_CHARTS = 6;
const plain = (name: string) => name;
const hostile = (name: string) => HOSTILE + name;
const stressPage = (name: (plain: string) => string) =>
  renderStressHtml({ report: 'iommufd-stress', version: 1, runs: [fullRun(name)] });

function saved(t: ExecutionContext, page: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-page-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'report.html');
  writeFileSync(file, page);
  return file;
}

/** Of each canvas, how many of its pixels are coloured: neither clear nor grey like axes and grid. */
const COLOURED = `[...document.querySelectorAll('canvas')].map((canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let coloured = 0;
  for (let i = 0; i < data.length; i += 4)
    if (data[i + 3] > 128 && Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 60)
      coloured++;
  return coloured;
})`;

/** Elements that reach past the right edge without a scroller of their own around them. */
const TOO_WIDE = `[...document.body.querySelectorAll('*')]
  .filter((element) => !element.closest('.scroll, nav, .tip') && element.getBoundingClientRect().right > innerWidth + 0.5)
  .map((element) => element.tagName + '.' + element.className)`;

async function isWhole(t: ExecutionContext, { page, problems, requests }: Opened, charts: number) {
  await page.waitForFunction(`document.documentElement.dataset.drawn === '${charts}'`);
  // uPlot draws in a microtask, and a size observer may draw once more.
  await page.waitForTimeout(50);
  const coloured = (await page.evaluate(COLOURED)) as number[];
  t.is(coloured.length, charts);
  for (const [index, count] of coloured.entries()) t.true(count > 200, `chart ${index}: ${count} pixels`);
  t.deepEqual(problems, []);
  t.deepEqual(requests, []);
  t.deepEqual(await page.evaluate(TOO_WIDE), []);
  t.is(
    await page.evaluate('document.documentElement.scrollWidth'),
    await page.evaluate('document.documentElement.clientWidth'),
  );
}

for (const [where, look] of [
  ['a desk', { width: 1280 }],
  ['a dark desk', { width: 1280, dark: true }],
  ['a phone', { width: 390, height: 844 }],
  ['a dark phone', { width: 390, height: 844, dark: true }],
] as const)
  browserTest(`page: drawn, quiet and no wider than ${where}`, async (t) => {
    const stress = saved(t, stressPage(plain));
    await withPage(stress, look, async (opened) => {
      await isWhole(t, opened, STRESS_CHARTS);
      const { page } = opened;
      t.true(await page.locator('#r0-sync canvas').isVisible(), 'SYNC percentiles');
      t.true(await page.locator('#r0-miss canvas').isVisible(), 'DMA miss percentiles');
      const lines = await page.locator('.topology path').count();
      t.is(lines, 16, 'a line to its owner and one to its SMMU for each of 8 devices');
      const background = await page.evaluate('getComputedStyle(document.body).backgroundColor');
      const [red] = /\d+/.exec(String(background))!;
      t.is(Number(red) < 64, 'dark' in look, String(background));
    });
    await withPage(saved(t, renderScaleHtml(scaleData())), look, (opened) => isWhole(t, opened, 3));
  });

browserTest('page: hostile names are shown, and do nothing', async (t) => {
  for (const [text, charts] of [
    [stressPage(hostile), STRESS_CHARTS],
    [renderScaleHtml(scaleData(hostile)), 3],
  ] as const)
    await withPage(saved(t, text), { width: 390 }, async (opened) => {
      await isWhole(t, opened, charts);
      t.is(await opened.page.evaluate('globalThis.harmed'), undefined);
      t.is(await opened.page.locator('img').count(), 0);
      t.true(
        (await opened.page.locator('main').textContent())!.includes('<script>globalThis.harmed=1</script>'),
      );
    });
});

browserTest(
  'page: a change of colours draws the charts again; keys hide a line; the cursor tells figures',
  async (t) => {
    await withPage(saved(t, stressPage(plain)), { width: 1280 }, async ({ page, problems }) => {
      const pixels = async () => ((await page.evaluate(COLOURED)) as number[])[0]!;
      await page.waitForTimeout(50);
      const all = await pixels();
      const key = page.locator('figure:has(#r0-throughput) .keys button').first();
      t.is(await key.getAttribute('aria-pressed'), 'true');
      await key.focus();
      await page.keyboard.press('Enter');
      t.is(await key.getAttribute('aria-pressed'), 'false');
      await page.waitForTimeout(50);
      t.true((await pixels()) < all);
      await page.emulateMedia({ colorScheme: 'dark' });
      await page.waitForTimeout(50);
      const dark = await pixels();
      t.true(dark > 200 && dark < all, 'drawn anew, the hidden line still hidden');
      await page.locator('#r0-throughput .u-over').hover({ position: { x: 300, y: 80 } });
      const tip = page.locator('#r0-throughput .tip');
      t.regex((await tip.textContent())!, /smmu3[\s\S]*\/s/);
      t.deepEqual(problems, []);
    });
  },
);

browserTest('page: error bars stay within their chart', async (t) => {
  const data = scaleData();
  const points = data.points.map((point) => ({
    ...point,
    repeats: point.repeats.map((repeat, i) => ({
      ...repeat,
      syncP50Us: repeat.syncP50Us * [0.001, 1, 900][i]!,
    })),
  }));
  await withPage(saved(t, renderScaleHtml({ ...data, points })), { width: 1280 }, async ({ page }) => {
    await page.waitForFunction(`document.documentElement.dataset.drawn === '3'`);
    await page.waitForTimeout(50);
    const coloured = (await page.evaluate(`(() => {
        const canvas = document.querySelector('#scale-p50 canvas');
        const over = document.querySelector('#scale-p50 .u-over');
        const bottom = Math.ceil((over.offsetTop + over.offsetHeight + 1) * devicePixelRatio);
        const { data } = canvas.getContext('2d').getImageData(0, bottom, canvas.width, canvas.height - bottom);
        let coloured = 0;
        for (let i = 0; i < data.length; i += 4)
          if (Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 60) coloured++;
        return coloured;
      })()`)) as number;
    t.true(
      coloured < 10,
      `${coloured} pixels over the names of the axis: more than the smoothing of their letters`,
    );
  });
});

browserTest('page: each chart has a name and its numbers as a table; contrast is enough', async (t) => {
  for (const dark of [false, true])
    await withPage(saved(t, stressPage(plain)), { width: 1280, dark }, async ({ page }) => {
      const plots = page.locator('.plot[role=img]');
      t.is(await plots.count(), STRESS_CHARTS);
      for (const plot of await plots.all()) t.true((await plot.getAttribute('aria-label'))!.length > 30);
      t.is(await page.locator('figure details table').count(), STRESS_CHARTS + 1, 'and the devices');
      t.is(await page.locator('h1').count(), 1);
      const poor = await page.evaluate(POOR_CONTRAST);
      t.deepEqual(poor, []);
    });
});

/** WCAG 2.2 1.4.3: text against what is behind it, 4.5 to 1; 1.4.11: lines of charts, 3 to 1. */
const POOR_CONTRAST = `(() => {
  const value = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const light = (hex) => {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [x, y] = [light(value(a)), light(value(b))].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const pairs = [['--text', '--card', 4.5], ['--text', '--bg', 4.5], ['--dim', '--card', 4.5], ['--dim', '--bg', 4.5],
    ['--ok', '--ok-bg', 4.5], ['--bad', '--bad-bg', 4.5], ['--warn', '--warn-bg', 4.5], ['--link', '--bg', 4.5],
    ...Array.from({ length: 8 }, (_, i) => ['--c' + i, '--card', 3])];
  return pairs.filter(([a, b, least]) => !(ratio(a, b) >= least)).map(([a, b]) => a + ' on ' + b + ' ' + ratio(a, b));
})()`;
