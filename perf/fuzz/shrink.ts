/**
 * Makes a failing episode smaller: delta debugging ([Zeller, Hildebrandt 2002], "Simplifying and Isolating
 * Failure-Inducing Input", the ddmin algorithm), an operation the unit.
 */
import { OP_WORDS, type Target } from './target.js';

const MAX_RUNS = 2000;
const CHECK_EVERY = 64;

/** Runs an episode on a fresh machine. @returns whether anything does not hold */
export function fails(target: Target, ops: Uint32Array): boolean {
  return failureOf(target, ops) !== null;
}

/** The same. @returns what does not hold, or null */
export function failureOf(target: Target, ops: Uint32Array): string | null {
  try {
    target.reset();
    for (let at = 0; at < ops.length; at += OP_WORDS) {
      target.apply(ops, at);
      if ((at / OP_WORDS) % CHECK_EVERY === CHECK_EVERY - 1) {
        const found = target.check();
        if (found !== null) return found;
      }
    }
    return target.check();
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/**
 * @param test  whether an episode still fails
 * @returns a subsequence that does, of which no single operation can be left out if the runs sufficed; the whole
 *          when even that does not fail again
 */
export function shrink(ops: Uint32Array, test: (ops: Uint32Array) => boolean): Uint32Array {
  let current = ops;
  let runs = 1;
  if (!test(current)) return ops;
  for (let parts = 2; current.length > OP_WORDS; ) {
    const count = current.length / OP_WORDS;
    const size = Math.ceil(count / parts);
    let smaller: Uint32Array | null = null;
    for (let first = 0; first < count && smaller === null; first += size) {
      if (runs++ >= MAX_RUNS) return current;
      const without = leaveOut(current, first, Math.min(first + size, count));
      if (without.length > 0 && test(without)) smaller = without;
    }
    if (smaller !== null) {
      current = smaller;
      parts = Math.max(parts - 1, 2);
    } else if (size === 1) break;
    else parts = Math.min(parts * 2, count);
  }
  return current;
}

function leaveOut(ops: Uint32Array, first: number, end: number): Uint32Array {
  const rest = new Uint32Array(ops.length - (end - first) * OP_WORDS);
  rest.set(ops.subarray(0, first * OP_WORDS));
  rest.set(ops.subarray(end * OP_WORDS), first * OP_WORDS);
  return rest;
}
