/**
 * The script of a report page: draws the charts that the page carries as data, with uPlot, which stands in the
 * page before it. One file without imports at run time, for it is inlined as it is compiled.
 *
 * Drawn anew when the width or the colour scheme changes. What a chart shows is in a table below it as well.
 */
import type UPlot from 'uplot';
import type { ChartSeries, ChartSpec, ChartUnit } from '../page-data.js';

declare const uPlot: typeof UPlot;

const HEIGHT = 260;
const PHONE_PX = 560;
const DIM_ALPHA = 0.18;
const colour = (name: string): string =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** `1.2M`, `53k`, `0.25`. */
function short(value: number): string {
  const size = Math.abs(value);
  for (const [limit, suffix] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const)
    if (size >= limit) return `${Number((value / limit).toPrecision(3))}${suffix}`;
  return String(Number(value.toPrecision(3)));
}

function time(us: number): string {
  if (us >= 1e6) return `${Number((us / 1e6).toPrecision(3))} s`;
  if (us >= 1e3) return `${Number((us / 1e3).toPrecision(3))} ms`;
  if (us >= 1 || us === 0) return `${Number(us.toPrecision(3))} µs`;
  return `${Number((us * 1e3).toPrecision(3))} ns`;
}

/** The percentile axis counts in 1 / (1 - p): 10 is 90 %, 1000 is 99.9 %. */
function percentile(x: number): string {
  const nines = Math.max(0, Math.ceil(Math.log10(x) - 2 + 1e-9));
  return `${Number((100 - 100 / x).toFixed(Math.min(nines, 8)))}%`;
}

function told(value: number | null | undefined, unit: ChartUnit): string {
  if (value === null || value === undefined) return '–';
  switch (unit) {
    case 'seconds':
      return `${Number(value.toFixed(1))} s`;
    case 'per-second':
      return `${short(value)}/s`;
    case 'percent':
      return `${Number(value.toFixed(value > 99 ? 2 : 1))}%`;
    case 'us':
      return time(value);
    case 'percentile':
      return percentile(value);
    case 'count':
      return short(value);
  }
}

/** Powers of the base between two values, inclusive; 50 % for percentiles; 2 and 5 where decades are few. */
function splitsOf(base: 2 | 10, unit: ChartUnit, min: number, max: number): number[] {
  const splits: number[] = [];
  const between = base === 10 && unit !== 'percentile' && max / min <= 200 ? [1, 2, 5] : [1];
  for (let power = base ** Math.floor(Math.log(min) / Math.log(base)); power <= max * 1.0001; power *= base) {
    for (const step of between)
      if (power * step >= min * 0.9999 && power * step <= max * 1.0001) splits.push(power * step);
    if (unit === 'percentile' && Math.abs(power - 1) < 1e-9) splits.push(2);
  }
  return splits;
}

/** Down or up to 1, 2 or 5 times a power of ten. */
function snapped(value: number, up: boolean): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const steps = [1, 2, 5, 10].map((step) => step * power);
  return up
    ? steps.find((step) => step >= value * 0.9999)!
    : steps.findLast((step) => step <= value * 1.0001)!;
}

function logRange(min: number | null, max: number | null): [number, number] {
  if (min === null || max === null || !(min > 0)) return [1, 10];
  const low = snapped(min, false);
  const high = snapped(max, true);
  return [low, high > low ? high : low * 10];
}

function axis(
  unit: ChartUnit,
  log: 2 | 10 | undefined,
  side: number,
  xs: readonly number[] | null,
): UPlot.Axis {
  const grid = { stroke: colour('--grid'), width: 1 };
  const base: UPlot.Axis = {
    stroke: colour('--dim'),
    grid,
    ticks: { stroke: colour('--grid'), width: 1, size: 4 },
    font: '12px system-ui, sans-serif',
    side,
    size: side === 3 ? 64 : 30,
    values: (u, splits) =>
      // On a phone there is no room for 0 % beside 50 %.
      splits.map((value) =>
        unit === 'percentile' && value === 1 && u.width < PHONE_PX ? '' : told(value, unit),
      ),
  };
  if (log === undefined) return base;
  return {
    ...base,
    // Few points, each a power of the base: they are the ticks.
    splits: (_u, _i, min, max) =>
      xs !== null && xs.length <= 10 && unit === 'count'
        ? xs.filter((x) => x >= min && x <= max)
        : splitsOf(log, unit, min, max),
    filter: (_, splits) => splits,
  };
}

function errorBars(spec: ChartSpec): (u: UPlot) => void {
  return (u) => {
    const { ctx } = u;
    ctx.save();
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash([]);
    for (const [index, { low, high, color }] of spec.series.entries()) {
      if (low === undefined || high === undefined || u.series[index + 1]!.show === false) continue;
      ctx.strokeStyle = colour(`--c${color}`);
      const cap = 4 * devicePixelRatio;
      for (const [i, x] of spec.xs.entries()) {
        const from = low[i];
        const to = high[i];
        if (from === null || from === undefined || to === null || to === undefined) continue;
        const at = u.valToPos(x, 'x', true);
        const top = u.valToPos(to, 'y', true);
        const bottom = u.valToPos(from, 'y', true);
        ctx.beginPath();
        ctx.moveTo(at - cap, top);
        ctx.lineTo(at + cap, top);
        ctx.moveTo(at, top);
        ctx.lineTo(at, bottom);
        ctx.moveTo(at - cap, bottom);
        ctx.lineTo(at + cap, bottom);
        ctx.stroke();
      }
    }
    ctx.restore();
  };
}

/** A range of the series, widened to what their error bars take. */
function withBars(spec: ChartSpec, min: number | null, max: number | null): [number | null, number | null] {
  const ends = spec.series
    .flatMap(({ low = [], high = [] }) => [...low, ...high])
    .filter((end): end is number => end !== null && end > 0);
  if (min === null || max === null) return [min, max];
  return [Math.min(min, ...ends), Math.max(max, ...ends)];
}

/** What is under the cursor: x, then each series that is shown, the largest first. */
function tooltip(spec: ChartSpec, host: HTMLElement): UPlot.Plugin {
  const box = document.createElement('div');
  box.className = 'tip';
  box.hidden = true;
  const fill = (u: UPlot): void => {
    const { idx, left, top } = u.cursor;
    if (idx === null || idx === undefined || left === undefined || left < 0 || top === undefined) {
      box.hidden = true;
      return;
    }
    const rows = spec.series
      .map((series, i) => ({ series, value: u.data[i + 1]![idx], shown: u.series[i + 1]!.show !== false }))
      .filter(({ value, shown }) => shown && value !== null && value !== undefined)
      .sort((a, b) => b.value! - a.value!)
      .slice(0, 12);
    box.replaceChildren();
    const head = document.createElement('b');
    head.textContent = told(spec.xs[idx], spec.xUnit);
    box.append(head);
    for (const { series, value } of rows) {
      const row = document.createElement('span');
      const mark = document.createElement('i');
      mark.className = `mark k${series.color}`;
      row.append(mark, ` ${series.name} `);
      const figure = document.createElement('em');
      figure.textContent = told(value, spec.yUnit);
      row.append(figure);
      box.append(row);
    }
    box.hidden = rows.length === 0;
    const right = left > u.over.clientWidth / 2;
    box.style.left = `${u.over.offsetLeft + left + (right ? -14 - box.offsetWidth : 14)}px`;
    box.style.top = `${u.over.offsetTop + 6}px`;
  };
  return {
    hooks: {
      init: (u) => {
        host.append(box);
        u.over.addEventListener('mouseleave', () => {
          box.hidden = true;
        });
      },
      setCursor: fill,
      destroy: () => box.remove(),
    },
  };
}

function seriesOf(series: ChartSeries): UPlot.Series {
  return {
    label: series.name,
    stroke: colour(`--c${series.color}`),
    width: 2,
    spanGaps: true,
    ...(series.dash ? { dash: [6, 5] } : {}),
    points: { show: series.points === true, size: 7, fill: colour(`--c${series.color}`) },
  };
}

function optionsOf(spec: ChartSpec, host: HTMLElement, width: number): UPlot.Options {
  const { xLog, yLog, yMin, yMax } = spec;
  const first = spec.xs[0] ?? 0;
  const last = spec.xs.at(-1) ?? 1;
  const spread: [number, number] =
    xLog === 2
      ? [first / 1.2, last * 1.2]
      : xLog === undefined && last === first
        ? [first - 1, last + 1]
        : spec.xUnit === 'seconds'
          ? [0, last]
          : [first, last];
  return {
    width,
    height: HEIGHT,
    padding: [12, spec.xUnit === 'percentile' ? 30 : 22, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: spec.group, setSeries: false },
      points: { size: 7 },
      drag: { x: xLog === undefined, y: false },
      y: false,
    },
    focus: { alpha: DIM_ALPHA },
    scales: {
      x: {
        time: false,
        ...(xLog === undefined ? {} : { distr: 3, log: xLog === 2 ? 2 : 10 }),
        range: (_, min, max) => (min === first && max === last ? spread : [min, max]),
      },
      y:
        yLog === undefined
          ? {
              range: (_, min, max) => {
                const top = yMax ?? ((max ?? 1) * 1.08 || 1);
                return [Math.min(yMin ?? 0, min ?? 0), top];
              },
            }
          : { distr: 3, log: yLog, range: (_, min, max) => logRange(...withBars(spec, min, max)) },
    },
    axes: [axis(spec.xUnit, xLog, 2, spec.xs), axis(spec.yUnit, yLog, 3, null)],
    series: [{}, ...spec.series.map(seriesOf)],
    hooks: { draw: [errorBars(spec)] },
    plugins: [tooltip(spec, host)],
  };
}

/** A button for each series: pressed is shown. */
function keys(spec: ChartSpec, list: HTMLElement, hidden: Set<number>, plot: () => UPlot | null): void {
  list.replaceChildren();
  if (spec.series.length < 2) return;
  for (const [index, series] of spec.series.entries()) {
    const key = document.createElement('button');
    key.type = 'button';
    const mark = document.createElement('i');
    mark.className = `mark k${series.color}${series.dash ? ' dashed' : ''}`;
    key.append(mark, ` ${series.name}`);
    key.setAttribute('aria-pressed', String(!hidden.has(index)));
    key.addEventListener('click', () => {
      const show = hidden.delete(index);
      if (!show) hidden.add(index);
      key.setAttribute('aria-pressed', String(show));
      plot()?.setSeries(index + 1, { show });
    });
    const focus = (on: boolean) => () => plot()?.setSeries(on ? index + 1 : null, { focus: on });
    key.addEventListener('mouseenter', focus(true));
    key.addEventListener('mouseleave', focus(false));
    list.append(key);
  }
}

function draw(spec: ChartSpec): () => void {
  const host = document.getElementById(spec.id);
  const figure = host?.closest('figure');
  if (!host || !figure) return () => undefined;
  const hidden = new Set<number>();
  const data = [spec.xs, ...spec.series.map(({ ys }) => ys)] as unknown as UPlot.AlignedData;
  let plot: UPlot | null = null;
  const make = (): void => {
    plot?.destroy();
    plot = new uPlot(optionsOf(spec, host, Math.max(host.clientWidth, 160)), data, host);
    for (const index of hidden) plot.setSeries(index + 1, { show: false });
  };
  make();
  keys(spec, figure.querySelector<HTMLElement>('.keys')!, hidden, () => plot);
  let width = host.clientWidth;
  new ResizeObserver(() => {
    if (host.clientWidth === width || host.clientWidth === 0) return;
    width = host.clientWidth;
    plot?.setSize({ width, height: width < PHONE_PX ? HEIGHT - 30 : HEIGHT });
  }).observe(host);
  return make;
}

const specs = JSON.parse(document.getElementById('charts')!.textContent!) as ChartSpec[];
const redraw = specs.map(draw);
for (const query of ['(prefers-color-scheme: dark)', 'print'])
  matchMedia(query).addEventListener('change', () => {
    for (const again of redraw) again();
  });
document.documentElement.dataset.drawn = String(specs.length);
