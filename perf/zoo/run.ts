/**
 * The zoo: every known bug is switched on, looked for within its budget, replayed, and switched off again for as many
 * schedules. What is reported is what happened: nothing here knows how a bug shows.
 *
 *   lane per processor:  scenario -> session -> its bugs, one after the other:  find -> replay 100 times -> off: clean?
 */
import { BUGS, type BugName } from '../../hw/bugs/bug-switches.js';
import type { CampaignRequest, CampaignResult, Failure } from '../explore/engine/messages.js';
import { ownChecks } from '../explore/own-checks.js';
import { ExploreSession } from '../explore/session.js';
import { ENTRIES } from './entries/index.js';
import type { ZooEntry } from './entry.js';

export interface ZooOptions {
  /** Only these. Default: all. */
  readonly bugs?: readonly BugName[];
  readonly seed: number;
  /** How often each find is replayed. */
  readonly replays: number;
  /** Processors to run on, a lane each; empty: one lane, not pinned. */
  readonly cpus: readonly number[];
  readonly signal?: AbortSignal;
  readonly onRow?: (row: ZooRow) => void;
  /** What is looked for. Default: the zoo. */
  readonly entries?: readonly ZooEntry[];
}

/** One bug. */
export interface ZooRow {
  readonly bug: BugName;
  readonly origin: string;
  /** Where the switch is. */
  readonly where: string;
  readonly found: boolean;
  /** `explore (random)`: what found it. */
  readonly by: string;
  readonly scenario: string;
  /** Until it was found; all of the budget when it was not. */
  readonly schedules: number;
  readonly seconds: number;
  readonly budget: number;
  /** What was seen broken; null when nothing was. */
  readonly invariant: string | null;
  /** What the bug is known to break. */
  readonly expected: string;
  /** Replays that ended in the same violation at the same step, of how many. */
  readonly replayed: number;
  readonly replays: number;
  /** Without the bug, the budget passes with checks made and nothing broken. */
  readonly clean: boolean;
  readonly cleanSchedules: number;
  /** Why it is not as it should be. */
  readonly problem: string | null;
}

/** A campaign may take so long, found or not. */
const LIMIT_MS = 30_000;

/** @returns the rows in the zoo's order; fewer when the signal came */
export async function runZoo(options: ZooOptions): Promise<ZooRow[]> {
  const wanted = (options.entries ?? ENTRIES).filter(({ bug }) => options.bugs?.includes(bug) ?? true);
  const groups = new Map<string, ZooEntry[]>();
  for (const entry of wanted) {
    const key = `${entry.scenario.file}#${entry.scenario.export}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [entry]);
    else group.push(entry);
  }
  const queue = [...groups.values()];
  const rows = new Map<BugName, ZooRow>();
  const lane = async (cpu: number | undefined): Promise<void> => {
    for (let group = queue.shift(); group !== undefined; group = queue.shift())
      for await (const row of runGroup(group, cpu, options)) {
        rows.set(row.bug, row);
        options.onRow?.(row);
      }
  };
  await Promise.all(options.cpus.length === 0 ? [lane(undefined)] : options.cpus.map(lane));
  return wanted.map(({ bug }) => rows.get(bug)).filter((row) => row !== undefined);
}

async function* runGroup(
  group: readonly ZooEntry[],
  cpu: number | undefined,
  options: ZooOptions,
): AsyncGenerator<ZooRow> {
  let session: ExploreSession | null = null;
  try {
    for (const entry of group) {
      if (options.signal?.aborted === true) return;
      try {
        session ??= await startSession(entry, cpu, options.seed);
        yield await runBug(session, entry, options);
      } catch (error) {
        // A session whose thread died is of no more use; the other bugs are looked for in a new one.
        await session?.close();
        session = null;
        yield brokenRow(entry, options, error instanceof Error ? error.message : String(error));
      }
    }
  } finally {
    await session?.close();
  }
}

function startSession(
  { scenario }: ZooEntry,
  cpu: number | undefined,
  seed: number,
): Promise<ExploreSession> {
  const url = new URL(`../explore/scenarios/${scenario.file}.js`, import.meta.url).href;
  return ExploreSession.start({ url, export: scenario.export }, { seed, ...(cpu !== undefined && { cpu }) });
}

/** A bug whose scenario could not be run to its end. */
function brokenRow(entry: ZooEntry, { replays }: ZooOptions, problem: string): ZooRow {
  const { bug, budget, scenario, strategy } = entry;
  const { origin, where, invariant: expected } = BUGS[bug];
  return {
    bug,
    origin,
    where,
    found: false,
    by: `explore (${strategy})`,
    scenario: `${scenario.file}#${scenario.export}`,
    schedules: 0,
    seconds: 0,
    budget,
    invariant: null,
    expected,
    replayed: 0,
    replays,
    clean: false,
    cleanSchedules: 0,
    problem: `could not be run: ${problem}`,
  };
}

async function runBug(session: ExploreSession, entry: ZooEntry, options: ZooOptions): Promise<ZooRow> {
  const { bug, budget } = entry;
  const { origin, where, invariant: expected } = BUGS[bug];
  const request = requestOf(session, entry, options.seed);
  const hunt = await session.run({ ...request, bugs: [bug] });
  const { failure } = hunt;
  const replayed = failure === null ? 0 : await replay(session, request, bug, failure, options.replays);
  const off = await session.run({ ...request, bugs: [] });
  const row = {
    bug,
    origin,
    where,
    found: failure !== null,
    by: `explore (${entry.strategy})`,
    scenario: session.scenario.name,
    schedules: hunt.schedules,
    seconds: hunt.seconds,
    budget,
    invariant: failure?.invariant ?? null,
    expected,
    replayed,
    replays: options.replays,
    clean:
      off.failure === null &&
      !off.diverged &&
      ownChecks(off.checks) > 0 &&
      (off.exhausted || off.schedules >= budget),
    cleanSchedules: off.schedules,
  };
  return { ...row, problem: problemOf(row, off) };
}

function requestOf(session: ExploreSession, entry: ZooEntry, seed: number): CampaignRequest {
  const { strategy, budget, depth = 3, preemptions = 3 } = entry;
  const threads = session.scenario.threads.length;
  return {
    strategy,
    options: { threads, seed, depth, preemptions, shard: { index: 0, count: 1 } },
    schedules: budget,
    timeMs: LIMIT_MS,
  };
}

/** @returns how many of the replays were the same violation of the same thread at the same step */
async function replay(
  session: ExploreSession,
  { options }: CampaignRequest,
  bug: BugName,
  failure: Failure,
  times: number,
): Promise<number> {
  let same = 0;
  for (let i = 0; i < times; i++) {
    const { failure: again, diverged } = await session.run({
      strategy: 'replay',
      options: { ...options, choices: failure.choices },
      bugs: [bug],
      schedules: 1,
      timeMs: LIMIT_MS,
    });
    if (
      !diverged &&
      again?.invariant === failure.invariant &&
      again.thread === failure.thread &&
      again.steps === failure.steps
    )
      same++;
  }
  return same;
}

function problemOf(row: Omit<ZooRow, 'problem'>, off: CampaignResult): string | null {
  if (!row.found) return `not found in ${row.schedules} schedules`;
  if (row.invariant !== row.expected) return `broke ${row.invariant}, and is known to break ${row.expected}`;
  if (row.replayed < row.replays) return `replayed ${row.replayed} times of ${row.replays}`;
  if (off.failure !== null) return `without the bug: ${off.failure.invariant}: ${off.failure.detail}`;
  if (ownChecks(off.checks) === 0) return 'without the bug no check ran';
  if (off.diverged) return `without the bug: the code did not follow its plan: ${off.summary}`;
  if (!row.clean) return `without the bug only ${off.schedules} of ${row.budget} schedules in time`;
  return null;
}
