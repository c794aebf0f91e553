/**
 * A whole exploration of one scenario: the campaign, and of what it finds the shrinking, the story, the files. And a
 * replay of such a file.
 *
 *   module -> session -> campaign -> failure -> shrink? -> replayed once more, recorded -> story, trace, replay file
 */

import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { BugName } from '../../hw/bugs/bug-switches.js';
import { writeWhole } from '../report/report-json.js';
import type { Failure, ScenarioSource } from './engine/messages.js';
import { ownChecks } from './own-checks.js';
import { loadScenarios, scenariosOf } from './registry.js';
import {
  choicesOf,
  differencesFrom,
  type FailureOf,
  type ReplayFile,
  readReplay,
  replayFileName,
  sourceOf,
  writeReplay,
} from './replay-file.js';
import { type ExploreReport, exploreReport } from './report.js';
import { ExploreSession } from './session.js';
import { runChoices, type Shrunk, shrink } from './shrink.js';
import { placeNames } from './story/places.js';
import { type Story, tellStory } from './story/story.js';
import { traceOf } from './story/trace.js';
import type { StrategyName } from './strategies/index.js';

/** What every exploration and every replay takes. */
export interface SessionChoice {
  /** Processor that its threads share, null for any. Default: one by the process's number. */
  readonly cpu?: number | null;
  /** Makes a failure short before it is told. */
  readonly shrink?: boolean;
  /** Folder for the replay file of a failure, which must be there. Default: none is written. */
  readonly out?: string;
  /** File for the trace of a failure, for Perfetto. */
  readonly trace?: string;
  /** Ends it early, with what there is. */
  readonly signal?: AbortSignal;
  readonly onShrink?: (tried: number, switches: number, steps: number) => void;
}

/** What explore() takes. */
export interface ExploreOptions extends SessionChoice {
  /** URL of a module that exports a scenario; or the name of one that comes with the package. */
  readonly scenario: URL | string;
  /** Which export. Default: the only scenario that the module exports. */
  readonly export?: string;
  /** Default 'random'. */
  readonly strategy?: Exclude<StrategyName, 'replay'>;
  /** At most so many; ends at the first failure in any case. Default 10000. */
  readonly schedules?: number;
  /** At most so long. Default 30000. */
  readonly timeMs?: number;
  /** Default 1. The same seed takes the same schedules. */
  readonly seed?: number;
  /** PCT: depth of the bug looked for. Default 3. */
  readonly depth?: number;
  /** DFS: preemptions at most. Default 3. */
  readonly preemptions?: number;
  /** Part `index` (from 0) of `count`. Default: all of it. */
  readonly shard?: { readonly index: number; readonly count: number };
  readonly bugs?: readonly BugName[];
  readonly onProgress?: (schedules: number, steps: number) => void;
  /** Nobody made an access for so many seconds: something loops without one; after 30 it is given up. */
  readonly onStuck?: (seconds: number) => void;
}

/** A failure in full. */
export interface ToldFailure {
  readonly story: Story;
  /** Whether the schedule, run again to be told, ended in the same violation; else it is not deterministic. */
  readonly reproduced: boolean;
  /** What shrinking came to; null when it was not asked for. */
  readonly shrunk: Omit<Shrunk, 'failure'> | null;
  /** Files written. */
  readonly replayFile: string | null;
  readonly traceFile: string | null;
}

/** What explore() came to. */
export interface Exploration extends ExploreReport {
  /** Whether this is what one wants: checks were made, and nothing is broken. */
  readonly ok: boolean;
  /** Why nothing was proved though nothing is broken; null when all is well or a failure says it. */
  readonly problem: string | null;
  /** Of the failure. */
  readonly told: ToldFailure | null;
}

/**
 * Runs the schedules of one scenario until one breaks an invariant or the budget is used up.
 * @throws TypeError there is no such scenario; Error it cannot be set up, or a worker died
 */
export async function explore(options: ExploreOptions): Promise<Exploration> {
  const { strategy = 'random', seed = 1, depth = 3, preemptions = 3, bugs = [], signal } = options;
  const { schedules = 10_000, timeMs = 30_000, shard = { index: 0, count: 1 } } = options;
  const source = await findScenario(options.scenario, options.export);
  const { onProgress, onStuck } = options;
  const cpu = processor(options.cpu);
  const session = await ExploreSession.start(source, {
    bugs,
    seed,
    ...(cpu !== null && { cpu }),
    ...(onProgress && { onProgress }),
    ...(onStuck && { onStuck }),
  });
  const stop = (): void => session.cancel();
  try {
    const { name, threads } = session.scenario;
    const running = session.run({
      strategy,
      options: { threads: threads.length, seed, depth, preemptions, shard },
      schedules,
      timeMs,
    });
    signal?.addEventListener('abort', stop);
    if (signal?.aborted) stop();
    const result = await running;
    const of: FailureOf = {
      scenario: name,
      threads: threads.map((one) => one.name),
      source,
      bugs,
      seed,
      strategy,
    };
    const found = result.failure === null ? null : await tell(session, of, result.failure, options);
    const report = exploreReport(
      { scenario: name, bugs, strategy, seed, bounds: { depth, preemptions }, shard },
      { ...result, failure: found?.failure ?? null },
    );
    return { ...report, ...verdictOf(report, signal?.aborted === true), told: found?.told ?? null };
  } finally {
    signal?.removeEventListener('abort', stop);
    await session.close();
  }
}

/** What replay() takes. */
export interface ReplayOptions extends SessionChoice {
  readonly file: string;
}

/** What replay() came to. */
export interface Replayed {
  readonly file: ReplayFile;
  readonly failure: Failure | null;
  /** The violation of the file, at the same step. */
  readonly same: boolean;
  /** The code did not follow the schedule. */
  readonly diverged: boolean;
  /** Why it may have gone otherwise: other versions, other code. */
  readonly differences: readonly string[];
  readonly told: ToldFailure | null;
}

/**
 * Runs the schedule of a file.
 * @throws OptionError the file is none, or its scenario is not there; Error it cannot be set up, or a worker died
 */
export async function replay(options: ReplayOptions): Promise<Replayed> {
  const file = readReplay(options.file);
  const { scenario, bugs, seed, strategy, threads, violation, steps } = file;
  const source = sourceOf(file) ?? (await findScenario(scenario));
  const cpu = processor(options.cpu);
  const session = await ExploreSession.start(source, { bugs, seed, ...(cpu !== null && { cpu }) });
  try {
    const { failure, diverged } = await runChoices(session, choicesOf(file), seed);
    const same =
      failure !== null &&
      !diverged &&
      failure.invariant === violation.invariant &&
      failure.thread === violation.thread &&
      failure.steps === steps;
    const of: FailureOf = { scenario, threads, source, bugs, seed, strategy };
    const found = failure === null ? null : await tell(session, of, failure, options);
    return {
      file,
      failure: found?.failure ?? null,
      same,
      diverged,
      differences: differencesFrom(file),
      told: found?.told ?? null,
    };
  } finally {
    await session.close();
  }
}

/** @throws TypeError there is none, or several without it being said which */
export async function findScenario(scenario: URL | string, name?: string): Promise<ScenarioSource> {
  const isUrl = typeof scenario !== 'string' || /^[a-z]+:/.test(scenario);
  if (isUrl) return { url: String(scenario), export: name ?? (await onlyExport(String(scenario))) };
  const found = (await loadScenarios()).get(scenario);
  if (found === undefined) throw new TypeError(`there is no scenario '${scenario}'`);
  return found.source;
}

async function onlyExport(url: string): Promise<string> {
  const found = await scenariosOf(url);
  if (found.length === 0) throw new TypeError(`${url} exports no scenario`);
  if (found.length > 1)
    throw new TypeError(
      `${url} exports several scenarios; name one of ${found.map(({ source }) => source.export).join(', ')}`,
    );
  return found[0]!.source.export;
}

const processor = (cpu: number | null | undefined): number | null =>
  cpu === undefined ? process.pid % availableParallelism() : cpu;

/**
 * Fails closed: a campaign that looked at nothing proves nothing.
 * @param interrupted  there was no time to look
 */
export function verdictOf(
  { failure, checks, diverged, summary, schedules, steps }: ExploreReport,
  interrupted = false,
): Pick<Exploration, 'ok' | 'problem'> {
  if (failure !== null) return { ok: false, problem: null };
  if (diverged) return { ok: false, problem: `the code did not follow its plan: ${summary}` };
  if (ownChecks(checks) === 0 && !interrupted) return { ok: false, problem: 'no check ran' };
  // To begin is a step, too.
  if (steps <= schedules && !interrupted)
    return { ok: false, problem: 'no thread made an access to shared memory, so there was nothing to order' };
  return { ok: true, problem: null };
}

async function tell(
  session: ExploreSession,
  of: FailureOf,
  found: Failure,
  options: SessionChoice,
): Promise<{ failure: Failure; told: ToldFailure }> {
  const { signal, onShrink } = options;
  let failure = found;
  let shrunk: ToldFailure['shrunk'] = null;
  if (options.shrink === true) {
    const { failure: short, ...rest } = await shrink(session, found, {
      seed: of.seed,
      ...(signal && { signal }),
      ...(onShrink && { onProgress: onShrink }),
    });
    failure = { ...short, schedule: found.schedule };
    shrunk = rest;
  }
  const again = await runChoices(session, failure.choices, of.seed, true);
  const recording = session.recording();
  const { scenario } = session;
  const names = placeNames(new Int32Array(session.memory.buffer), session.published(), scenario.words);
  const story = tellStory(scenario.name, of.threads, recording, again.failure, names);
  const traceFile = options.trace === undefined ? null : writeWhole(options.trace, traceOf(story, recording));
  const replayFile =
    options.out === undefined ? null : writeReplay(join(options.out, replayFileName(of)), of, failure);
  const reproduced = again.failure?.invariant === failure.invariant && again.failure.steps === failure.steps;
  return { failure, told: { story, reproduced, shrunk, replayFile, traceFile } };
}
