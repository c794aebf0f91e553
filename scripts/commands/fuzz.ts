/** `iommufd fuzz`: hostile input of every kind, for as many operations as asked. */
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import { formatInput, parseInput } from '../../perf/fuzz/corpus.js';
import { type FuzzFailure, type FuzzResult, TARGET_NAMES, type TargetName } from '../../perf/fuzz/types.js';
import { folderProblem } from '../../perf/report/folder.js';
import { OptionError } from '../../perf/stress/option-error.js';
import { EXIT_CLEAN, EXIT_FOUND, type Surroundings } from '../surroundings.js';
import { usageError, wholeOption } from './usage.js';

const DEFAULT_COUNT = 10_000_000;
const DEFAULT_CORPUS = 'fuzz-corpus';

interface Flags {
  readonly count: string;
  readonly seed?: string;
  readonly targets: string;
  readonly corpus: string | false;
  readonly jobs: string;
  readonly replay?: string;
  readonly json?: boolean;
}

export function addFuzz(program: Command, around: Surroundings, done: (code: number) => void): void {
  program
    .command('fuzz')
    .description(
      'hostile registers, structures, commands, rings, guests, devices and programs: nothing may break or leak',
    )
    .option('--count <n>', 'operations in all', String(DEFAULT_COUNT))
    .option('--seed <n>', 'repeat a run with --jobs 1; it printed its seed (default: drawn)')
    .option('--targets <list>', `of ${TARGET_NAMES.join(', ')}`, TARGET_NAMES.join(','))
    .option('--corpus <folder>', 'inputs worth keeping, read and added to', DEFAULT_CORPUS)
    .option('--no-corpus', 'keep none')
    .option('--jobs <n>', 'threads', String(availableParallelism()))
    .option('--replay <file>', 'run the failure that an earlier run wrote, and nothing else')
    .option('--json', 'one JSON object on stdout')
    .addHelpText(
      'after',
      '\nA failure is written to fuzz-<target>-<seed>.json, for --replay. Ctrl-C ends early, with its results.' +
        '\nExit codes: 0 nothing broke, 1 a failure, 2 wrong usage.',
    )
    .action(async (flags: Flags) => {
      try {
        done(flags.replay === undefined ? await fuzz(flags, around) : await replay(flags.replay, around));
      } catch (error) {
        const code = usageError('fuzz', error, around.stderr);
        if (code === null) throw error;
        done(code);
      }
    });
}

async function fuzz(flags: Flags, around: Surroundings): Promise<number> {
  const options = {
    count: wholeOption('count', flags.count, 1, 1e12),
    seed: flags.seed === undefined ? Date.now() >>> 0 : wholeOption('seed', flags.seed, 0, 2 ** 32 - 1),
    targets: targetsOf(flags.targets),
    corpus: flags.corpus === false ? null : flags.corpus,
    jobs: wholeOption('jobs', flags.jobs, 1, 64),
  };
  const problem = options.corpus === null ? null : folderProblem(options.corpus);
  if (problem !== null) throw new OptionError('corpus', problem);
  const { runFuzz } = await import('../../perf/fuzz/run.js');
  around.stderr.write(`seed ${options.seed}\n`);
  let said = 0;
  const result = await runFuzz(
    options,
    {
      progress(ops, features) {
        const tenth = Math.floor((ops / options.count) * 10);
        if (tenth <= said) return;
        said = tenth;
        around.stderr.write(`${tenth * 10} %: ${ops} operations, ${features} different outcomes\n`);
      },
    },
    around.signal,
  );
  const files = result.failures.map((failure) => keep(failure, around));
  around.stdout.write(flags.json ? `${JSON.stringify(plain(result, files))}\n` : render(result, files));
  return result.failures.length === 0 ? EXIT_CLEAN : EXIT_FOUND;
}

/** @returns the file a failure was written to; one that cannot be is told whole */
function keep(failure: FuzzFailure, around: Surroundings): string {
  const file = `fuzz-${failure.target}-${failure.seed}.json`;
  const { target, seed, message } = failure;
  const text = `${JSON.stringify({ target, seed, message, ops: JSON.parse(formatInput(failure.ops)) }, null, 1)}\n`;
  try {
    writeFileSync(file, text);
  } catch (error) {
    around.stderr.write(`iommufd fuzz: ${file}: not written: ${(error as Error).message}\n${text}`);
  }
  return file;
}

async function replay(file: string, around: Surroundings): Promise<number> {
  const { target, ops } = readFailure(file);
  const { makeTarget } = await import('../../perf/fuzz/episode.js');
  const { failureOf } = await import('../../perf/fuzz/shrink.js');
  const found = failureOf(makeTarget(target), ops);
  around.stdout.write(found === null ? 'it holds now\n' : `it fails still: ${found}\n`);
  return found === null ? EXIT_CLEAN : EXIT_FOUND;
}

function readFailure(file: string): { target: TargetName; ops: Uint32Array } {
  let kept: { target?: unknown; ops?: unknown };
  try {
    kept = JSON.parse(readFileSync(file, 'utf8')) as typeof kept;
  } catch (error) {
    throw new OptionError('replay', `cannot be read: ${(error as Error).message}`);
  }
  const ops = parseInput(JSON.stringify(kept.ops));
  const target = TARGET_NAMES.find((name) => name === kept.target);
  if (ops === null || target === undefined)
    throw new OptionError('replay', `${file} is no failure that fuzz wrote`);
  return { target, ops };
}

function targetsOf(list: string): TargetName[] {
  return list.split(',').map((name) => {
    const found = TARGET_NAMES.find((target) => target === name.trim());
    if (found === undefined)
      throw new OptionError('targets', `'${name}' is none of ${TARGET_NAMES.join(', ')}`);
    return found;
  });
}

function plain(result: FuzzResult, files: readonly string[]): unknown {
  return {
    ...result,
    shards: result.shards.map(({ target, ops, byKind, features, found }) => ({
      target,
      ops,
      byKind,
      features,
      found: found.length,
    })),
    failures: result.failures.map(({ target, seed, message, ops, foundOps }, i) => ({
      target,
      seed,
      message,
      operations: ops.length / 6,
      foundOps,
      file: files[i],
    })),
  };
}

function render(result: FuzzResult, files: readonly string[]): string {
  const kinds = new Map<string, number>();
  for (const { byKind } of result.shards)
    for (const [kind, n] of Object.entries(byKind)) kinds.set(kind, (kinds.get(kind) ?? 0) + n);
  const lines = [...kinds].map(([kind, n]) => `${String(n).padStart(12)}  ${kind}`);
  for (const [i, { target, message, ops, foundOps }] of result.failures.entries())
    lines.push(
      '',
      `${target}: ${message}`,
      `  after ${foundOps} operations, of which ${ops.length / 6} suffice: ${files[i]}`,
      `  iommufd fuzz --replay ${files[i]}`,
    );
  const rate = Math.round(result.ops / result.seconds);
  lines.push(
    '',
    `${result.ops} operations, ${result.failures.length} failures; seed ${result.seed}, ${result.seconds.toFixed(1)} s, ${rate} operations/s`,
  );
  return `${lines.join('\n')}\n`;
}
