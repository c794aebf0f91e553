/**
 * `iommufd stress`: the main job. One run a topology, one after the other, each with the same options; one
 * report and one tally for all. Everything is checked before the first thread starts.
 */
import { writeFileSync } from 'node:fs';
import { join, parse } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { reportProblem, writeReport, writeWhole } from '../../perf/report/report-json.js';
import { renderStressHtml } from '../../perf/report/stress-page.js';
import { OptionError } from '../../perf/stress/option-error.js';
import { DEFAULTS, type StressInput, stressOptions } from '../../perf/stress/options.js';
import { PRESET_NAMES } from '../../perf/stress/presets.js';
import { ATS_CHOICES, INJECTIONS, type StressOptions, type StressResult } from '../../perf/stress/types.js';
import { ConfigError } from '../../runtime/machine-config.js';
import { KILLABLE_KINDS } from '../../workers/protocol/messages.js';
import { EXIT_CLEAN, EXIT_FOUND, type RunStress, type Surroundings } from '../surroundings.js';
import { jsonOutput, type StressOutput, textOutput } from './stress-output.js';
import { usageError } from './usage.js';

interface Flags extends Omit<StressInput, 'topology'> {
  readonly keep?: string;
  readonly topology?: readonly string[];
  /** A file, or false for --no-report. */
  readonly report: string | false;
  /** A file, or false for --no-html; beside the report when absent. */
  readonly html?: string | false;
  readonly json?: boolean;
}

export function addStress(program: Command, around: Surroundings, done: (code: number) => void): void {
  const { duration, guests, mix, hostile, memory, s2Sharing, ats } = DEFAULTS;
  program
    .command('stress')
    .description(
      'send DMA at several SMMUs while mappings change, and check that no dead translation is used',
    )
    .option(
      '--topology <file|preset>',
      `the machine: a raw IORT, a JSON description, or ${PRESET_NAMES.join(', ')}; may be given more than ` +
        'once, one run each (default: every preset)',
      (value: string, before: readonly string[] = []) => [...before, value],
    )
    .option('--duration <s>', `seconds of traffic for each topology (default: ${duration})`)
    .option('--devices <n>', 'devices in all (default: 2 an SMMU, 4 to 12)')
    .option('--guests <n>', `VMs that change page tables of their own (default: ${guests})`)
    .option('--seed <n>', 'repeat the choices of a run; it printed its seed (default: drawn)')
    .option('--mix <mix>', `weights of the traffic programs (default: ${mix})`)
    .option(
      '--s2-sharing <how>',
      `one stage 2 for all SMMUs or one each: shared, per-psmmu (default: ${s2Sharing})`,
    )
    .option(
      '--ats <which>',
      `PCI devices that keep translations in an ATC: ${ATS_CHOICES.join(', ')}; auto: where the root complex ` +
        `has ATS (default: ${ats})`,
    )
    .option('--inject <bug>', `a deliberate bug, to see the checker fire: ${INJECTIONS.join(', ')}`)
    .option(
      '--kill <kind:ms>',
      `end one thread after so many milliseconds of traffic, to see the run survive it: ${KILLABLE_KINDS.join(', ')}`,
    )
    .option('--hostile <pct>', `percent of transactions that must fault (default: ${hostile})`)
    .option('--memory <size>', `RAM of the machine (default: ${memory})`)
    .option('--report <file>', 'where to write everything found', nonEmpty, 'report.json')
    .option('--no-report', 'write no report')
    .option('--html <file>', 'where to write the page to look at (default: beside the report)', nonEmpty)
    .option('--no-html', 'write no page')
    .option(
      '--keep <file>',
      'end at the first violation and write the machine there, for iommufd inspect',
      nonEmpty,
    )
    .option(
      '--trace <file>',
      'what each thread did last, for ui.perfetto.dev; numbered for several topologies',
    )
    .option('--json', 'one JSON object a line on stdout, the last one the result')
    .addHelpText(
      'after',
      '\nCtrl-C ends the run with its results; twice ends it at once.' +
        '\nExit codes: 0 clean, 1 a violation or a dead worker, 2 wrong usage.',
    )
    .action(async (flags: Flags) => {
      try {
        done(await stress(flags, around));
      } catch (error) {
        const code = usageError('stress', error, around.stderr);
        if (code === null) throw error;
        done(code);
      }
    });
}

function nonEmpty(value: string): string {
  if (value === '') throw new InvalidArgumentError('needs a file name.');
  return value;
}

/** `report.html` for `report.json`; no report, no page, unless it is asked for. */
function pageFile({ report, html }: Flags): string | false {
  if (html !== undefined) return html;
  return report === false ? false : `${report.replace(/\.json$/i, '')}.html`;
}

async function stress(flags: Flags, around: Surroundings): Promise<number> {
  const runs = allOptions(flags);
  const files = { report: flags.report, html: pageFile(flags) };
  const wanted = [
    ['report', files.report],
    ['html', files.html],
    ...runs.map(({ trace }) => ['trace', trace] as const),
  ] as const;
  for (const [option, file] of wanted) {
    const problem = file ? reportProblem(file) : null;
    if (problem !== null) throw new OptionError(option, problem);
  }
  if (flags.keep !== undefined) {
    const problem = reportProblem(flags.keep);
    if (problem !== null) throw new OptionError('keep', problem);
  }
  const output = flags.json ? jsonOutput(around.stdout) : textOutput(around.stdout);
  const runStress = await around.loadStress();
  const results: StressResult[] = [];
  const tally = { checks: 0, violations: 0, deaths: 0 };
  let missed = 0;
  let keep = flags.keep ?? null;
  let kept = false;
  for (const options of runs) {
    if (around.signal.aborted) break;
    const seen = await runOne(runStress, options, output, around, keep);
    // The first one that went wrong is the one that is kept.
    if (seen.kept) keep = null;
    kept ||= seen.kept;
    if (seen.result !== null) results.push(seen.result);
    tally.checks += seen.checks;
    tally.violations += seen.violations;
    tally.deaths += seen.deaths;
    if (options.inject !== null && seen.violations === 0) missed++;
  }
  let unwritten = false;
  for (const { trace } of results)
    if (trace?.problem) {
      around.stderr.write(`iommufd stress: --trace: '${trace.file}' not written: ${trace.problem}\n`);
      unwritten = true;
    }
  const write = (option: 'report' | 'html', writeTo: (file: string) => string): string | null => {
    const file = files[option];
    if (file === false || results.length === 0) return null;
    try {
      return writeTo(file);
    } catch (error) {
      around.stderr.write(`iommufd stress: --${option}: not written: ${(error as Error).message}\n`);
      unwritten = true;
      return null;
    }
  };
  const report = write('report', (file) => writeReport(file, results));
  const html = write('html', (file) =>
    writeWhole(file, renderStressHtml({ report: 'iommufd-stress', version: 1, runs: results })),
  );
  const interrupted = around.signal.aborted;
  output.result({
    ...tally,
    missed,
    interrupted,
    skipped: runs.length - results.length,
    report,
    html,
    kept: kept ? flags.keep! : null,
    runs: results,
  });
  return tally.violations > 0 || tally.deaths > 0 || missed > 0 || unwritten ? EXIT_FOUND : EXIT_CLEAN;
}

/** One set of options a topology; a seed that is drawn is drawn once, so that one number repeats them all. */
function allOptions({
  topology,
  report: _,
  html: __,
  json: ___,
  keep: ____,
  ...rest
}: Flags): StressOptions[] {
  const names = topology ?? PRESET_NAMES;
  const input = (name: string, n: number) => ({
    ...rest,
    topology: name,
    trace: rest.trace && names.length > 1 ? numbered(rest.trace, n + 1) : rest.trace,
  });
  const first = stressOptions(input(names[0]!, 0));
  return [first, ...names.slice(1).map((name, n) => stressOptions(input(name, n + 1), () => first.seed))];
}

/** `trace.json` is `trace-2.json` for the second run. */
function numbered(file: string, n: number): string {
  const { dir, name, ext } = parse(file);
  return join(dir, `${name}-${n}${ext}`);
}

interface Seen {
  readonly result: StressResult | null;
  readonly checks: number;
  readonly violations: number;
  readonly deaths: number;
  readonly kept: boolean;
}

/** A run that throws is a dead main thread: it counts as one, and what it said before still counts. */
async function runOne(
  runStress: RunStress,
  options: StressOptions,
  output: StressOutput,
  around: Surroundings,
  keep: string | null,
): Promise<Seen> {
  const listener = output.listen(options);
  let checks = 0;
  let violations = 0;
  let told = 0;
  let deaths = 0;
  let kept = false;
  let result: StressResult | null = null;
  try {
    result = await runStress(
      options,
      {
        started: (info) => listener.started(info),
        sample(sample) {
          checks = sample.checks;
          violations = Math.max(violations, sample.violations);
          listener.sample(sample);
        },
        violation(story) {
          told++;
          listener.violation(story);
        },
        death(death) {
          deaths++;
          listener.death(death);
        },
        ...(keep !== null && {
          keep(image: Uint8Array) {
            writeFileSync(keep, image);
            kept = true;
          },
        }),
      },
      around.signal,
    );
    checks = result.final.checks;
    violations = Math.max(result.final.violations, result.violations.length);
    deaths = Math.max(result.deaths.length, deaths);
  } catch (error) {
    // A machine that refuses its configuration names the key: nothing was started yet.
    if (error instanceof OptionError || error instanceof ConfigError) throw error;
    violations = Math.max(violations, told);
    deaths++;
    listener.death({ worker: 'main', reason: (error as Error).stack ?? String(error) });
  }
  listener.ended(result);
  return { result, checks, violations, deaths, kept };
}
