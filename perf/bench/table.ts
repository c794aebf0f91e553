/** The figures as a table for people. */
import Table from 'cli-table3';
import { NO_FRAME } from '../report/layout.js';
import { digits, type Figure, type Goal, passed } from './figures.js';

const plain = { chars: NO_FRAME, style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] } };

export function benchTable(figures: readonly Figure[]): string {
  const table = new Table({
    ...plain,
    head: ['figure', 'median', 'quartiles', 'ratio', 'target', '', 'rounds'],
    colAligns: ['left', 'right', 'left', 'right', 'left', 'left', 'left'],
  });
  for (const figure of figures) {
    const { name, median, spread, unit } = figure;
    table.push([
      name,
      `${digits(median)} ${unit}`,
      `${digits(spread[0])} .. ${digits(spread[1])}`,
      ratioText(figure),
      figure.goal === undefined ? '' : goalText(figure.goal, unit),
      { true: 'pass', false: 'MISS', null: '' }[String(passed(figure)) as 'true' | 'false' | 'null'],
      roundsText(figure),
    ]);
  }
  return table.toString();
}

function roundsText({ n, dropped, disturbed }: Figure): string {
  if (disturbed > 0) return `${n} (disturbed)`;
  return dropped > 0 ? `${n} (${dropped} dropped)` : String(n);
}

function ratioText({ ratio, ratioSpread, noRatio }: Figure): string {
  if (ratio === null) return noRatio ?? '';
  if (ratioSpread === null) return ratio.toFixed(2);
  return `${ratio.toFixed(2)} (${ratioSpread[0].toFixed(2)} .. ${ratioSpread[1].toFixed(2)})`;
}

export function goalText(goal: Goal, unit: string): string {
  if (goal.kind === 'at-most') return `<= ${goal.value} ${unit}`;
  if (goal.kind === 'at-least') return `>= ${goal.value.toLocaleString('en')} ${unit}`;
  return `>= ${Number(goal.atLeast.toFixed(2))} x ${goal.of}`;
}
