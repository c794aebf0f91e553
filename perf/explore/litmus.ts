/**
 * The locks and rings of hw/sync, searched to the end: every schedule of two and of three threads with at most so many
 * preemptions. hw/sync/README.md has the table that this makes.
 */
import type { Failure } from './engine/messages.js';
import { ExploreSession } from './session.js';

/** A scenario, and whose promise it is about. */
export interface LitmusCase {
  readonly primitive: string;
  /** The module below perf/explore/scenarios, without its ending, and its export. */
  readonly file: string;
  readonly export: string;
}

const of = (primitive: string, file: string, ...exports: string[]): LitmusCase[] =>
  exports.map((name) => ({ primitive, file, export: name }));

export const LITMUS: readonly LitmusCase[] = [
  ...of('Mutex', 'mutex', 'mutex2', 'mutex3'),
  ...of('Mutex', 'owner-death', 'mutexDeath2', 'mutexDeath3'),
  ...of('SpinLock', 'spin-lock', 'spinLock2', 'spinLock3'),
  ...of('SpinLock', 'owner-death', 'spinLockDeath2', 'spinLockDeath3'),
  ...of('RwLock', 'rw-lock', 'rwLockRw', 'rwLockWw', 'rwLockRrw', 'rwLockRww'),
  ...of('RwLock', 'owner-death', 'rwLockDeath2', 'rwLockDeath3'),
  ...of('SeqLock', 'seq-lock', 'seqLockRw', 'seqLockRrw', 'seqLockRww'),
  ...of('SeqLock', 'owner-death', 'seqLockDeath2', 'seqLockDeath3'),
  ...of('Semaphore', 'semaphore', 'semaphore2', 'semaphore3', 'semaphoreHandOut2', 'semaphoreHandOut3'),
  ...of('Condition', 'condition', 'conditionSignal2', 'conditionSignal3', 'conditionBroadcast3'),
  ...of('Barrier', 'barrier', 'barrier2', 'barrier3'),
  ...of('Once', 'once', 'once2', 'once3'),
  ...of('Once', 'once-death', 'onceDeath2', 'onceDeath3'),
  ...of('Epoch', 'epoch', 'epochVs', 'epochVvs', 'epochVss', 'epochLate', 'epochDeath2', 'epochDeath3'),
  ...of('Doorbell', 'doorbell', 'doorbell2', 'doorbell3'),
  ...of('SpscRing', 'spsc-ring', 'spscSingles', 'spscBatches'),
  ...of('MpscRing', 'mpsc-ring', 'mpsc2', 'mpsc3', 'mpscDeath2', 'mpscDeath3'),
];

export interface LitmusRow extends LitmusCase {
  /** Of the scenario: its name and, in a line, what it does. */
  readonly scenario: string;
  readonly about: string;
  readonly threads: number;
  readonly preemptions: number;
  readonly schedules: number;
  readonly steps: number;
  /** Different ones, where they were counted; overflown: there are more. */
  readonly states?: { readonly count: number; readonly overflown: boolean };
  readonly seconds: number;
  /** Whether these were all schedules there are within the bound. */
  readonly exhausted: boolean;
  /** Evaluations of its checks. */
  readonly checks: number;
  readonly failure: Failure | null;
}

export interface LitmusOptions {
  /** Default 3. */
  readonly preemptions?: number;
  /** Of one scenario, at most. Default: no limit. */
  readonly schedules?: number;
  readonly timeMs?: number;
  /** Processor for all threads, as in SessionOptions. */
  readonly cpu?: number;
  /** Whether different states are counted: takes half as long again. Default true. */
  readonly states?: boolean;
  readonly cases?: readonly LitmusCase[];
}

/** One row after the other, each when its scenario is through. @throws Error a scenario checked nothing */
export async function* runLitmus(options: LitmusOptions = {}): AsyncGenerator<LitmusRow> {
  for (const one of options.cases ?? LITMUS) yield await runCase(one, options);
}

async function runCase(one: LitmusCase, options: LitmusOptions): Promise<LitmusRow> {
  const { preemptions = 3, schedules = Number.MAX_SAFE_INTEGER, timeMs = Number.POSITIVE_INFINITY } = options;
  const url = new URL(`./scenarios/${one.file}.js`, import.meta.url).href;
  const session = await ExploreSession.start(
    { url, export: one.export },
    { countStates: options.states !== false, ...(options.cpu !== undefined && { cpu: options.cpu }) },
  );
  try {
    const { name, about, threads } = session.scenario;
    const result = await session.run({
      strategy: 'dfs',
      options: { threads: threads.length, seed: 1, depth: 0, preemptions, shard: { index: 0, count: 1 } },
      schedules,
      timeMs,
    });
    const checks = Object.values(result.checks).reduce((sum, n) => sum + n, 0);
    if (checks === 0) throw new Error(`scenario ${name} checked nothing`);
    return {
      ...one,
      scenario: name,
      about,
      threads: threads.length,
      preemptions,
      schedules: result.schedules,
      steps: result.steps,
      ...(result.states !== undefined && { states: result.states }),
      seconds: result.seconds,
      exhausted: result.exhausted,
      checks,
      failure: result.failure,
    };
  } finally {
    await session.close();
  }
}

/** The rows as hw/sync/README.md has them: a Markdown table. */
export function litmusTable(rows: readonly LitmusRow[]): string {
  const head =
    'primitive | scenario | threads | preemptions | schedules | steps | states | seconds | violations';
  const lines = rows.map((row) => {
    const all = row.exhausted ? '' : ', not all';
    const states =
      row.states === undefined ? '' : `${row.states.overflown ? 'over ' : ''}${row.states.count}`;
    const cells = [
      row.primitive,
      `\`${row.scenario}\``,
      row.threads,
      `${row.preemptions}${all}`,
      row.schedules,
      row.steps,
      states,
      row.seconds.toFixed(1),
      row.failure === null ? 0 : row.failure.invariant,
    ];
    return `| ${cells.join(' | ')} |`;
  });
  return [`| ${head} |`, `|${' --- |'.repeat(9)}`, ...lines].join('\n');
}
