import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Corpus, formatInput, loadCorpus, parseInput, saveCorpus } from '../../../perf/fuzz/corpus.js';
import { nextInput, scratchInput } from '../../../perf/fuzz/mutate.js';
import { failureOf, shrink } from '../../../perf/fuzz/shrink.js';
import type { Target } from '../../../perf/fuzz/target.js';
import { Random } from '../../../perf/stress/random.js';

const OP_WORDS = 6;

/** Operations whose second word is 1, 2, 3 ... */
const numbered = (...values: number[]): Uint32Array => {
  const ops = new Uint32Array(values.length * OP_WORDS);
  values.forEach((value, i) => {
    ops[i * OP_WORDS + 1] = value;
  });
  return ops;
};
const valuesOf = (ops: Uint32Array): number[] =>
  Array.from({ length: ops.length / OP_WORDS }, (_, i) => ops[i * OP_WORDS + 1]!);

test('shrink: keeps the operations that matter, in their order', (t) => {
  const ops = numbered(...Array.from({ length: 500 }, (_, i) => i));
  const small = shrink(ops, (some) => {
    const values = valuesOf(some);
    return values.includes(17) && values.indexOf(301) > values.indexOf(17) && values.includes(499);
  });
  t.deepEqual(valuesOf(small), [17, 301, 499]);
});

test('shrink: what does not fail again is kept whole', (t) => {
  const ops = numbered(1, 2, 3);
  t.is(
    shrink(ops, () => false),
    ops,
  );
});

/** Fails at an operation whose second word is 13, or throws at 14. */
class Unlucky implements Target {
  readonly name = 'unlucky';
  readonly kinds = ['any'];
  readonly episodeOps = 100;
  #seen = false;
  reset(): void {
    this.#seen = false;
  }
  fresh(random: Random, ops: Uint32Array, at: number): void {
    ops[at] = 0;
    ops[at + 1] = random.below(1000);
  }
  apply(ops: Uint32Array, at: number): number {
    if (ops[at + 1] === 14) throw new Error('fourteen');
    this.#seen ||= ops[at + 1] === 13;
    return ops[at + 1]!;
  }
  check(): string | null {
    return this.#seen ? 'thirteen' : null;
  }
  close(): void {
    this.reset();
  }
}

test('an episode fails by a check or by an exception, and is otherwise clean', (t) => {
  const target = new Unlucky();
  t.is(failureOf(target, numbered(1, 2, 13, 4)), 'thirteen');
  t.is(failureOf(target, numbered(1, 14, 13)), 'fourteen');
  t.is(failureOf(target, numbered(1, 2)), null);
});

test('mutate: inputs are whole operations, and come from what is kept as well as from nothing', (t) => {
  const target = new Unlucky();
  const random = new Random(5);
  const kept = numbered(7001, 7002, 7003);
  let related = 0;
  for (let i = 0; i < 500; i++) {
    const input = nextInput(target, [kept], random, scratchInput());
    t.true(input.length > 0 && input.length % OP_WORDS === 0);
    if (valuesOf(input).some((value) => value >= 7000 && value <= 7003)) related++;
  }
  t.true(related > 150 && related < 450, `${related} of 500`);
});

test('corpus: an outcome is new once; a file keeps inputs, and damaged lines are passed over', (t) => {
  const corpus = new Corpus();
  t.true(corpus.note(0, 5));
  t.false(corpus.note(0, 5));
  t.true(corpus.note(1, 5), 'after something else');
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-corpus-'));
  try {
    t.deepEqual(loadCorpus(folder, 'unit'), []);
    const inputs = [numbered(1, 2), numbered(0xffff_ffff)];
    saveCorpus(folder, 'unit', inputs);
    saveCorpus(folder, 'unit', [numbered(3)]);
    t.deepEqual(loadCorpus(folder, 'unit').map(valuesOf), [[1, 2], [0xffff_ffff], [3]]);
    writeFileSync(
      join(folder, 'guest.jsonl'),
      `nonsense\n"1 2 3"\n${formatInput(numbered(9))}\n"100000000 1 1 1 1 1"\n`,
    );
    t.deepEqual(loadCorpus(folder, 'guest').map(valuesOf), [[9]]);
  } finally {
    rmSync(folder, { recursive: true });
  }
  t.is(parseInput('""'), null);
});
