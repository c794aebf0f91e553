/** The strategies by name. */
import { DfsStrategy } from './dfs.js';
import { RandomStrategy } from './random.js';
import { ReplayStrategy } from './replay.js';
import type { Strategy, StrategyOptions } from './strategy.js';

const STRATEGIES = {
  dfs: DfsStrategy,
  random: RandomStrategy,
  replay: ReplayStrategy,
} satisfies Record<string, new (options: StrategyOptions) => Strategy>;

export type StrategyName = keyof typeof STRATEGIES;
export const STRATEGY_NAMES = Object.keys(STRATEGIES) as StrategyName[];

export const createStrategy = (name: StrategyName, options: StrategyOptions): Strategy =>
  new STRATEGIES[name](options);
