/** What a pool thread runs. */
import { runShard } from './episode.js';
import type { FuzzShard, ShardResult } from './types.js';

export default function shard(task: FuzzShard): ShardResult {
  return runShard(task);
}
