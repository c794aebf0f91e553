/**
 * What the proofs find, as tables for this folder's README: `node dist/test/proofs/tables.js` prints them. Each is
 * worked out anew.
 */
import { pathToFileURL } from 'node:url';
import { CD_KINDS, STE_KINDS } from './entry-kinds.js';
import { KUNIT_CASES } from './kunit-cases.js';
import type { Image } from './ste-behaviour.js';
import { type EntryKind, judge, type Verdict } from './transition.js';

type Align = 'left' | 'right';

function markdown(
  head: readonly string[],
  align: readonly Align[],
  rows: readonly (readonly string[])[],
): string {
  const widths = head.map((cell, i) => Math.max(3, cell.length, ...rows.map((row) => row[i]!.length)));
  const pad = (cell: string, i: number): string =>
    align[i] === 'left' ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!);
  const line = (cells: readonly string[]): string => `| ${cells.map(pad).join(' | ')} |`;
  const rule = widths.map((width, i) =>
    align[i] === 'left' ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`,
  );
  return [line(head), line(rule), ...rows.map(line)].join('\n');
}

const count = (value: number | bigint): string => value.toLocaleString('en').replaceAll(',', ' ');

/** A row for each of Linux's transitions. */
export function kunitTable(): string {
  const rows = KUNIT_CASES.flatMap(({ name, transitions }) =>
    transitions.map(({ kind, from, to }, i) => {
      const verdict = judge(kind, from, to);
      const { old, fresh, invalid, relaxed, mixtures } = verdict;
      return [
        transitions.length === 1 ? name : `${name} ${i === 0 ? '(there)' : '(back)'}`,
        verdict.steps,
        String(verdict.syncs),
        verdict.zeroed ? 'no' : 'yes',
        count(verdict.interleavings),
        ...[verdict.images, old, fresh, invalid, mixtures.length, relaxed].map(String),
      ];
    }),
  );
  return markdown(
    [
      'case',
      'words; sync',
      'syncs',
      'hitless',
      'interleavings',
      'images',
      'old',
      'new',
      'V=0',
      'mixed',
      'EATS, MEV',
    ],
    ['left', 'left', ...new Array<Align>(9).fill('right')],
    rows,
  );
}

export interface PairTotals {
  readonly pairs: number;
  readonly hitless: number;
  readonly images: number;
  readonly interleavings: bigint;
  readonly mixtures: number;
}

/** Syncs of each ordered pair; `!` where V = 0 is seen in between. */
function pairs(
  kind: EntryKind,
  kinds: Readonly<Record<string, Image>>,
): { text: string; totals: PairTotals } {
  const entries = Object.entries(kinds);
  const verdicts: Verdict[] = [];
  const rows = entries.map(([name, from], i) => [
    `${i + 1} ${name}`,
    ...entries.map(([, to]) => {
      if (to === from) return '';
      const verdict = judge(kind, from, to);
      verdicts.push(verdict);
      return `${verdict.syncs}${verdict.invalid > 0 ? '!' : ''}`;
    }),
  ]);
  const head = [`from \\ to`, ...entries.map((_, i) => String(i + 1))];
  const sum = (of: (verdict: Verdict) => number): number =>
    verdicts.reduce((all, verdict) => all + of(verdict), 0);
  return {
    text: markdown(head, ['left', ...new Array<Align>(entries.length).fill('right')], rows),
    totals: {
      pairs: verdicts.length,
      hitless: sum(({ invalid }) => (invalid === 0 ? 1 : 0)),
      images: sum(({ images }) => images),
      interleavings: verdicts.reduce((all, { interleavings }) => all + interleavings, 0n),
      mixtures: sum(({ mixtures }) => mixtures.length),
    },
  };
}

export const stePairs = () => pairs('ste', STE_KINDS);
export const cdPairs = () => pairs('cd', CD_KINDS);

export function totalsLine({ pairs: all, hitless, images, interleavings, mixtures }: PairTotals): string {
  return `${all} pairs, ${hitless} hitless, ${images} images in ${count(interleavings)} interleavings, ${mixtures} mixtures`;
}

/** By name, as the README marks them. */
export function tables(): Readonly<Record<string, string>> {
  const [stes, cds] = [stePairs(), cdPairs()];
  return {
    kunit: kunitTable(),
    'ste pairs': `${stes.text}\n\n${totalsLine(stes.totals)}.`,
    'cd pairs': `${cds.text}\n\n${totalsLine(cds.totals)}.`,
  };
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href)
  for (const [name, text] of Object.entries(tables())) console.log(`## ${name}\n\n${text}\n`);
