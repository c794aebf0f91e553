/** What a fuzzing run takes and tells. */

export const TARGET_NAMES = ['unit', 'guest', 'ioctl', 'wire'] as const;
export type TargetName = (typeof TARGET_NAMES)[number];

export interface FuzzOptions {
  /** Operations in all, over the targets. */
  readonly count: number;
  readonly seed: number;
  readonly targets: readonly TargetName[];
  /** Folder of kept inputs, read and added to; null: neither. */
  readonly corpus: string | null;
  /** Threads, each with machines of its own. */
  readonly jobs: number;
}

/** A property that did not hold, as small as it could be made. */
export interface FuzzFailure {
  readonly target: TargetName;
  /** Of the shard that found it. */
  readonly seed: number;
  readonly message: string;
  /** The operations, from a fresh machine on. */
  readonly ops: Uint32Array;
  /** Before it was made smaller. */
  readonly foundOps: number;
}

/** What one thread is to do, and what it says. */
export interface FuzzShard {
  readonly target: TargetName;
  readonly seed: number;
  readonly count: number;
  readonly inputs: readonly Uint32Array[];
  readonly shared: SharedArrayBuffer;
  /** Which slot of `shared` is this shard's. */
  readonly slot: number;
}

export interface ShardResult {
  readonly target: TargetName;
  readonly ops: number;
  /** Operations of each kind, by its name. */
  readonly byKind: Readonly<Record<string, number>>;
  /** Different outcomes seen. */
  readonly features: number;
  /** Inputs worth keeping. */
  readonly found: readonly Uint32Array[];
  readonly failure: FuzzFailure | null;
}

export interface FuzzResult {
  readonly seed: number;
  readonly ops: number;
  readonly seconds: number;
  readonly interrupted: boolean;
  readonly shards: readonly ShardResult[];
  readonly failures: readonly FuzzFailure[];
}

export interface FuzzListener {
  /** A few times a second. @param ops  so far */
  progress(ops: number, features: number): void;
}
