/**
 * Guided by coverage: a schedule that showed a new ordering (orderings.ts) is kept, and later ones are made from those
 * kept, as a fuzzer makes inputs (the loop of Wolff et al., "Greybox Fuzzing for Concurrency Testing", ASPLOS 2024,
 * where what is new are reads-from pairs). Of ten schedules
 *
 *   4  keep a prefix of a kept one, then walk at random
 *   3  flip one choice of it, and follow the rest as far as it fits
 *   2  splice: a prefix of one, then the end of another
 *   1  is a random walk
 *
 * What no longer fits after a change is left to chance. There is no guarantee, and no end: orderings stop growing.
 */
import { Random } from '../../stress/random.js';
import { Orderings } from './orderings.js';
import { scheduleSeed } from './random.js';
import type { Plan, Run, Strategy, StrategyOptions } from './strategy.js';

/** Kept at most; then one at random makes room. */
const CORPUS = 4096;

export class CoverageStrategy implements Strategy {
  readonly name = 'coverage';
  readonly wantsSites = true;
  readonly #options: StrategyOptions;
  readonly #orderings = new Orderings();
  readonly #corpus: Int32Array[] = [];
  #random = new Random(1);
  #schedules = 0;
  #lastNew = 0;

  constructor(options: StrategyOptions) {
    this.#options = options;
  }

  next(plan: Plan): boolean {
    const { seed, shard } = this.#options;
    const own = scheduleSeed(seed, this.#schedules++ * shard.count + shard.index);
    this.#random = new Random(own);
    plan.policy = 'random';
    plan.seed = own;
    plan.hints = this.#corpus.length === 0 ? [] : this.#mutant(plan.threads);
    return true;
  }

  learn(run: Run): void {
    if (this.#orderings.add(run) === 0) return;
    this.#lastNew = this.#schedules;
    if (this.#corpus.length < CORPUS) this.#corpus.push(run.choices());
    else this.#corpus[this.#random.below(CORPUS)] = run.choices();
  }

  summary(): string {
    return `${this.#schedules} schedules, ${this.#orderings.count} orderings of two sites, the last new one in schedule ${this.#lastNew}; ${this.#corpus.length} schedules kept`;
  }

  #mutant(threads: number): ArrayLike<number> {
    const random = this.#random;
    const kind = random.below(10);
    const parent = this.#parent();
    const at = random.below(parent.length);
    if (kind < 4) return parent.subarray(0, at);
    if (kind < 7) {
      const flipped = parent.slice();
      flipped[at] = random.below(threads);
      return flipped;
    }
    if (kind < 9) {
      const other = this.#parent();
      return [...parent.subarray(0, at), ...other.subarray(random.below(other.length))];
    }
    return [];
  }

  /** One of the corpus; every other time one of the newest, as there is most left to find. */
  #parent(): Int32Array {
    const { length } = this.#corpus;
    const newest = Math.min(length, 8);
    const fromNewest = this.#random.below(2) === 0;
    return this.#corpus[fromNewest ? length - 1 - this.#random.below(newest) : this.#random.below(length)]!;
  }
}
