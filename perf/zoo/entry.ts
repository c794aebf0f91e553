/** One bug of the zoo, and how it is found. */
import type { BugName } from '../../hw/bugs/bug-switches.js';
import type { StrategyName } from '../explore/strategies/index.js';

export interface ZooEntry {
  readonly bug: BugName;
  /** The module below perf/explore/scenarios, without its ending, and its export. */
  readonly scenario: { readonly file: string; readonly export: string };
  readonly strategy: StrategyName;
  /** Schedules within which it must be found; as many must be clean without it. At most 10000. */
  readonly budget: number;
  readonly depth?: number;
  readonly preemptions?: number;
}
