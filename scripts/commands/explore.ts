/**
 * `iommufd explore`: scenarios, one thread at a time, every shared access a schedule point; and replays of what it found.
 * Everything the user can have wrong is told before the first thread starts.
 */
import { availableParallelism } from 'node:os';
import { pathToFileURL } from 'node:url';
import type { Command } from 'commander';
import { BUG_NAMES, type BugName } from '../../hw/bugs/bug-switches.js';
import type { FoundScenario } from '../../perf/explore/registry.js';
import type { Exploration, ExploreOptions } from '../../perf/explore/run.js';
import { STRATEGY_NAMES, type StrategyName } from '../../perf/explore/strategies/index.js';
import { folderProblem } from '../../perf/report/folder.js';
import { reportProblem } from '../../perf/report/report-json.js';
import { OptionError } from '../../perf/stress/option-error.js';
import { EXIT_CLEAN, EXIT_FOUND, type Surroundings } from '../surroundings.js';
import { type ExploreOutput, jsonOutput, textOutput } from './explore-output.js';
import { usageError, wholeOption } from './usage.js';

interface Flags {
  readonly list?: boolean;
  readonly strategy?: string;
  readonly schedules?: string;
  readonly duration?: string;
  readonly seed?: string;
  readonly depth?: string;
  readonly preemptions?: string;
  readonly shard?: string;
  readonly bug?: readonly string[];
  readonly shrink?: boolean;
  readonly replay?: string;
  readonly merge?: readonly string[];
  readonly scenarioFile?: string;
  readonly out: string;
  readonly trace?: string;
  readonly rows: string;
  readonly json?: boolean;
}

const STRATEGIES = STRATEGY_NAMES.filter((name) => name !== 'replay');
/** Of a scenario that was asked for, and of one of all there are. */
const BUDGET = { schedules: 10_000, seconds: 30 };
const SMALL_BUDGET = { schedules: 1_000, seconds: 5 };
const DEFAULT_ROWS = 80;
const MOST_SCHEDULES = 1e12;

const append = (value: string, before: readonly string[] = []): string[] => [...before, value];

export function addExplore(program: Command, around: Surroundings, done: (code: number) => void): void {
  program
    .command('explore')
    .description('run scenarios one thread at a time, schedule after schedule, and check every invariant')
    .argument('[scenarios...]', 'names, see --list; every scenario with a small budget when left out')
    .option('--list', 'the scenarios and what they check; runs nothing')
    .option('--strategy <name>', `who goes next: ${STRATEGIES.join(', ')} (default: random)`)
    .option(
      '--schedules <n>',
      `of each scenario (default: ${BUDGET.schedules}; of all: ${SMALL_BUDGET.schedules})`,
    )
    .option(
      '--duration <s>',
      `seconds for each (default: ${BUDGET.seconds}; of all: ${SMALL_BUDGET.seconds})`,
    )
    .option('--seed <n>', 'repeat the schedules of a run; it printed its seed (default: drawn)')
    .option('--depth <n>', 'pct: how many orderings a bug may need (default: 3)')
    .option('--preemptions <n>', 'dfs: at most so many (default: 3)')
    .option(
      '--shard <i/n>',
      'only part i, from 0, of n, of one --seed; see --merge. --schedules is of each part',
    )
    .option('--bug <name>', 'switch on a bug of the zoo; may be given more than once', append)
    .option('--shrink', 'make a failure as short as it gets: context switches first, then steps')
    .option('--replay <file>', 'run the schedule that an earlier run wrote, and tell its story')
    .option('--merge <files...>', 'make one report of what the --json of several shards printed')
    .option(
      '--scenario-file <path[#export]>',
      'a module of your own; all scenarios it exports without #export',
    )
    .option('--out <folder>', 'where the replay files of failures go', '.')
    .option('--trace <file>', 'the first failure for ui.perfetto.dev: a track a thread')
    .option('--rows <n>', 'the last rows of a story', String(DEFAULT_ROWS))
    .option('--json', 'one JSON object a line on stdout, the last one the result')
    .addHelpText(
      'after',
      '\nCtrl-C ends it with the results so far.' +
        '\nExit codes: 0 clean, 1 a violation, or no check ran, 2 wrong usage.',
    )
    .action(async (names: string[], flags: Flags) => {
      try {
        done(await run(names, flags, around));
      } catch (error) {
        const code = usageError('explore', error, around.stderr);
        if (code === null) throw error;
        done(code);
      }
    });
}

async function run(names: readonly string[], flags: Flags, around: Surroundings): Promise<number> {
  const rows = wholeOption('rows', flags.rows, 1, 1e6);
  const output = flags.json
    ? jsonOutput(around.stdout)
    : textOutput(around.stdout, around.stderr, { columns: around.stdout.columns ?? 120, rows });
  if (flags.replay !== undefined) return replayFile(flags.replay, names, flags, around, output);
  if (flags.merge !== undefined) return merge(flags.merge, names, flags, output);
  const request = requestOf(names, flags);
  const scenarios = await chosen(names, flags);
  if (flags.list === true) {
    output.list(scenarios.map(({ scenario }) => scenario));
    return EXIT_CLEAN;
  }
  checkPlaces(flags);
  const { explore } = await import('../../perf/explore/run.js');
  const tally = { scenarios: 0, schedules: 0, steps: 0, failures: 0, problems: 0 };
  const queue = [...scenarios];
  let { trace } = flags;
  const lane = async (cpu: number): Promise<void> => {
    for (let next = queue.shift(); next !== undefined && !around.signal.aborted; next = queue.shift()) {
      const { scenario, source } = next;
      const listener = output.listen(scenario, request);
      let explored: Exploration;
      try {
        explored = await explore({
          ...request,
          scenario: new URL(source.url),
          export: source.export,
          cpu,
          out: flags.out,
          shrink: flags.shrink === true,
          signal: around.signal,
          onProgress: listener.progress,
          onStuck: listener.stuck,
          onShrink: listener.shrinking,
          ...(trace !== undefined && { trace }),
        });
      } catch (error) {
        tally.problems++;
        listener.broken(error as Error);
        continue;
      }
      if (explored.told?.traceFile) trace = undefined;
      tally.scenarios++;
      tally.schedules += explored.schedules;
      tally.steps += explored.steps;
      if (explored.failure !== null) tally.failures++;
      else if (!explored.ok) tally.problems++;
      listener.explored(explored);
    }
  };
  // Each lane's threads run one at a time: a processor is all they need.
  const processors = availableParallelism();
  const lanes = trace === undefined ? Math.min(processors, scenarios.length) : 1;
  const first = request.shard?.index ?? 0;
  await Promise.all(Array.from({ length: lanes }, (_, n) => lane((first + n) % processors)));
  const { aborted: interrupted } = around.signal;
  output.result({ ...tally, seed: request.seed, skipped: scenarios.length - tally.scenarios, interrupted });
  return tally.failures + tally.problems > 0 ? EXIT_FOUND : EXIT_CLEAN;
}

async function replayFile(
  file: string,
  names: readonly string[],
  flags: Flags,
  around: Surroundings,
  output: ExploreOutput,
): Promise<number> {
  const { json: _, rows: __, out, replay: ___, trace, shrink, ...others } = flags;
  const [other] = Object.keys(others);
  if (other !== undefined) throw new OptionError(other, 'not with --replay: the file says it');
  if (names.length > 0)
    throw new OptionError('explore', 'a replay knows its scenario; name none with --replay');
  checkPlaces(flags);
  const { replay } = await import('../../perf/explore/run.js');
  try {
    const replayed = await replay({
      file,
      signal: around.signal,
      shrink: shrink === true,
      ...(shrink === true && { out }),
      ...(trace !== undefined && { trace }),
    });
    output.replayed(replayed, file);
    return replayed.failure === null && !replayed.diverged ? EXIT_CLEAN : EXIT_FOUND;
  } catch (error) {
    if (error instanceof TypeError) throw new OptionError('replay', error.message);
    throw error;
  }
}

async function merge(
  files: readonly string[],
  names: readonly string[],
  { merge: _, out: __, rows: ___, json: ____, ...others }: Flags,
  output: ExploreOutput,
): Promise<number> {
  const [other] = Object.keys(others);
  if (other !== undefined) throw new OptionError(other, 'not with --merge, which runs nothing');
  if (names.length > 0) throw new OptionError('explore', 'name no scenario with --merge');
  const { mergeFiles } = await import('../../perf/explore/report-file.js');
  const { verdictOf } = await import('../../perf/explore/run.js');
  const merged = mergeFiles(files).map((report) => ({ ...report, ...verdictOf(report), told: null }));
  for (const report of merged) output.merged(report);
  return merged.every(({ ok }) => ok) ? EXIT_CLEAN : EXIT_FOUND;
}

type Request = Omit<ExploreOptions, 'scenario'> & { readonly seed: number; readonly strategy: StrategyName };

function requestOf(names: readonly string[], flags: Flags): Request & Pick<ExploreOptions, 'strategy'> {
  const budget = names.length > 0 || flags.scenarioFile !== undefined ? BUDGET : SMALL_BUDGET;
  const { schedules, duration, seed, depth, preemptions, shard } = flags;
  const strategy = STRATEGIES.find((name) => name === (flags.strategy ?? 'random'));
  if (strategy === undefined)
    throw new OptionError('strategy', `'${flags.strategy}' is none of ${STRATEGIES.join(', ')}`);
  const bugs = (flags.bug ?? []).map((name) => {
    const found = BUG_NAMES.find((bug) => bug === name);
    if (found === undefined) throw new OptionError('bug', `there is no bug '${name}' (iommufd zoo --list)`);
    return found satisfies BugName;
  });
  // One limit that is given lifts the other's default.
  const seconds =
    duration === undefined
      ? schedules === undefined
        ? budget.seconds
        : Number.POSITIVE_INFINITY
      : secondsOf(duration);
  return {
    strategy,
    bugs,
    schedules:
      schedules === undefined
        ? duration === undefined
          ? budget.schedules
          : MOST_SCHEDULES
        : wholeOption('schedules', schedules, 1, MOST_SCHEDULES),
    timeMs: seconds * 1000,
    seed: seed === undefined ? Date.now() % 2 ** 31 : wholeOption('seed', seed, 0, 2 ** 31 - 1),
    ...(depth !== undefined && { depth: wholeOption('depth', depth, 1, 64) }),
    ...(preemptions !== undefined && { preemptions: wholeOption('preemptions', preemptions, 0, 64) }),
    ...(shard !== undefined && { shard: shardOf(shard) }),
  };
}

function secondsOf(text: string): number {
  const seconds = Number(text);
  if (text.trim() === '' || !(seconds > 0 && seconds <= 1e6))
    throw new OptionError('duration', `'${text}' is no number of seconds, more than 0 and at most 1000000`);
  return seconds;
}

function shardOf(text: string): { index: number; count: number } {
  const [, index, count] = /^(\d{1,6})\/(\d{1,6})$/.exec(text)?.map(Number) ?? [];
  if (index === undefined || count === undefined || index >= count)
    throw new OptionError('shard', `'${text}' is not i/n with i from 0 to n - 1`);
  return { index, count };
}

async function chosen(names: readonly string[], { scenarioFile }: Flags): Promise<FoundScenario[]> {
  const { loadScenarios } = await import('../../perf/explore/registry.js');
  const own = scenarioFile === undefined ? [] : await scenariosOfFile(scenarioFile);
  if (names.length === 0 && own.length > 0) return own;
  const all = await loadScenarios();
  if (names.length === 0) return [...all.values()];
  const named = [...new Set(names)].map((name) => {
    const found = all.get(name);
    if (found === undefined)
      throw new OptionError('explore', `there is no scenario '${name}' (iommufd explore --list)`);
    return found;
  });
  return [...named, ...own];
}

async function scenariosOfFile(text: string): Promise<FoundScenario[]> {
  const { scenariosOf } = await import('../../perf/explore/registry.js');
  const [, path = '', name] = /^(.*?)(?:#([^#/]+))?$/.exec(text)!;
  let found: FoundScenario[];
  try {
    found = await scenariosOf(pathToFileURL(path).href);
  } catch (error) {
    throw new OptionError('scenarioFile', `'${path}' cannot be loaded: ${(error as Error).message}`);
  }
  if (name !== undefined) found = found.filter(({ source }) => source.export === name);
  if (found.length === 0)
    throw new OptionError(
      'scenarioFile',
      `'${path}' exports no scenario${name === undefined ? ', an object with name, about, checks and threads' : ` '${name}'`}`,
    );
  return found;
}

function checkPlaces({ out, trace }: Flags): void {
  const folder = folderProblem(out);
  if (folder !== null) throw new OptionError('out', folder);
  const problem = trace === undefined ? null : reportProblem(trace);
  if (problem !== null) throw new OptionError('trace', problem);
}
