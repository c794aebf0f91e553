/** The zoo as a table for people. */
import Table from 'cli-table3';
import type { ZooRow } from './run.js';

const ORIGIN_WIDTH = 44;

export function zooTable(rows: readonly ZooRow[]): string {
  const table = new Table({
    head: ['bug', 'origin', 'found by', 'schedules', 'seconds', 'invariant broken', 'replayed', 'off'],
    style: { head: [], border: [], compact: true },
    colAligns: ['left', 'left', 'left', 'right', 'right', 'left', 'right', 'left'],
    colWidths: [null, ORIGIN_WIDTH, null, null, null, null, null, null],
    wordWrap: true,
  });
  for (const row of rows)
    table.push([
      row.bug,
      row.origin,
      row.found ? row.by : 'not found',
      `${row.schedules} of ${row.budget}`,
      row.seconds.toFixed(2),
      row.invariant ?? '-',
      `${row.replayed}/${row.replays}`,
      row.clean ? 'clean' : 'NOT CLEAN',
    ]);
  return table.toString();
}
