/** What a command touches of the process it runs in, so that a test can stand in for it. */
import type { StressListener, StressOptions, StressResult } from '../perf/stress/types.js';

export interface Output {
  readonly isTTY?: boolean;
  /** Of a terminal, else undefined. */
  readonly columns?: number;
  write(text: string): unknown;
}

export type RunStress = (
  options: StressOptions,
  listener: StressListener,
  signal: AbortSignal,
) => Promise<StressResult>;

export interface Surroundings {
  readonly stdout: Output;
  readonly stderr: Output;
  /** Aborted by the first Ctrl-C, or when nobody reads stdout any more. */
  readonly signal: AbortSignal;
  /** Loads the experiment: late, because it pulls in everything, and `--help` should not wait for it. */
  loadStress(): Promise<RunStress>;
}

/** Exit codes of every command. */
export const EXIT_CLEAN = 0;
export const EXIT_FOUND = 1;
export const EXIT_USAGE = 2;
