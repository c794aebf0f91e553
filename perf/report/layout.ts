/** Text that fits a terminal: tables that give up their frame before they wrap, lines folded between words. */
import { stripVTControlCharacters } from 'node:util';
import Table from 'cli-table3';

/** Columns of a terminal, and of what is no terminal but may be read on one. */
export const DEFAULT_COLUMNS = 80;

/** A heading, and a shorter one for where there is no room. */
export type Heading = string | readonly [long: string, short: string];

/** Characters of a table without lines. */
export const NO_FRAME = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
};

/**
 * A name, then figures, a row each. Framed where it fits; else without the frame, and if need be with the short
 * headings.
 */
export function figureTable(
  headings: readonly Heading[],
  rows: readonly (readonly string[])[],
  columns: number,
): string {
  const long = headings.map((heading) => (typeof heading === 'string' ? heading : heading[0]));
  const short = headings.map((heading) => (typeof heading === 'string' ? heading : heading[1]));
  const framed = render(long, rows, true);
  if (width(framed) <= columns) return framed;
  const plain = render(long, rows, false);
  return width(plain) <= columns ? plain : render(short, rows, false);
}

function render(head: string[], rows: readonly (readonly string[])[], framed: boolean): string {
  const style = { head: [], border: [], compact: true };
  const table = new Table({
    head,
    colAligns: head.map((_, index) => (index === 0 ? 'left' : 'right')),
    ...(framed ? { style } : { chars: NO_FRAME, style: { ...style, 'padding-left': 0, 'padding-right': 0 } }),
  });
  table.push(...rows.map((row) => [...row]));
  return table.toString();
}

function width(text: string): number {
  return Math.max(...text.split('\n').map((line) => stripVTControlCharacters(line).length));
}

/**
 * Breaks a line between words, the rest indented.
 * @param columns  undefined for what is no terminal: one fact stays one line there, for grep
 */
export function fold(line: string, columns: number | undefined, indent = '    '): string {
  if (columns === undefined || width(line) <= columns) return line;
  // What a line is indented by belongs to its first word.
  const [first, ...words] = line.match(/^\s*\S+|\S+/g) ?? [''];
  const lines = [first];
  for (const word of words) {
    const longer = `${lines.at(-1)} ${word}`;
    if (width(longer) <= columns) lines[lines.length - 1] = longer;
    else lines.push(indent + word);
  }
  return lines.join('\n');
}
