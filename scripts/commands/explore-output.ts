/** What `iommufd explore` says: text for people, or one JSON object a line. */
import { BUGS } from '../../hw/bugs/bug-switches.js';
import type { Exploration, Replayed, ToldFailure } from '../../perf/explore/run.js';
import type { Scenario } from '../../perf/explore/scenario.js';
import { sizeOf } from '../../perf/explore/shrink.js';
import { renderStory, type TableOptions } from '../../perf/explore/story/story-table.js';
import { compact, plural } from '../../perf/report/units.js';
import type { Output } from '../surroundings.js';

export interface ExploreTally {
  readonly scenarios: number;
  readonly schedules: number;
  readonly steps: number;
  readonly failures: number;
  /** Scenarios that proved nothing, or could not be run. */
  readonly problems: number;
  readonly skipped: number;
  readonly seed: number;
  readonly interrupted: boolean;
}

export interface ScenarioListener {
  progress(schedules: number, steps: number): void;
  shrinking(tried: number, switches: number, steps: number): void;
  explored(result: Exploration): void;
  /** It could not be set up, or a worker died. */
  broken(error: Error): void;
}

export interface ExploreOutput {
  list(scenarios: readonly Scenario[]): void;
  listen(scenario: Scenario, request: { readonly strategy: string; readonly seed: number }): ScenarioListener;
  replayed(result: Replayed, file: string): void;
  merged(report: Exploration): void;
  result(tally: ExploreTally): void;
}

export function jsonOutput(stdout: Output): ExploreOutput {
  const say = (value: object): void => void stdout.write(`${JSON.stringify(value)}\n`);
  return {
    list(scenarios) {
      for (const { name, about, checks, threads } of scenarios)
        say({
          type: 'scenario',
          scenario: name,
          about,
          checks,
          threads: threads.map((thread) => thread.name),
        });
    },
    listen: ({ name: scenario }, { strategy, seed }) => {
      say({ type: 'started', scenario, strategy, seed });
      return {
        progress: (schedules, steps) => say({ type: 'progress', scenario, schedules, steps }),
        shrinking: (tried, switches, steps) => say({ type: 'shrinking', scenario, tried, switches, steps }),
        explored: (result) => say({ type: 'report', ...result }),
        broken: ({ message }) => say({ type: 'broken', scenario, message }),
      };
    },
    replayed({ file: { choices: _, ...file }, ...result }, path) {
      say({ type: 'replayed', path, recorded: file, ...result });
    },
    merged: (report) => say({ type: 'report', ...report }),
    result: (tally) => say({ type: 'result', ...tally }),
  };
}

export function textOutput(stdout: Output, stderr: Output, table: TableOptions): ExploreOutput {
  const line = (text: string): void => void stdout.write(`${text}\n`);
  // Only for who looks on: overwritten by what comes next.
  const passing = (text: string): void => {
    if (stderr.isTTY === true) stderr.write(`\r\x1b[K${text}`);
  };
  const told = (failure: ToldFailure): void => {
    const { shrunk, story, reproduced, replayFile, traceFile } = failure;
    line(renderStory(story, table));
    if (!reproduced)
      line(
        'NOT the same when run again: the scenario is not deterministic, so that its story is another one',
      );
    if (shrunk !== null)
      line(
        `shrunk from ${plural(shrunk.before.switches, 'switch', 'switches')} and ${plural(shrunk.before.steps, 'step')}` +
          ` to ${shrunk.after.switches} and ${shrunk.after.steps}, by ${plural(shrunk.tried, 'schedule')}` +
          `${shrunk.complete ? '' : '; there was no time for more'}`,
      );
    if (traceFile !== null) line(`trace: ${traceFile}`);
    if (replayFile !== null) line(`again: iommufd explore --replay ${replayFile}`);
  };
  return {
    list(scenarios) {
      for (const { name, about, checks, threads } of scenarios)
        line(
          `${name}\n    ${about}\n    checks ${checks.join(', ')}; threads ${threads.map((thread) => thread.name).join(', ')}`,
        );
    },
    listen: ({ name }) => ({
      progress: (schedules, steps) =>
        passing(`${name}: ${compact(schedules)} schedules, ${compact(steps)} steps`),
      shrinking: (tried, switches, steps) =>
        passing(`${name}: ${switches} switches, ${steps} steps after ${tried} tries`),
      explored(result) {
        passing('');
        for (const text of campaignLines(result)) line(text);
        if (result.told !== null) told(result.told);
        line('');
      },
      broken(error) {
        passing('');
        stderr.write(`iommufd explore: ${name}: ${error.message}\n`);
      },
    }),
    replayed(result, path) {
      for (const text of replayLines(result, path)) line(text);
      if (result.told !== null) told(result.told);
    },
    merged(report) {
      for (const text of campaignLines(report)) line(text);
    },
    result({ scenarios, schedules, steps, failures, problems, skipped, seed, interrupted }) {
      const parts = [
        plural(scenarios, 'scenario'),
        plural(schedules, 'schedule'),
        plural(steps, 'step'),
        plural(failures, 'failure'),
      ];
      if (problems > 0) parts.push(`${problems} proved nothing`);
      if (skipped > 0) parts.push(`${skipped} skipped`);
      line(`${parts.join(', ')}; seed ${seed}${interrupted ? ', ended early' : ''}`);
    },
  };
}

function campaignLines(result: Exploration): string[] {
  const { scenario, bugs, schedules, steps, seconds, failure, checks, summary, problem } = result;
  const lines = [`${scenario}${bugs.length === 0 ? '' : ` with ${bugs.join(', ')}`}`];
  const shard = result.shard === '0/1' ? '' : `, shard ${result.shard}`;
  lines.push(
    `  ${plural(schedules, 'schedule')}, ${plural(steps, 'step')} in ${seconds.toFixed(2)} s: ` +
      `${compact(result.schedulesPerSecond)} schedules/s, ${compact(result.stepsPerSecond)} steps/s${shard}`,
    ...summary.split('\n').map((text) => `  ${text}`),
    `  checks made: ${
      Object.entries(checks)
        .map(([name, n]) => `${name} ${compact(n)}`)
        .join(', ') || 'none'
    }`,
  );
  if (failure !== null) {
    const { switches } = sizeOf(failure);
    lines.push(
      `  BROKEN: ${failure.invariant}, in schedule ${failure.schedule} of seed ${result.seed}: ` +
        `${plural(failure.steps, 'step')}, ${plural(switches, 'switch', 'switches')}`,
    );
    for (const bug of bugs) lines.push(`  ${bug}: ${BUGS[bug as keyof typeof BUGS].origin}`);
  } else lines.push(problem === null ? '  nothing broken' : `  PROVED NOTHING: ${problem}`);
  return lines;
}

function replayLines({ file, failure, same, diverged, differences }: Replayed, path: string): string[] {
  const { scenario, bugs, violation, steps } = file;
  const lines = [`${scenario}${bugs.length === 0 ? '' : ` with ${bugs.join(', ')}`}, from ${path}`];
  const recorded = `${violation.invariant} in ${violation.thread} after ${plural(steps, 'step')}`;
  if (same) lines.push(`  as recorded: ${recorded}`);
  else if (failure !== null)
    lines.push(
      `  NOT as recorded (${recorded}): ${failure.invariant} in ${failure.thread} after ${plural(failure.steps, 'step')}`,
    );
  else if (diverged) lines.push(`  DIVERGED: the code does not follow the schedule, which proves nothing`);
  else lines.push(`  nothing broken now; recorded was ${recorded}`);
  for (const difference of differences) lines.push(`  note: ${difference}`);
  return lines;
}
