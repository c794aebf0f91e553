/** How inputs come about: anew, or from one that is worth keeping, changed a little. */
import type { Random } from '../stress/random.js';
import { OP_WORDS, plausibleWord, type Target } from './target.js';

const MAX_OPS = 24;
const FRESH_PERCENT = 40;
const MAX_CHANGES = 4;

/** @param corpus  inputs to start from; empty: everything is new */
export function nextInput(
  target: Target,
  corpus: readonly Uint32Array[],
  random: Random,
  scratch: Uint32Array,
): Uint32Array {
  if (corpus.length === 0 || random.chance(FRESH_PERCENT)) return fresh(target, random, scratch);
  const parent = corpus[random.below(corpus.length)]!;
  const input = scratch.subarray(0, Math.min(parent.length, scratch.length));
  input.set(parent.subarray(0, input.length));
  for (let n = 1 + random.below(MAX_CHANGES); n > 0; n--) change(target, corpus, random, input);
  return input;
}

/** Room for the longest input. */
export const scratchInput = (): Uint32Array => new Uint32Array(MAX_OPS * OP_WORDS);

function fresh(target: Target, random: Random, scratch: Uint32Array): Uint32Array {
  const input = scratch.subarray(0, (1 + random.below(MAX_OPS)) * OP_WORDS);
  for (let at = 0; at < input.length; at += OP_WORDS) target.fresh(random, input, at);
  return input;
}

function change(target: Target, corpus: readonly Uint32Array[], random: Random, input: Uint32Array): void {
  const ops = input.length / OP_WORDS;
  const at = random.below(ops) * OP_WORDS;
  switch (random.below(6)) {
    case 0:
      target.fresh(random, input, at);
      return;
    case 1: {
      // An operation of another input in place of this one.
      const other = corpus[random.below(corpus.length)]!;
      const from = random.below(other.length / OP_WORDS) * OP_WORDS;
      input.set(other.subarray(from, from + OP_WORDS), at);
      return;
    }
    case 2:
      swap(input, at, random.below(ops) * OP_WORDS);
      return;
    case 3:
      // Any word but the kind.
      input[at + 1 + random.below(OP_WORDS - 1)] = plausibleWord(random);
      return;
    default: {
      const word = at + 1 + random.below(OP_WORDS - 1);
      input[word] = (input[word]! ^ (1 << random.below(32))) >>> 0;
    }
  }
}

function swap(input: Uint32Array, a: number, b: number): void {
  for (let i = 0; i < OP_WORDS; i++) {
    const word = input[a + i]!;
    input[a + i] = input[b + i]!;
    input[b + i] = word;
  }
}
