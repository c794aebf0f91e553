/**
 * Makes a failing schedule short: fewest context switches first, then fewest steps. Delta debugging over the runs of
 * one thread that a schedule consists of: some are left out, some joined, some cut, and each candidate is run. One
 * that still breaks the same invariant, and went better, is the new schedule. Choices that are not possible are left
 * out (whoever runs goes on), so what counts is how a candidate went, not what was asked for.
 */
import { createHash } from 'node:crypto';
import type { CampaignResult, Failure } from './engine/messages.js';
import type { ExploreSession } from './session.js';

export interface ShrinkOptions {
  readonly seed: number;
  /** Candidates at most. Default 5000. */
  readonly schedules?: number;
  /** Default 20000. */
  readonly timeMs?: number;
  readonly onProgress?: (tried: number, switches: number, steps: number) => void;
  readonly signal?: AbortSignal;
}

/** What shrinking came to. */
export interface Shrunk {
  readonly failure: Failure;
  readonly before: ScheduleSize;
  readonly after: ScheduleSize;
  /** Candidates that were run. */
  readonly tried: number;
  /** Nothing more was found, rather than the budget used up. */
  readonly complete: boolean;
}

/** How long a schedule is. */
export interface ScheduleSize {
  /** Times that another thread went on than the one before. */
  readonly switches: number;
  readonly steps: number;
  /** Stores that were made visible out of turn, one each. */
  readonly stores: number;
}

/** So many choices in a row of one thread; or of a store to make visible. */
interface Segment {
  readonly choice: number;
  readonly length: number;
}

const STORE = 256;

export function sizeOf({ choices, steps }: Pick<Failure, 'choices' | 'steps'>): ScheduleSize {
  let switches = 0;
  let stores = 0;
  let thread = -1;
  for (const choice of choices) {
    if (choice >= STORE) stores++;
    else {
      if (thread >= 0 && choice !== thread) switches++;
      thread = choice;
    }
  }
  return { switches, steps, stores };
}

/** Makes a failure of this session short. @returns the shortest one that breaks the same invariant */
export async function shrink(
  session: ExploreSession,
  failure: Failure,
  options: ShrinkOptions,
): Promise<Shrunk> {
  const { schedules = 5000, timeMs = 20_000, onProgress, signal } = options;
  const endMs = performance.now() + timeMs;
  const before = sizeOf(failure);
  let best = failure;
  let tried = 0;
  const seen = new Set<string>([digest(best.choices)]);
  const over = (): boolean => tried >= schedules || performance.now() >= endMs || signal?.aborted === true;

  /** @returns whether the candidate is better, and now the best */
  const attempt = async (choices: readonly number[]): Promise<boolean> => {
    const key = digest(choices);
    if (over() || seen.has(key)) return false;
    seen.add(key);
    tried++;
    const { failure: found } = await runChoices(session, choices, options.seed);
    if (found === null || found.invariant !== failure.invariant || !better(found, best)) return false;
    best = found;
    seen.add(digest(best.choices));
    onProgress?.(tried, sizeOf(best).switches, best.steps);
    return true;
  };

  let improved = true;
  while (improved && !over()) {
    improved = false;
    for (const candidates of [without, joined, ended, cut])
      while (await firstOf(candidates(segmentsOf(best.choices)), attempt)) improved = true;
  }
  return { failure: best, before, after: sizeOf(best), tried, complete: !over() };
}

/** One schedule by these choices; where they end or do not fit, whoever runs goes on. */
export function runChoices(
  session: ExploreSession,
  choices: readonly number[],
  seed: number,
  record = false,
): Promise<CampaignResult> {
  const threads = session.scenario.threads.length;
  const shard = { index: 0, count: 1 };
  return session.run({
    strategy: 'replay',
    options: { threads, seed, depth: 1, preemptions: 0, choices, shard },
    schedules: 1,
    timeMs: Number.POSITIVE_INFINITY,
    record,
  });
}

function better(a: Failure, b: Failure): boolean {
  const [left, right] = [sizeOf(a), sizeOf(b)];
  if (left.switches !== right.switches) return left.switches < right.switches;
  return left.steps + left.stores < right.steps + right.stores;
}

async function firstOf(
  candidates: Iterable<readonly Segment[]>,
  attempt: (choices: readonly number[]) => Promise<boolean>,
): Promise<boolean> {
  for (const candidate of candidates) if (await attempt(choicesOf(candidate))) return true;
  return false;
}

// ---- candidates ----

/** Without some segments in a row: half of them first, then ever fewer. */
function* without(segments: readonly Segment[]): Generator<Segment[]> {
  for (let size = segments.length >> 1; size >= 1; size >>= 1)
    for (let i = 0; i + size <= segments.length; i += size)
      yield [...segments.slice(0, i), ...segments.slice(i + size)];
}

/** What a thread does later it does at once, or what it did before it does then. */
function* joined(segments: readonly Segment[]): Generator<Segment[]> {
  for (let i = 0; i < segments.length; i++) {
    const here = segments[i]!;
    const next = segments.findIndex(({ choice }, n) => n > i && choice === here.choice);
    if (next < 0) continue;
    const both = { choice: here.choice, length: here.length + segments[next]!.length };
    const between = segments.slice(i + 1, next);
    yield [...segments.slice(0, i), both, ...between, ...segments.slice(next + 1)];
    yield [...segments.slice(0, i), ...between, both, ...segments.slice(next + 1)];
  }
}

/** The rest is left to whoever runs. */
function* ended(segments: readonly Segment[]): Generator<Segment[]> {
  for (let length = 1; length < segments.length; length++) yield segments.slice(0, length);
}

/** A thread goes on for less long. */
function* cut(segments: readonly Segment[]): Generator<Segment[]> {
  for (let i = 0; i < segments.length; i++) {
    const { choice, length } = segments[i]!;
    for (const shorter of new Set([1, length >> 1, length - 1]))
      if (shorter > 0 && shorter < length)
        yield [...segments.slice(0, i), { choice, length: shorter }, ...segments.slice(i + 1)];
  }
}

function segmentsOf(choices: readonly number[]): Segment[] {
  const segments: { choice: number; length: number }[] = [];
  for (const choice of choices) {
    const last = segments.at(-1);
    if (last?.choice === choice) last.length++;
    else segments.push({ choice, length: 1 });
  }
  return segments;
}

/** Short, where a schedule may be of 60 000 choices. */
const digest = (choices: readonly number[]): string =>
  createHash('sha256').update(Uint16Array.from(choices)).digest('base64');

const choicesOf = (segments: readonly Segment[]): number[] =>
  segments.flatMap(({ choice, length }) => Array<number>(length).fill(choice));
