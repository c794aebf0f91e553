/** The zoo as a table for people, in as much detail as the terminal is wide. */
import Table from 'cli-table3';
import type { ZooRow } from './run.js';

const MOST_ORIGIN = 44;
const LEAST_ORIGIN = 20;

interface Column {
  readonly head: string;
  readonly right?: boolean;
  /** Where it has one of its own, its text goes on in the next line. */
  readonly width?: number;
  readonly cell: (row: ZooRow) => string;
}

const bug: Column = { head: 'bug', cell: (row) => row.bug };
const origin: Column = { head: 'origin', cell: (row) => row.origin };
const by: Column = {
  head: 'found by',
  cell: (row) => (row.found ? row.by.replace(/^explore \((.*)\)$/, '$1') : 'not found'),
};
const budget: Column = { head: 'schedules', right: true, cell: (row) => `${row.schedules} of ${row.budget}` };
const schedule: Column = {
  head: 'schedule',
  right: true,
  cell: (row) => (row.found ? String(row.schedules) : 'not found'),
};
const seconds: Column = { head: 'seconds', right: true, cell: (row) => row.seconds.toFixed(2) };
const broken: Column = { head: 'broken', cell: (row) => row.invariant ?? '-' };
const replayed: Column = {
  head: 'replayed',
  right: true,
  cell: (row) => `${row.replayed}/${row.replays}`,
};
const off: Column = { head: 'off', cell: (row) => (row.clean ? 'clean' : 'NOT CLEAN') };

/** @param columns  of the terminal, if it is one */
export function zooTable(rows: readonly ZooRow[], columns = Number.POSITIVE_INFINITY): string {
  const full = [bug, by, budget, seconds, broken, replayed, off];
  const room = Math.min(MOST_ORIGIN, columns - widthOf(full, rows) - 1);
  if (room >= LEAST_ORIGIN) return render([bug, { ...origin, width: room }, ...full.slice(1)], rows);
  if (room >= -1) return render(full, rows);
  const narrow = [bug, schedule, broken, replayed, off];
  const excess = Math.max(0, widthOf(narrow, rows) - columns);
  return render([{ ...bug, width: columnWidth(bug, rows) - excess }, ...narrow.slice(1)], rows);
}

function render(columns: readonly Column[], rows: readonly ZooRow[]): string {
  const table = new Table({
    head: columns.map(({ head }) => head),
    style: { head: [], border: [], compact: true },
    colAligns: columns.map(({ right }) => (right === true ? 'right' : 'left')),
    colWidths: columns.map((column) => Math.max(4, column.width ?? columnWidth(column, rows))),
    wordWrap: true,
    // Names have none, and may have to be broken anywhere.
    wrapOnWordBoundary: columns[0]!.width === undefined,
  });
  for (const row of rows) table.push(columns.map(({ cell }) => cell(row)));
  return table.toString();
}

/** With a space on either side. */
const columnWidth = ({ head, cell }: Column, rows: readonly ZooRow[]): number =>
  Math.max(head.length, ...rows.map((row) => cell(row).length)) + 2;

/** With the lines between. */
const widthOf = (columns: readonly Column[], rows: readonly ZooRow[]): number =>
  columns.reduce((sum, column) => sum + columnWidth(column, rows) + 1, 1);
