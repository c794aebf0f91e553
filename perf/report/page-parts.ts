/** What report pages are made of: tiles, tables, figures with a chart and its numbers. */
import { html, type Insert, type Markup } from './html.js';
import type { ChartSpec, ChartUnit } from './page-data.js';
import { compact, micros } from './units.js';

export interface Tile {
  readonly name: string;
  readonly figure: string;
  readonly unit?: string;
  readonly more?: string;
}

export function tiles(list: readonly Tile[]): Markup {
  return html`<dl class="tiles">${list.map(
    ({ name, figure, unit, more }) =>
      html`<div class="tile"><dt>${name}</dt><dd>${figure}${unit === undefined ? null : html` <small>${unit}</small>`}</dd>${
        more === undefined ? null : html`<dd class="more">${more}</dd>`
      }</div>`,
  )}</dl>`;
}

/** The first column names the row. */
export function table(
  caption: string,
  head: readonly string[],
  rows: readonly (readonly Insert[])[],
): Markup {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${caption}"><table><caption>${caption}</caption>
<thead><tr>${head.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
<tbody>${rows.map(
    ([name, ...cells]) =>
      html`<tr><th scope="row">${name ?? ''}</th>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>\n`,
  )}</tbody></table></div>`;
}

/** Names and what they are, a row each. */
export function pairs(rows: readonly (readonly [name: string, value: Insert])[]): Markup {
  return html`<table class="pairs"><tbody>${rows.map(
    ([name, value]) => html`<tr><th scope="row">${name}</th><td>${value}</td></tr>\n`,
  )}</tbody></table>`;
}

/** Rows of the table below a chart: all where there are few, else evenly picked. */
const TABLE_ROWS = 40;

/** @param what  the chart in a sentence, for who does not see it */
export function chart(spec: ChartSpec, title: string, text: string, what: string, wide = false): Markup {
  const every = Math.max(1, Math.ceil(spec.xs.length / TABLE_ROWS));
  const rows = spec.xs
    .map((x, i) => [
      figureText(x, spec.xUnit),
      ...spec.series.map(({ ys }) => figureText(ys[i] ?? null, spec.yUnit)),
    ])
    .filter((_, i) => i % every === 0 || i === spec.xs.length - 1);
  return html`<figure class="card${wide ? ' wide' : ''}"><figcaption><h3>${title}</h3><p>${text}</p></figcaption>
<div class="plot" id="${spec.id}" role="img" aria-label="${`${title}. ${what}`}"></div>
<div class="keys" role="group" aria-label="${`Series of: ${title}`}"></div>
<details><summary>Numbers</summary>${table(
    every === 1 ? title : `${title} (every ${every}th point)`,
    [X_NAMES[spec.xUnit], ...spec.series.map(({ name }) => name)],
    rows,
  )}</details></figure>`;
}

const X_NAMES: Readonly<Record<ChartUnit, string>> = {
  seconds: 'at',
  percentile: 'percentile',
  count: 'SMMUs',
  us: 'latency',
  percent: 'share',
  'per-second': 'rate',
};

export function figureText(value: number | null, unit: ChartUnit): string {
  if (value === null) return '–';
  switch (unit) {
    case 'seconds':
      return `${value.toFixed(1)} s`;
    case 'per-second':
      return `${compact(value)}/s`;
    case 'percent':
      return `${value.toFixed(1)} %`;
    case 'us':
      return `${micros(value, 1)} µs`;
    case 'percentile':
      return `${Number((100 - 100 / value).toFixed(5))} %`;
    case 'count':
      return compact(value);
  }
}

/** Stacked bars, a row each, on one scale, with the key of their parts. */
export function bars(
  rows: readonly { readonly name: string; readonly parts: readonly number[]; readonly total: string }[],
  parts: readonly { readonly name: string; readonly color: number }[],
): Markup {
  const most = Math.max(1, ...rows.map(({ parts: list }) => list.reduce((sum, n) => sum + n, 0)));
  return html`<ul class="chips" aria-hidden="true">${parts.map(
    ({ name, color }) => html`<li><i class="mark box k${color}"></i> ${name}</li>`,
  )}</ul><div class="bars" aria-hidden="true">${rows.map(({ name, parts: list, total }) => {
    let at = 0;
    const boxes = list.map((n, i) => {
      const from = at;
      at += (1000 * n) / most;
      return html`<rect class="f${parts[i]!.color}" x="${from.toFixed(2)}" y="0" width="${(at - from).toFixed(2)}" height="10"></rect>`;
    });
    return html`<span>${name}</span><svg viewBox="0 0 1000 10" preserveAspectRatio="none">${boxes}</svg><span class="n">${total}</span>`;
  })}</div>`;
}
