/**
 * One HTML file with everything in it: style, charting library, script and data. Its policy forbids every
 * connection, and names the scripts and styles that may act by their hashes, so that whatever else might get
 * into the page stays text.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { html, jsonBlock, Markup } from './html.js';
import type { ChartSpec } from './page-data.js';
import { PAGE_STYLE } from './page-style.js';

const uplotFolder = (): string => dirname(createRequire(import.meta.url).resolve('uplot'));

/** @param charts  each drawn in the element of its id, which a figure made by `chart()` contains */
export function renderPage(title: string, body: Markup, charts: readonly ChartSpec[]): string {
  const styles = [readFileSync(join(uplotFolder(), 'uPlot.min.css'), 'utf8').trim(), PAGE_STYLE];
  const library = inScript(readFileSync(join(uplotFolder(), 'uPlot.iife.min.js'), 'utf8'));
  const script = inScript(readFileSync(new URL('./page/charts.js', import.meta.url), 'utf8'));
  const policy = [
    "default-src 'none'",
    `script-src ${[library, script].map(hashOf).join(' ')}`,
    `style-src ${styles.map(hashOf).join(' ')}`,
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<link rel="icon" href="data:,">
${styles.map((style) => html`<style>${Markup.trusted(style)}</style>\n`)}</head>
<body>
${body}
<script type="application/json" id="charts">${jsonBlock(charts)}</script>
<script>${Markup.trusted(library)}</script>
<script type="module">${Markup.trusted(script)}</script>
</body>
</html>
`;
  return page.text;
}

/** A script as it can stand in a page. Ours and the library's have no such text, but a comment might one day. */
function inScript(text: string): string {
  return text.replace(/<\/(script)/gi, '<\\/$1').replace(/\n?\/\/# sourceMappingURL=.*\s*$/, '\n');
}

function hashOf(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
}
