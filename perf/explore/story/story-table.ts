/** A story as a table: one column a thread, time downwards. */
import Table from 'cli-table3';
import { plural } from '../../report/units.js';
import type { Story, StoryAccess, StoryRow } from './story.js';

const STEP_COLUMN = 9;
const MIN_COLUMN = 16;
const MAX_COLUMN = 48;
/** Accesses told of one row; those in the middle of more are counted. */
const MAX_ACCESSES = 12;

/** How a story is printed. */
export interface TableOptions {
  /** Of the terminal. Default 100. */
  readonly columns?: number;
  /** The last so many. Default: all. */
  readonly rows?: number;
}

/** Without threads that took no step, and without colours. */
export function renderStory(story: Story, options: TableOptions = {}): string {
  const { columns = 100, rows = story.rows.length } = options;
  const threads = story.threads.filter((name) => story.rows.some(({ thread }) => thread === name));
  const width = columnWidth(threads.length, columns);
  const table = new Table({
    head: ['step', ...threads],
    colWidths: [STEP_COLUMN, ...threads.map(() => width)],
    style: { head: [], border: [], compact: true, 'padding-left': 1, 'padding-right': 1 },
  });
  const told = rows === 0 ? [] : story.rows.slice(-rows);
  for (const row of told)
    table.push([
      row.first === row.last ? String(row.first) : `${row.first}-${row.last}`,
      ...threads.map((name) => (name === row.thread ? cell(row, width - 2) : '')),
    ]);
  const left = story.rows.length - told.length;
  const lines = [table.toString()];
  if (left > 0) lines.unshift(`... ${plural(left, 'row')} before these (--rows)`);
  if (story.violation !== null) {
    const { invariant, thread, detail } = story.violation;
    lines.push(`${invariant}${thread === '' ? '' : `, in ${thread}`}: ${detail}`);
  }
  return lines.join('\n');
}

/** As wide as the terminal allows, borders counted. */
function columnWidth(threads: number, columns: number): number {
  const width = Math.floor((columns - STEP_COLUMN - 2 - threads) / Math.max(1, threads));
  return Math.max(MIN_COLUMN, Math.min(MAX_COLUMN, width));
}

function cell({ function: name = '', accesses, note }: StoryRow, width: number): string {
  if (note !== undefined) return wrapped(`# ${note}`, width);
  return [wrapped(name, width), ...folded(accesses).map((text) => wrapped(`  ${text}`, width))].join('\n');
}

/** Goes on in the next line, further in; cli-table3 would drop what a line begins with. */
function wrapped(text: string, width: number): string {
  const indent = `${/^ */.exec(text)![0]}  `;
  const lines: string[] = [];
  for (let rest = text; ; ) {
    if (rest.length <= width) return [...lines, rest].join('\n');
    const space = rest.lastIndexOf(' ', width);
    const cut = space > indent.length ? space : width;
    lines.push(rest.slice(0, cut));
    rest = indent + rest.slice(cut).trimStart();
  }
}

/** The same again is counted, and the middle of very many left out. */
function folded(accesses: readonly StoryAccess[]): string[] {
  const texts: { text: string; times: number }[] = [];
  for (const { text } of accesses) {
    const last = texts.at(-1);
    if (last?.text === text) last.times++;
    else texts.push({ text, times: 1 });
  }
  const lines = texts.map(({ text, times }) => (times === 1 ? text : `${text} (x${times})`));
  if (lines.length <= MAX_ACCESSES) return lines;
  const half = MAX_ACCESSES / 2;
  return [...lines.slice(0, half), `... ${lines.length - 2 * half} more`, ...lines.slice(-half)];
}
