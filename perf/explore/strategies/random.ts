/** Random walk: at each decision, every thread that can run is as likely as the others. */
import type { Plan, Strategy, StrategyOptions } from './strategy.js';

export class RandomStrategy implements Strategy {
  readonly name = 'random';
  readonly #options: StrategyOptions;
  #schedules = 0;

  constructor(options: StrategyOptions) {
    this.#options = options;
  }

  next(plan: Plan): boolean {
    const { seed, shard } = this.#options;
    plan.policy = 'random';
    plan.choices = [];
    // Schedule n of a seed is the same however many shards there are.
    plan.seed = scheduleSeed(seed, this.#schedules++ * shard.count + shard.index);
    return true;
  }

  summary(): string {
    return `${this.#schedules} random ${this.#schedules === 1 ? 'walk' : 'walks'}`;
  }
}

/** A well-mixed seed for the n-th schedule of a campaign; not 0. */
export function scheduleSeed(seed: number, n: number): number {
  let x = (seed ^ Math.imul(n + 1, 0x9e3779b1)) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) | 0 || 1;
}
