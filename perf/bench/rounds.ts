/**
 * Rounds, turn and turn about: what is compared runs within the same few milliseconds, so that a neighbour who
 * takes the processor away takes it from all alike. Threads that are busy in a round are pinned, one to a
 * processor; a round in which one of them did not have its own is dropped.
 */
import { currentThread, pin, ranNs, TICK_NS, unpin, workerThreads } from './affinity.js';
import { type Figure, type FigureName, figureOf, type Sample } from './figures.js';

/** One thing to measure. */
export interface Case {
  readonly figures: readonly FigureName[];
  /** Threads that never rest during a round, at most two: the calling one, and a worker. They are pinned. */
  readonly busyThreads?: number;
  round(): Round | Promise<Round>;
}

/** What one round gave, for each figure of its case in their order. */
export interface Round {
  readonly values: readonly number[];
  /** Compared with something within the round: more is better. */
  readonly ratios?: readonly (number | null)[];
  /** Share of the time that threads which the case itself watches had a processor. */
  readonly share?: number;
}

/** Cases that share a set-up. */
export interface Group {
  readonly cases: readonly Case[];
  /** Its rounds start processes, which would inherit where this thread may run: nothing is pinned. */
  readonly startsProcesses?: boolean;
  close(): void | Promise<void>;
}

/** How much to do. */
export interface Scale {
  readonly rounds: number;
  /** Rounds that are thrown away: the engine is still compiling. */
  readonly warmUp: number;
  /** Repetitions within a round, relative to the usual. */
  readonly work: number;
}

export const FULL: Scale = { rounds: 41, warmUp: 6, work: 1 };
export const QUICK: Scale = { rounds: 7, warmUp: 3, work: 0.25 };

/** Share of the processor time that a busy thread could have had, below which a round does not count. */
const OURS = 0.95;
/** On a machine that others use: so many times the rounds asked for, and no more. */
const MOST_TRIES = 4;

/** At least 1. */
export const repetitions = (usual: number, scale: Scale): number =>
  Math.max(1, Math.round(usual * scale.work));

interface Taken extends Round {
  readonly ours: boolean;
}

/**
 * @param signal  ends after the round under way, with the figures of those there are
 * @returns a figure for each of each case's, over the rounds that count: those in which the machine was ours,
 *          or all of them where it hardly ever was
 */
export async function runRounds(
  { cases, startsProcesses = false }: Pick<Group, 'cases' | 'startsProcesses'>,
  scale: Scale,
  signal?: AbortSignal,
): Promise<Figure[]> {
  const taken = cases.map((): Taken[] => []);
  const enough = (rounds: readonly Taken[]): boolean =>
    rounds.filter(({ ours }) => ours).length >= scale.rounds || rounds.length >= MOST_TRIES * scale.rounds;
  const me = currentThread();
  for (let i = 0; i < scale.warmUp - 1; i++) for (const each of cases) await each.round();
  const busy: number[][] = [];
  const pinsWorkers = cases.some(({ busyThreads = 0 }) => busyThreads > 0);
  if (!startsProcesses) pin(me, 0);
  // Every worker, the idle ones too: a thread that may run anywhere is woken on the processor of who wakes it.
  if (pinsWorkers) for (const thread of workerThreads()) pin(thread, 1);
  for (const each of cases) busy.push(await busyThreadsOf(each, scale.warmUp > 0));
  try {
    while (!taken.every(enough) && signal?.aborted !== true)
      for (const [i, each] of cases.entries())
        if (!enough(taken[i]!)) taken[i]!.push(await takeRound(each, busy[i]!));
  } finally {
    unpin(me);
  }
  return cases.flatMap(({ figures }, i) => {
    const ours = taken[i]!.filter((round) => round.ours);
    const kept = ours.length * 2 >= scale.rounds ? ours : taken[i]!;
    const dropped = taken[i]!.length - kept.length;
    const disturbed = kept.length - kept.filter((round) => round.ours).length;
    if (kept.length === 0) return [];
    return figures.map((figure, j) =>
      figureOf(
        figure,
        kept.map(({ values, ratios }): Sample => ({ value: values[j]!, ratio: ratios?.[j] ?? null })),
        { dropped, disturbed },
      ),
    );
  });
}

/** The calling thread, and the worker that ran most in one more warm-up round. */
async function busyThreadsOf(each: Case, look: boolean): Promise<number[]> {
  const { busyThreads = 0 } = each;
  if (!look) return [];
  const before = new Map(workerThreads().map((thread) => [thread, ranNs(thread)]));
  await each.round();
  if (busyThreads === 0) return [];
  const ran = [...before]
    .map(([thread, ns]) => ({ thread, ns: ranNs(thread) - ns }))
    .sort((a, b) => b.ns - a.ns);
  return [currentThread(), ...ran.slice(0, busyThreads - 1).map(({ thread }) => thread)];
}

async function takeRound(each: Case, busy: readonly number[]): Promise<Taken> {
  const before = busy.map(ranNs);
  const began = performance.now();
  const round = await each.round();
  const wallNs = (performance.now() - began) * 1e6;
  // A case that takes turns with another process watches both by itself.
  const shares = busy.map((thread, i) => {
    const ran = ranNs(thread) - before[i]! + (i === 0 ? 0 : TICK_NS);
    return round.share === undefined ? ran / wallNs : 1;
  });
  const share = Math.min(round.share ?? 1, ...shares.filter((one) => !Number.isNaN(one)));
  return { ...round, ours: share >= OURS };
}

/** @returns milliseconds */
export function timed(run: () => void): number {
  const began = performance.now();
  run();
  return performance.now() - began;
}

/** A stretch of this thread's work: how long it took, and which part of that it had a processor. */
export function watched(run: () => void): { ms: number; share: number } {
  const me = currentThread();
  const ran = ranNs(me);
  const ms = timed(run);
  const share = (ranNs(me) - ran) / (ms * 1e6);
  return { ms, share: Number.isNaN(share) ? 1 : share };
}

/** What was to be measured did not happen: a figure would be of something else. */
export function must(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`bench: ${what}`);
}
