/** `iommufd bench`: single operations, with their targets; and two runs compared. */
import { readFileSync } from 'node:fs';
import { type Command, InvalidArgumentError } from 'commander';
import { compareResults } from '../../perf/bench/compare.js';
import { digits, passed } from '../../perf/bench/figures.js';
import { type BenchResult, parseResult } from '../../perf/bench/row.js';
import { EXIT_CLEAN, EXIT_FOUND, EXIT_USAGE, type Output, type Surroundings } from '../surroundings.js';

interface Flags {
  readonly json?: boolean;
  readonly quick?: boolean;
  readonly filter: string;
  readonly baseline?: string;
  readonly tolerance: number;
}

const TOLERANCE_PERCENT = 25;

export function addBench(program: Command, around: Surroundings, done: (code: number) => void): void {
  program
    .command('bench')
    .description('measure one operation at a time, beside the same work in C when there is a compiler')
    .option('--json', 'one JSON object on stdout: rows, node, cores')
    .option('--quick', 'few and short rounds: for a look, not for a record')
    .option('--filter <text>', 'only rows whose name has this', '')
    .option('--baseline <file>', 'compare with what --json gave before; exit 1 when a row is worse')
    .option(
      '--tolerance <pct>',
      'how much worse than the baseline a row may be, percent',
      percent,
      TOLERANCE_PERCENT,
    )
    .addHelpText(
      'after',
      '\nA ratio is good from its target on, and more is better. Ctrl-C ends after the round under way.' +
        '\nExit codes: 0 measured, 1 worse than the baseline, 2 wrong usage.',
    )
    .action(async (flags: Flags) => done(await bench(flags, around)));
}

function percent(value: string): number {
  if (!/^\d+(\.\d+)?$/.test(value)) throw new InvalidArgumentError('must be a number of percent, 0 or more.');
  return Number(value);
}

async function bench(flags: Flags, around: Surroundings): Promise<number> {
  const { stdout, stderr, signal } = around;
  const before = flags.baseline === undefined ? null : readBaseline(flags.baseline);
  if (typeof before === 'string') {
    stderr.write(`iommufd bench: --baseline: ${before}\n`);
    return EXIT_USAGE;
  }
  // Late: it pulls in everything, and what is wrong with the options should be said at once.
  const { matches, runBench, SECTIONS } = await import('../../perf/bench/run.js');
  const { benchTable } = await import('../../perf/bench/table.js');
  const wanted = (name: string): boolean => matches(name, flags.filter);
  if (!SECTIONS.some(({ rows }) => rows.some(wanted))) {
    stderr.write(`iommufd bench: --filter: no row has '${flags.filter}' in its name\n`);
    return EXIT_USAGE;
  }
  const { figures, result, noC } = await runBench(
    { quick: flags.quick === true, filter: flags.filter },
    (text) => stderr.write(`${text} ...\n`),
    signal,
  );
  if (flags.json) stdout.write(`${JSON.stringify(result)}\n`);
  else {
    const missed = figures.filter((figure) => passed(figure) === false).length;
    stdout.write(`${benchTable(figures)}\n\nNode ${result.node}, ${result.cores} cores`);
    stdout.write(noC === null ? '' : `; nothing is compared with C: ${noC}`);
    stdout.write(`; ${missed === 0 ? 'every target was reached' : `targets missed: ${missed}`}\n`);
  }
  if (before === null) return EXIT_CLEAN;
  return judge(before, result, flags, (name) => !signal.aborted && wanted(name), stderr);
}

function readBaseline(file: string): BenchResult | string {
  try {
    const result = parseResult(readFileSync(file, 'utf8'));
    return typeof result === 'string' ? `${file}: ${result}` : result;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Tells what became worse, on stderr: stdout is the run's. */
export function judge(
  before: BenchResult,
  now: BenchResult,
  { baseline, tolerance }: Pick<Flags, 'baseline' | 'tolerance'>,
  expected: (name: string) => boolean,
  stderr: Output,
): number {
  const { worse, kept, missing, added } = compareResults(before, now, tolerance, expected);
  if (before.node !== now.node || before.cores !== now.cores)
    stderr.write(
      `note: ${baseline} is of Node ${before.node} on ${before.cores} cores, ` +
        `this is Node ${now.node} on ${now.cores}\n`,
    );
  for (const name of missing) stderr.write(`missing: ${name}\n`);
  for (const name of added) stderr.write(`new: ${name}\n`);
  for (const { name, of, before: was, now: is, worsePercent } of worse)
    stderr.write(`worse by ${worsePercent.toFixed(0)} %: ${name}: ${of} ${digits(was)} -> ${digits(is)}\n`);
  stderr.write(
    `${kept.length} rows within ${tolerance} % of ${baseline}, ${worse.length} worse, ${missing.length} missing\n`,
  );
  return worse.length + missing.length > 0 ? EXIT_FOUND : EXIT_CLEAN;
}
