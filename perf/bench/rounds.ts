/**
 * Rounds, turn and turn about: what is compared runs within the same few milliseconds, so that a neighbour who
 * takes the processor away takes it from all alike. A round in which somebody took much of it is dropped.
 */
import { type Figure, type FigureName, figureOf } from './figures.js';

/** One thing to measure: each round gives one value for each of its figures, in their order. */
export interface Case {
  readonly figures: readonly FigureName[];
  /** Threads that never rest during a round. */
  readonly busyThreads?: number;
  round(): readonly number[];
}

/** Cases that share a set-up. */
export interface Group {
  readonly cases: readonly Case[];
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

/** Share of the processor time that its threads could have used, below which a round does not count. */
const OURS = 0.93;
/** On a machine that others use: so many times the rounds asked for, and no more. */
const MOST_TRIES = 4;

/** At least 1. */
export const repetitions = (usual: number, scale: Scale): number =>
  Math.max(1, Math.round(usual * scale.work));

/**
 * @returns a figure for each of each case's, over the rounds that count: those in which the machine was ours,
 *          or all of them where it hardly ever was
 */
export function runRounds(cases: readonly Case[], scale: Scale): Figure[] {
  const taken = cases.map((): Round[] => []);
  const enough = (rounds: readonly Round[]): boolean =>
    rounds.filter(({ ours }) => ours).length >= scale.rounds || rounds.length >= MOST_TRIES * scale.rounds;
  for (let i = 0; i < scale.warmUp; i++) for (const each of cases) each.round();
  while (!taken.every(enough))
    cases.forEach((each, i) => {
      if (!enough(taken[i]!)) taken[i]!.push(takeRound(each));
    });
  return cases.flatMap(({ figures }, i) => {
    const ours = taken[i]!.filter((round) => round.ours);
    const kept = ours.length * 2 >= scale.rounds ? ours : taken[i]!;
    const dropped = taken[i]!.length - kept.length;
    return figures.map((figure, j) => ({
      ...figureOf(
        figure,
        kept.map(({ values }) => values[j]!),
      ),
      dropped,
    }));
  });
}

interface Round {
  readonly values: readonly number[];
  /** Nobody else had our processors meanwhile. */
  readonly ours: boolean;
}

function takeRound({ busyThreads = 0, round }: Case): Round {
  const cpu = process.cpuUsage();
  const began = performance.now();
  const values = round();
  const wantedUs = busyThreads * (performance.now() - began) * 1e3;
  const { user, system } = process.cpuUsage(cpu);
  return { values, ours: user + system >= wantedUs * OURS };
}

/** @returns milliseconds */
export function timed(run: () => void): number {
  const began = performance.now();
  run();
  return performance.now() - began;
}

/** What was to be measured did not happen: a figure would be of something else. */
export function must(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`bench: ${what}`);
}
