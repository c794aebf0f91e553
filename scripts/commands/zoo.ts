/** `iommufd zoo`: every known bug is put back, found, replayed, and found absent when it is off. */
import { availableParallelism } from 'node:os';
import { type Command, InvalidArgumentError } from 'commander';
import { BUG_NAMES, BUGS, type BugName } from '../../hw/bugs/bug-switches.js';
import { inWords } from '../../perf/explore/invariants.js';
import { EXIT_CLEAN, EXIT_FOUND, EXIT_USAGE, type Surroundings } from '../surroundings.js';

interface Flags {
  readonly json?: boolean;
  readonly list?: boolean;
  readonly seed: number;
  readonly replays: number;
}

const REPLAYS = 100;

export function addZoo(program: Command, around: Surroundings, done: (code: number) => void): void {
  program
    .command('zoo')
    .description('put known bugs back, one at a time, and prove that each is found, and only then')
    .argument('[bugs...]', 'only these; all of them when left out')
    .option('--list', 'the bugs and where they come from; runs nothing')
    .option('--seed <n>', 'of the schedules', whole('a seed', 0), 1)
    .option('--replays <n>', 'how often each find is replayed', whole('a number', 1), REPLAYS)
    .option('--json', 'one JSON object a line, one line a bug')
    .addHelpText(
      'after',
      '\nA bug is a switch in the code where it once happened, off by default. It is found by exploring schedules of' +
        '\nthe real code within its budget; the schedule is replayed; without the bug, the same budget has to be clean.' +
        '\nExit codes: 0 all found and clean, 1 one was not, 2 wrong usage.',
    )
    .action(async (bugs: string[], flags: Flags) => done(await zoo(bugs, flags, around)));
}

function whole(what: string, least: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (!/^\d+$/.test(value) || number < least || number > 0x7fff_ffff)
      throw new InvalidArgumentError(`must be ${what}, ${least} to 2147483647.`);
    return number;
  };
}

async function zoo(names: readonly string[], flags: Flags, around: Surroundings): Promise<number> {
  const { stdout, stderr, signal } = around;
  for (const name of names)
    if (!BUG_NAMES.includes(name as BugName)) {
      stderr.write(`iommufd zoo: there is no bug '${name}' (iommufd zoo --list)\n`);
      return EXIT_USAGE;
    }
  const bugs = names.length === 0 ? BUG_NAMES : (names as BugName[]);
  if (flags.list) {
    for (const bug of bugs) {
      const { where, origin, invariant } = BUGS[bug];
      stdout.write(
        flags.json
          ? `${JSON.stringify({ bug, origin, where, invariant })}\n`
          : `${bug}\n    ${origin}\n    in ${where}; breaks ${inWords(invariant)}\n`,
      );
    }
    return EXIT_CLEAN;
  }
  const { runZoo } = await import('../../perf/zoo/run.js');
  const { zooTable } = await import('../../perf/zoo/table.js');
  const startedMs = performance.now();
  const rows = await runZoo({
    bugs,
    seed: flags.seed,
    replays: flags.replays,
    cpus: Array.from({ length: availableParallelism() }, (_, cpu) => cpu),
    signal,
    onRow: (row) => {
      if (flags.json) stdout.write(`${JSON.stringify(row)}\n`);
      else if (stderr.isTTY === true || row.problem !== null)
        stderr.write(`${row.bug}: ${row.problem ?? `${row.invariant}, schedule ${row.schedules}`}\n`);
    },
  });
  const missing = bugs.filter((bug) => !rows.some((row) => row.bug === bug));
  const bad = rows.filter(({ problem }) => problem !== null);
  if (!flags.json) {
    stdout.write(`${zooTable(rows, stdout.columns)}\n`);
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
    const good = rows.length - bad.length;
    stdout.write(
      `${good} of ${bugs.length} bugs found, replayed and clean when off; ${seconds} s, seed ${flags.seed}\n`,
    );
  }
  for (const { bug, problem } of bad) stderr.write(`iommufd zoo: ${bug}: ${problem}\n`);
  if (missing.length > 0) stderr.write(`iommufd zoo: not run: ${missing.join(', ')}\n`);
  return bad.length + missing.length > 0 ? EXIT_FOUND : EXIT_CLEAN;
}
