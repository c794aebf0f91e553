/** The strategies by name. */
import { CoverageStrategy } from './coverage.js';
import { DfsStrategy } from './dfs.js';
import { PctStrategy } from './pct.js';
import { RandomStrategy } from './random.js';
import { ReplayStrategy } from './replay.js';
import type { Strategy, StrategyOptions } from './strategy.js';

const STRATEGIES = {
  coverage: CoverageStrategy,
  dfs: DfsStrategy,
  pct: PctStrategy,
  random: RandomStrategy,
  replay: ReplayStrategy,
} satisfies Record<string, new (options: StrategyOptions) => Strategy>;

/** Who goes next: see perf/README.md. */
export type StrategyName = keyof typeof STRATEGIES;
export const STRATEGY_NAMES = Object.keys(STRATEGIES) as StrategyName[];

export const createStrategy = (name: StrategyName, options: StrategyOptions): Strategy =>
  new STRATEGIES[name](options);
