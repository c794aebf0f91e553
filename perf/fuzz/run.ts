/**
 * A fuzzing run: the count is shared out to shards, a target and a thread each; a shard that makes no progress is a
 * hang, and counts as a failure like any other.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Piscina } from 'piscina';
import { loadCorpus, saveCorpus } from './corpus.js';
import { Progress, progressMemory } from './progress.js';
import type { FuzzFailure, FuzzListener, FuzzOptions, FuzzResult, FuzzShard, ShardResult } from './types.js';

const LOOK_MS = 250;
/** An input takes microseconds; shrinking reports nothing, and takes seconds. */
const HANG_MS = 60_000;

/** @throws Error a corpus folder that cannot be read or written */
export async function runFuzz(
  options: FuzzOptions,
  listener: FuzzListener,
  signal: AbortSignal,
): Promise<FuzzResult> {
  const began = performance.now();
  const shards = shareOut(options);
  const meters = shards.map(({ shared, slot }) => new Progress(shared, slot));
  const pool = new Piscina({
    filename: new URL('./shard.js', import.meta.url).href,
    minThreads: 0,
    maxThreads: options.jobs,
    atomics: 'disabled',
    recordTiming: false,
  });
  const results: ShardResult[] = [];
  const failures: FuzzFailure[] = [];
  const started = shards.map(() => false);
  let left = shards.length;
  const running = shards.map(async (shard, i) => {
    try {
      const result = (await pool.run(shard)) as ShardResult;
      results.push(result);
      if (result.failure !== null) failures.push(result.failure);
    } catch (error) {
      // The thread is gone: out of memory, or ended below because it hung.
      failures.push(lost(shard, meters[i]!, error instanceof Error ? error.message : String(error)));
    } finally {
      left--;
    }
  });
  const seen = meters.map(() => ({ ops: -1, atMs: began }));
  while (left > 0) {
    await sleep(LOOK_MS);
    if (signal.aborted) meters[0]?.requestStop();
    const now = performance.now();
    for (const [i, meter] of meters.entries()) {
      const { ops } = meter;
      started[i] ||= ops > 0;
      if (ops !== seen[i]!.ops || !started[i]) seen[i] = { ops, atMs: now };
    }
    listener.progress(sum(meters.map(({ ops }) => ops)), sum(meters.map(({ features }) => features)));
    const done = results.length + failures.length;
    if (done < shards.length && seen.every(({ atMs }) => now - atMs > HANG_MS)) await pool.destroy();
  }
  await Promise.all(running);
  await pool.destroy();
  if (options.corpus !== null)
    for (const { target, found } of results) saveCorpus(options.corpus, target, found);
  return {
    seed: options.seed,
    ops: sum(results.map(({ ops }) => ops)),
    seconds: (performance.now() - began) / 1000,
    interrupted: signal.aborted,
    shards: results,
    failures,
  };
}

/** Each target on every thread; none below what an episode is good for. */
function shareOut({ count, seed, targets, corpus, jobs }: FuzzOptions): FuzzShard[] {
  const shared = progressMemory(targets.length * jobs);
  const shards = targets.flatMap((target, t) => {
    const inputs = corpus === null ? [] : loadCorpus(corpus, target);
    return Array.from({ length: jobs }, (_, j): FuzzShard => {
      const slot = t * jobs + j;
      return { target, seed: (seed + slot * 0x9e37_79b1) >>> 0, count: 0, inputs, shared, slot };
    });
  });
  return shards.map((shard, i) => ({
    ...shard,
    count: Math.floor(count / shards.length) + (i < count % shards.length ? 1 : 0),
  }));
}

function lost(shard: FuzzShard, meter: Progress, reason: string): FuzzFailure {
  const ops = meter.input();
  return {
    target: shard.target,
    seed: shard.seed,
    message: `the thread was lost after ${meter.ops} operations, in the input shown: ${reason}`,
    ops,
    foundOps: meter.ops,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
