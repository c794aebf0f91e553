/**
 * Two runs, row by row. Where both have a ratio, ratios are compared, because those hold on another machine or a
 * noisy one; else the medians, which is better saying their unit.
 */
import type { BenchResult, Row } from './row.js';

export interface Change {
  readonly name: string;
  /** What was compared. */
  readonly of: 'ratio' | 'median';
  readonly before: number;
  readonly now: number;
  /** How much worse, percent of before; negative is better. */
  readonly worsePercent: number;
}

export interface Comparison {
  /** Worse by more than the tolerance. */
  readonly worse: readonly Change[];
  readonly kept: readonly Change[];
  /** Rows of the baseline that this run should have, and has not. */
  readonly missing: readonly string[];
  /** Rows that the baseline does not have. */
  readonly added: readonly string[];
}

const MORE_IS_BETTER: ReadonlySet<Row['unit']> = new Set(['M/s', '1/s']);

/**
 * @param tolerancePercent  how much worse a row may be
 * @param expected  whether this run was to have a row of that name
 */
export function compareResults(
  before: BenchResult,
  now: BenchResult,
  tolerancePercent: number,
  expected: (name: string) => boolean = () => true,
): Comparison {
  const known = new Map(before.rows.map((row) => [row.name, row]));
  const names = new Set(now.rows.map(({ name }) => name));
  const changes = now.rows.flatMap((row) => {
    const old = known.get(row.name);
    return old === undefined ? [] : [changeOf(old, row)];
  });
  return {
    worse: changes.filter(({ worsePercent }) => worsePercent > tolerancePercent),
    kept: changes.filter(({ worsePercent }) => worsePercent <= tolerancePercent),
    missing: [...known.keys()].filter((name) => !names.has(name) && expected(name)),
    added: [...names].filter((name) => !known.has(name)),
  };
}

function changeOf(old: Row, row: Row): Change {
  const { name, unit } = row;
  if (old.ratio !== null && row.ratio !== null)
    return {
      name,
      of: 'ratio',
      before: old.ratio,
      now: row.ratio,
      worsePercent: (1 - row.ratio / old.ratio) * 100,
    };
  const sign = MORE_IS_BETTER.has(unit) ? -1 : 1;
  const worsePercent = sign * (row.median / old.median - 1) * 100;
  return { name, of: 'median', before: old.median, now: row.median, worsePercent };
}
