/**
 * What can be fuzzed. An *operation* is OP_WORDS words: its kind, and arguments whose meaning the kind gives.
 * An *input* is a few operations in a row. An *episode* is the life of one machine: inputs one after the other,
 * with the target's state carried from each to the next, so a failure is told, and repeated, as an episode.
 */
import type { Random } from '../stress/random.js';

export const OP_WORDS = 6;

export interface Target {
  readonly name: string;
  /** What is fuzzed, by kind of operation: for the count of a run. */
  readonly kinds: readonly string[];
  /** Operations in one episode. */
  readonly episodeOps: number;
  /** A new episode begins: the machine is as it was at the start of the first. */
  reset(): void;
  /** Makes an operation that has a fair chance of being taken. */
  fresh(random: Random, ops: Uint32Array, at: number): void;
  /**
   * Executes the operation at word `at`.
   * @returns what became of it, as a number: two that differ are worth telling apart
   */
  apply(ops: Uint32Array, at: number): number;
  /** Looks at everything that must hold. @returns what does not, or null */
  check(): string | null;
  /** Ends what the target holds. */
  close(): void;
}

/** A word that hardware has opinions about: small numbers, single bits, all ones, or anything. */
export function plausibleWord(random: Random): number {
  switch (random.below(6)) {
    case 0:
      return random.below(64);
    case 1:
      return (1 << random.below(32)) >>> 0;
    case 2:
      return 0;
    case 3:
      return 0xffff_ffff;
    default:
      return random.next();
  }
}

/** A kind of operation, each as likely as its weight says. */
export function pickKind(random: Random, weights: readonly number[]): number {
  let dice = random.below(weights.reduce((sum, weight) => sum + weight, 0));
  let kind = 0;
  while (dice >= weights[kind]!) dice -= weights[kind++]!;
  return kind;
}
