/** Every fetch beside every store of the transitions that Linux's KUnit cases make: each is what that case says. */
import test from 'ava';
import { exploreFetch, type WriterEvent } from './fetch-interleavings.js';
import { KUNIT_CASES } from './kunit-cases.js';
import { judge, recordWriter } from './transition.js';

test('all 24 transition cases of arm-smmu-v3-test.c are here, each under its own name', (t) => {
  t.is(KUNIT_CASES.length, 24);
  t.is(new Set(KUNIT_CASES.map(({ name }) => name)).size, 24);
});

for (const { name, transitions } of KUNIT_CASES)
  for (const [i, { kind, from, to, syncs, hitless }] of transitions.entries())
    test(`${name}${transitions.length > 1 ? (i === 0 ? ', there' : ', back') : ''}`, (t) => {
      const verdict = judge(kind, from, to);
      t.is(verdict.syncs, syncs);
      t.is(verdict.zeroed, !hitless);
      t.true(verdict.arrives);
      t.true(verdict.images > 1);
      t.true(verdict.interleavings > 0n);
      t.deepEqual(verdict.mixtures, []);
      // Between two valid entries a hitless change never shows V = 0; Linux also counts a first or last V = 0.
      const valid = kind === 'ste' || (from[0] !== 0n && to[0] !== 0n);
      if (valid) t.is(verdict.invalid > 0, !hitless);
      else t.is(verdict.invalid, 0);
      t.true(verdict.old > 0 && verdict.fresh > 0);
    });

/** Every order of `items`. */
function* permutations<T>(items: readonly T[]): Generator<T[]> {
  if (items.length === 0) yield [];
  for (let i = 0; i < items.length; i++)
    for (const rest of permutations([...items.slice(0, i), ...items.slice(i + 1)]))
      yield [items[i]!, ...rest];
}

/** The same as exploreFetch, word by word in every order, nothing left out. For entries of four words. */
function literally(before: readonly bigint[], events: readonly WriterEvent[]) {
  const images = new Set<string>();
  let interleavings = 0n;
  const memory = [...before];
  const epochs: WriterEvent[][] = [[]];
  for (const event of events) {
    if (event === 'sync') epochs.push([]);
    else epochs.at(-1)!.push(event);
  }
  for (const epoch of epochs) {
    const stores = epoch.filter((event) => typeof event === 'object');
    const groups = epoch.map((_, i) => epoch.slice(0, i).filter((event) => event === 'barrier').length);
    const groupOf = (store: WriterEvent): number => groups[epoch.indexOf(store)]!;
    for (const order of permutations([...stores, ...before.keys()])) {
      const shown = order.filter((step) => typeof step === 'object');
      if (shown.some((store, i) => shown.slice(0, i).some((other) => groupOf(other) > groupOf(store))))
        continue;
      interleavings++;
      const now = [...memory];
      const read: bigint[] = [];
      for (const step of order)
        if (typeof step === 'object') now[step.word] = step.value;
        else read[step] = now[step]!;
      images.add(read.join());
    }
    for (const { word, value } of stores) memory[word] = value;
  }
  return { images: [...images].sort(), interleavings };
}

const store = (word: number, value: bigint) => ({ word, value });

test('the exploration leaves nothing out: it agrees with trying every order of every step', (t) => {
  const sequences: WriterEvent[][] = [
    [store(1, 9n), store(2, 9n), 'sync', store(0, 9n), 'sync', store(1, 0n), store(3, 9n), 'sync'],
    [store(0, 9n), store(1, 9n), store(2, 9n), 'sync'],
    [store(2, 9n), 'barrier', store(0, 9n), 'sync'],
    [store(3, 9n), store(2, 9n), 'barrier', store(0, 9n)],
    [],
  ];
  for (const events of sequences) {
    const before = [1n, 2n, 3n, 4n];
    const found = exploreFetch(before, events, [[0, 1, 2, 3]]);
    const expected = literally(before, events);
    t.deepEqual(found.images.map(({ words }) => words.join()).sort(), expected.images);
    t.is(found.interleavings, expected.interleavings);
  }
});

test('a barrier inside an entry parts nothing: the words before it may have been read before', (t) => {
  const images = (events: WriterEvent[]): string[] =>
    exploreFetch([1n, 2n], events, [[0, 1]])
      .images.map(({ words }) => words.join())
      .sort();
  t.deepEqual(images([store(0, 9n), 'barrier', store(1, 9n)]), images([store(0, 9n), store(1, 9n)]));
  t.is(images([store(0, 9n), store(1, 9n)]).length, 4);
  // A sync does.
  t.deepEqual(images([store(0, 9n), 'sync', store(1, 9n)]), ['1,2', '9,2', '9,9']);
});

test('a barrier counts for what is read after the entry that leads to it', (t) => {
  const images = (events: WriterEvent[]): string[] =>
    exploreFetch([1n, 2n], events, [[0], [1]])
      .images.map(({ words }) => words.join())
      .sort();
  t.deepEqual(images([store(1, 9n), 'barrier', store(0, 9n)]), ['1,2', '1,9', '9,9']);
  t.deepEqual(images([store(1, 9n), store(0, 9n)]), ['1,2', '1,9', '9,2', '9,9']);
});

test('the writer that is judged is the driver’s own: it begins with a barrier, and ends with a sync', (t) => {
  for (const { transitions } of KUNIT_CASES)
    for (const { kind, from, to } of transitions) {
      const events = recordWriter(kind, from, to);
      t.is(events[0], 'barrier');
      t.is(events.at(-1), 'sync');
    }
});
