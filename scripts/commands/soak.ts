/** `iommufd soak`: stress for an hour, machine after machine, with an eye on what the process holds. */
import type { Command } from 'commander';
import { reportProblem, writeWhole } from '../../perf/report/report-json.js';
import type { SoakSegment } from '../../perf/soak/run.js';
import { OptionError } from '../../perf/stress/option-error.js';
import { stressOptions } from '../../perf/stress/options.js';
import { PRESET_NAMES } from '../../perf/stress/presets.js';
import { EXIT_CLEAN, EXIT_FOUND, type Surroundings } from '../surroundings.js';
import { usageError, wholeOption } from './usage.js';

interface Flags {
  readonly duration: string;
  readonly segment: string;
  readonly seed?: string;
  readonly report: string | false;
  readonly json?: boolean;
}

export function addSoak(program: Command, around: Surroundings, done: (code: number) => void): void {
  program
    .command('soak')
    .description(
      'stress for an hour, one machine after the other: no violation, and memory and handles stay flat',
    )
    .option('--duration <s>', 'seconds in all', '3600')
    .option('--segment <s>', 'seconds of one stress run', '300')
    .option('--seed <n>', 'of the first run (default: drawn)')
    .option('--report <file>', 'where to write every reading', 'soak.json')
    .option('--no-report', 'write no readings')
    .option('--json', 'one JSON object on stdout')
    .addHelpText(
      'after',
      '\nEvery segment is the next preset. Ctrl-C ends early, with its results.' +
        '\nExit codes: 0 flat and clean, 1 a problem, 2 wrong usage.',
    )
    .action(async (flags: Flags) => {
      try {
        done(await soak(flags, around));
      } catch (error) {
        const code = usageError('soak', error, around.stderr);
        if (code === null) throw error;
        done(code);
      }
    });
}

async function soak(flags: Flags, around: Surroundings): Promise<number> {
  const week = 7 * 24 * 3600;
  const durationS = wholeOption('duration', flags.duration, 1, week);
  const segmentS = wholeOption('segment', flags.segment, 1, week);
  const first = stressOptions({ topology: PRESET_NAMES[0]!, seed: flags.seed });
  const runs = PRESET_NAMES.map((topology) => stressOptions({ topology, seed: first.seed }));
  const problem = flags.report === false ? null : reportProblem(flags.report);
  if (problem !== null) throw new OptionError('report', problem);
  const { runSoak } = await import('../../perf/soak/run.js');
  around.stderr.write(`seed ${first.seed}\n`);
  const result = await runSoak(
    { durationS, segmentS, runs },
    (segment, atS) => void (flags.json || around.stdout.write(`${line(segment, atS)}\n`)),
    around.signal,
  );
  const unwritten = flags.report === false ? null : notWritten(flags.report, result);
  if (unwritten !== null) around.stderr.write(`iommufd soak: --report: not written: ${unwritten}\n`);
  if (flags.json) around.stdout.write(`${JSON.stringify(result)}\n`);
  else {
    for (const problem of result.problems) around.stdout.write(`${problem}\n`);
    around.stdout.write(
      `${result.segments.length} runs, ${result.checks} checks, ${result.problems.length} problems\n`,
    );
  }
  return result.problems.length === 0 && unwritten === null ? EXIT_CLEAN : EXIT_FOUND;
}

/** @returns why the readings could not be written; an hour of them is told all the same */
function notWritten(file: string, result: unknown): string | null {
  try {
    writeWhole(file, `${JSON.stringify(result, null, 1)}\n`);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

function line({ topology, checks, violations, after }: SoakSegment, atS: number): string {
  const { rssMiB, heapMiB, descriptors, threads, handles } = after;
  return (
    `${atS.toFixed(0).padStart(6)} s  ${topology.padEnd(9)} ${checks} checks, ${violations} violations; ` +
    `RSS ${rssMiB.toFixed(0)} MiB, heap ${heapMiB.toFixed(1)} MiB, ${descriptors} descriptors, ` +
    `${threads} threads, ${handles} handles`
  );
}
