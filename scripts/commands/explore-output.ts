/** What `iommufd explore` says: text for people, or one JSON object a line. */
import { BUGS } from '../../hw/bugs/bug-switches.js';
import { INVARIANTS, inWords } from '../../perf/explore/invariants.js';
import { MONITOR_NAMES } from '../../perf/explore/monitors/machine-monitors.js';
import { monitorOf } from '../../perf/explore/own-checks.js';
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
  /** For so long nobody made an access. */
  stuck(seconds: number): void;
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
        stuck: (seconds) => say({ type: 'stuck', scenario, seconds }),
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
  const { columns = 100 } = table;
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
      let monitors = false;
      for (const { name, about, checks, threads } of scenarios) {
        const own = checks.filter((check) => monitorOf(check) === undefined);
        const monitored = own.length < checks.length;
        line(
          `${name}\n    ${about}\n    checks ${own.join(', ')}${monitored ? ', and monitors' : ''};` +
            ` threads ${threads.map((thread) => thread.name).join(', ')}`,
        );
        monitors ||= monitored;
      }
      if (!monitors) return;
      line('');
      for (const text of filled(`Monitors of a machine: ${MONITOR_NAMES.join(', ')}.`, columns)) line(text);
      for (const name of Object.keys(INVARIANTS))
        for (const text of filled(inWords(name), columns)) line(text);
    },
    listen: ({ name }) => ({
      progress: (schedules, steps) =>
        passing(`${name}: ${compact(schedules)} schedules, ${compact(steps)} steps`),
      stuck(seconds) {
        passing('');
        stderr.write(
          `iommufd explore: ${name}: no access to shared memory for ${seconds} s; a thread that loops without one` +
            ' is given up after 30 s\n',
        );
      },
      shrinking: (tried, switches, steps) =>
        passing(`${name}: ${switches} switches, ${steps} steps after ${tried} tries`),
      explored(result) {
        passing('');
        for (const text of campaignLines(result, columns)) line(text);
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
      for (const text of campaignLines(report, columns)) line(text);
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

/** Text in lines of so many columns; those after the first are indented further. */
function filled(text: string, columns: number, indent = ''): string[] {
  const lines: string[] = [];
  for (let rest = `${indent}${text}`; ; ) {
    const space = rest.length <= columns ? -1 : rest.lastIndexOf(' ', columns);
    if (space <= indent.length + 2) return [...lines, rest];
    lines.push(rest.slice(0, space));
    rest = `${indent}  ${rest.slice(space + 1)}`;
  }
}

/** The scenario's own checks each, those of the machine's monitors by monitor. */
function checkLines(checks: Exploration['checks'], columns: number): string[] {
  const own: string[] = [];
  const monitors = new Map<string, number>();
  for (const [name, n] of Object.entries(checks)) {
    const monitor = monitorOf(name);
    if (monitor === undefined) own.push(`${name} ${compact(n)}`);
    else monitors.set(monitor, (monitors.get(monitor) ?? 0) + n);
  }
  const lines = filled(`checks made: ${own.join(', ') || 'none'}`, columns, '  ');
  if (monitors.size === 0) return lines;
  const all = [...monitors];
  const seen = all.filter(([, n]) => n > 0).map(([name, n]) => `${name} ${compact(n)}`);
  const idle = all.filter(([, n]) => n === 0).map(([name]) => name);
  const parts = [seen.join(', ')];
  if (idle.length > 0) parts.push(`nothing to look at: ${idle.join(', ')}`);
  return [...lines, ...filled(`monitors: ${parts.filter((part) => part !== '').join('; ')}`, columns, '  ')];
}

function campaignLines(result: Exploration, columns: number): string[] {
  const { scenario, bugs, schedules, steps, seconds, failure, checks, summary, problem } = result;
  const lines = [`${scenario}${bugs.length === 0 ? '' : ` with ${bugs.join(', ')}`}`];
  const shard = result.shard === '0/1' ? '' : `, ${shardWords(result.shard)}`;
  lines.push(
    `  ${plural(schedules, 'schedule')}, ${plural(steps, 'step')} in ${seconds.toFixed(2)} s: ` +
      `${compact(result.schedulesPerSecond)} schedules/s, ${compact(result.stepsPerSecond)} steps/s${shard}`,
    ...[...new Set(summary.split('\n'))].flatMap((text) => filled(text, columns, '  ')),
    ...checkLines(checks, columns),
  );
  if (failure !== null) {
    const { switches } = sizeOf(failure);
    lines.push(
      `  BROKEN: ${failure.invariant}, in schedule ${failure.schedule} of seed ${result.seed}: ` +
        `${plural(failure.steps, 'step')}, ${plural(switches, 'switch', 'switches')}`,
    );
    if (failure.invariant in INVARIANTS) lines.push(...filled(inWords(failure.invariant), columns, '  '));
    for (const bug of bugs)
      lines.push(...filled(`${bug}: ${BUGS[bug as keyof typeof BUGS].origin}`, columns, '  '));
  } else if (problem !== null) lines.push(`  PROVED NOTHING: ${problem}`);
  else lines.push(schedules === 0 ? '  ended before its first schedule' : '  nothing broken');
  return lines;
}

/** `shard 0/3`; of merged ones `all 3 shards`, or which are not there. */
function shardWords(shard: string): string {
  const [indices = '', count = ''] = shard.split('/');
  const there = indices.split(',').map(Number);
  if (there.length === 1) return `shard ${shard}`;
  const missing = Array.from({ length: Number(count) }, (_, index) => index).filter(
    (index) => !there.includes(index),
  );
  return missing.length === 0
    ? `all ${count} shards`
    : `${there.length} of ${count} shards, without ${missing.join(', ')}`;
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
