/**
 * Probabilistic concurrency testing: every thread has a random priority, the highest that can run does, and at d - 1
 * random steps whoever would run falls behind all others. Burckhardt, Kothari, Musuvathi, Nagarakatte, "A Randomized
 * Scheduler with Probabilistic Guarantees of Finding Bugs", ASPLOS 2010: with n threads and at most k steps, one
 * schedule shows a bug of depth d (d accesses whose order matters) with a probability of at least 1/(n k^(d-1)).
 *
 *   paper                                         here
 *   initial priorities: a permutation of d..d+n-1 a permutation of 0..n-1
 *   change point i: its thread's priority is i<d  -1 - i: below all, and each its own
 *   change points: d-1 of 1..k, at random         distinct ones of the decisions 0..k-1, in random order: rather more
 *                                                 probable than the paper's, which may coincide
 *   k: given                                      the most decisions of any schedule so far; the first only measures
 *
 * The guarantee is for schedules with at most the k that they were planned with; the others, the first among them,
 * count nothing in what summary() says. Kept stores become visible at random, beside priorities: what needs one is
 * not in the guarantee.
 */
import { Random } from '../../stress/random.js';
import { scheduleSeed } from './random.js';
import type { Plan, Run, Strategy, StrategyOptions } from './strategy.js';

export class PctStrategy implements Strategy {
  readonly name = 'pct';
  readonly #options: StrategyOptions;
  #schedules = 0;
  #threads = 1;
  /** The most decisions of a schedule so far; 0: not known. */
  #k = 0;
  #plannedK = 0;
  /** Schedules to which the guarantee applies, and the logarithm of the probability that all of them missed a bug. */
  #guaranteed = 0;
  #logMissed = 0;
  #stores = false;

  constructor(options: StrategyOptions) {
    if (!Number.isInteger(options.depth) || options.depth < 1)
      throw new RangeError('pct: a depth is at least 1');
    this.#options = options;
  }

  next(plan: Plan): boolean {
    const { seed, shard, depth } = this.#options;
    const own = scheduleSeed(seed, this.#schedules++ * shard.count + shard.index);
    const random = new Random(own);
    this.#threads = plan.threads;
    this.#plannedK = this.#k;
    plan.policy = 'pct';
    plan.seed = own;
    plan.setPriorities(
      shuffled(plan.threads, random),
      distinct(this.#k === 0 ? 0 : Math.min(depth - 1, this.#k), this.#k, random),
    );
    return true;
  }

  learn(run: Run): void {
    if (this.#plannedK > 0 && run.length <= this.#plannedK) {
      this.#guaranteed++;
      this.#logMissed += Math.log1p(-pctBound(this.#threads, this.#plannedK, this.#options.depth));
    }
    this.#k = Math.max(this.#k, run.length);
    for (let i = 0; i < run.length && !this.#stores; i++) this.#stores = run.stores(i) > 0;
  }

  summary(): string {
    const { depth } = this.#options;
    const bound = pctBound(this.#threads, Math.max(1, this.#k), depth);
    const one = `n = ${this.#threads} threads, k = ${this.#k} decisions (the longest so far): a schedule shows a bug of depth ${depth} with probability >= 1/(n k^${depth - 1}) = ${bound.toPrecision(3)}`;
    const all = `one there is was missed by the ${this.#guaranteed} schedules that count (no longer than k when planned) with probability <= ${Math.exp(this.#logMissed).toPrecision(3)}`;
    const but = this.#stores ? '; what needs kept stores is not in this' : '';
    return `${this.#schedules} schedules; ${one}; ${all}${but}`;
  }
}

/** Least probability that one schedule of n threads and at most k steps shows a bug of depth d. */
export const pctBound = (n: number, k: number, d: number): number => 1 / (n * k ** (d - 1));

/** 0..n-1 in random order. */
function shuffled(n: number, random: Random): number[] {
  const all = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [all[i], all[j]] = [all[j]!, all[i]!];
  }
  return all;
}

/** `count` different numbers below `bound`, in random order. */
function distinct(count: number, bound: number, random: Random): number[] {
  const points: number[] = [];
  while (points.length < count) {
    const point = random.below(bound);
    if (!points.includes(point)) points.push(point);
  }
  return points;
}
