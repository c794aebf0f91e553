/** Figures as a person reads them: few digits, always a unit's worth of meaning. */

/** `1.24M`, `53.2k`, `9999`, `0`: whole below 10 000, then three digits and a suffix. */
export function compact(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (value >= 999_500_000) return `${(value / 1e9).toPrecision(3)}G`;
  if (value >= 999_500) return `${(value / 1e6).toPrecision(3)}M`;
  if (value >= 9_999.5) return `${(value / 1e3).toPrecision(3)}k`;
  return value.toFixed(0);
}

/** A latency in microseconds: `0.4`, `12.3`, `1240`. `-` when there was nothing to measure. */
export function micros(us: number, count: number): string {
  if (count === 0) return '-';
  return us >= 100 ? us.toFixed(0) : us >= 10 ? us.toFixed(1) : us.toFixed(2);
}

/** Hits in percent of all; `-` when there were none. 100 % only when nothing missed. */
export function hitRate(hits: number, all: number): string {
  if (all === 0) return '-';
  const percent = (100 * hits) / all;
  return percent > 99.9 && hits < all ? '>99.9%' : `${percent.toFixed(1)}%`;
}

/** `256 MiB`, `1.5 GiB`. */
export function bytes(value: number): string {
  const mib = value / 2 ** 20;
  return mib >= 1024 ? `${Number((mib / 1024).toFixed(2))} GiB` : `${Number(mib.toFixed(2))} MiB`;
}

/** `1 guest`, `2 guests`, `0 guests`. */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${compact(count)} ${count === 1 ? one : many}`;
}
