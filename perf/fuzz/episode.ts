/** One shard: episode after episode of one target, until the count is reached or something does not hold. */
import { Random } from '../stress/random.js';
import { Corpus } from './corpus.js';
import { GuestTarget } from './guest-target.js';
import { IoctlTarget } from './ioctl-target.js';
import { nextInput, scratchInput } from './mutate.js';
import { Progress } from './progress.js';
import { fails, shrink } from './shrink.js';
import { OP_WORDS, type Target } from './target.js';
import type { FuzzShard, ShardResult, TargetName } from './types.js';
import { UnitTarget } from './unit-target.js';
import { WireTarget } from './wire-target.js';

/** Operations between two looks at everything that must hold. */
export const CHECK_EVERY = 64;

export function makeTarget(name: TargetName): Target {
  switch (name) {
    case 'unit':
      return new UnitTarget();
    case 'guest':
      return new GuestTarget();
    case 'ioctl':
      return new IoctlTarget();
    case 'wire':
      return new WireTarget();
  }
}

export function runShard(shard: FuzzShard): ShardResult {
  const progress = new Progress(shard.shared, shard.slot);
  const random = new Random(shard.seed);
  const target = makeTarget(shard.target);
  const corpus = new Corpus(shard.inputs);
  const counts = target.kinds.map(() => 0);
  const scratch = scratchInput();
  const episode = new Uint32Array((target.episodeOps + scratch.length) * OP_WORDS);
  let total = 0;
  let found: string | null = null;
  let words = 0;
  while (total < shard.count && found === null && !progress.stopRequested) {
    target.reset();
    words = 0;
    let before = 0;
    let unchecked = 0;
    while (words < target.episodeOps * OP_WORDS && total < shard.count && found === null) {
      const input = nextInput(target, corpus.inputs, random, scratch);
      // Written down first: whoever finds this thread stuck can read what it was about to do.
      progress.begin(input);
      episode.set(input, words);
      let isNew = false;
      try {
        for (let at = 0; at < input.length; at += OP_WORDS) {
          const outcome = target.apply(input, at);
          isNew = corpus.note(before, outcome) || isNew;
          // Of the one before, its kind: pairs of whole outcomes are nearly always new.
          before = outcome >>> 24;
          const kind = input[at]! % counts.length;
          counts[kind] = counts[kind]! + 1;
        }
        words += input.length;
        unchecked += input.length / OP_WORDS;
        if (unchecked >= CHECK_EVERY) {
          unchecked = 0;
          found = target.check();
        }
      } catch (error) {
        words += input.length;
        found = messageOf(error);
      }
      if (isNew && found === null) corpus.add(input.slice());
      total += input.length / OP_WORDS;
      progress.done(total, corpus.features);
    }
    if (found === null) found = lastLook(target);
  }
  const whole = episode.slice(0, words);
  const failure =
    found === null
      ? null
      : {
          target: shard.target,
          seed: shard.seed,
          message: found,
          ops: shrink(whole, (ops) => fails(target, ops)),
          foundOps: words / OP_WORDS,
        };
  target.close();
  return {
    target: shard.target,
    ops: total,
    byKind: Object.fromEntries(target.kinds.map((kind, i) => [kind, counts[i]!])),
    features: corpus.features,
    found: corpus.found,
    failure,
  };
}

function lastLook(target: Target): string | null {
  try {
    return target.check();
  } catch (error) {
    return messageOf(error);
  }
}

/** The first line says what; the stack says where. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
