import test from 'ava';
import { linearize, type SequentialObject } from '../../../perf/explore/linearizability.js';
import { commandValue, QueueHistory } from '../../../perf/explore/scenarios/queue-history.js';

type RegisterOp = { readonly write: number } | { readonly read: number };

const register: SequentialObject<number, RegisterOp> = {
  initial: 0,
  apply: (state, op) => ('write' in op ? op.write : op.read === state ? state : null),
  key: String,
};

const at = <Op>(begin: number, end: number, op: Op) => ({ begin, end, op });

test('a register: reads that overlap a write may see it or not, in an order that makes sense', (t) => {
  const write = at<RegisterOp>(1, 10, { write: 7 });
  const read = (begin: number, end: number, value: number) => at<RegisterOp>(begin, end, { read: value });
  t.deepEqual(linearize([write, read(2, 3, 0), read(4, 5, 7)], register), [
    { read: 0 },
    { write: 7 },
    { read: 7 },
  ]);
  t.is(linearize([write, read(2, 3, 7), read(4, 5, 0)], register), null, 'seen, then unseen');
  t.not(linearize([write, read(2, 6, 7), read(4, 5, 0)], register), null, 'the two overlap');
  t.is(linearize([write, read(11, 12, 0)], register), null, 'the write was over before');
});

test('an operation that never ended took effect or did not', (t) => {
  const write = at<RegisterOp>(1, Number.POSITIVE_INFINITY, { write: 7 });
  t.not(linearize([write, at<RegisterOp>(2, 3, { read: 7 })], register), null);
  t.not(linearize([write, at<RegisterOp>(2, 3, { read: 0 })], register), null);
});

/** Two lists of two commands, p1's with a SYNC; `taken` by place, 'SYNC', in order. */
function history(options: { overlap: boolean; taken: readonly (readonly [number, number] | 'SYNC')[] }) {
  const h = new QueueHistory(new Int32Array(1024));
  h.begin(0, 0, 2, false);
  if (!options.overlap) h.end(0, 0);
  h.begin(1, 0, 2, true);
  if (options.overlap) h.end(0, 0);
  for (const one of options.taken)
    if (one === 'SYNC') h.takeSync();
    else h.take(commandValue(one[0], 0, one[1]));
  return h;
}
const P0 = [
  [0, 0],
  [0, 1],
] as const;
const P1 = [[1, 0], [1, 1], 'SYNC'] as const;

test('the command queue: lists as wholes, in the order in which they were given', (t) => {
  const explain = (overlap: boolean, taken: readonly (readonly [number, number] | 'SYNC')[], size = 128) => {
    const h = history({ overlap, taken });
    h.end(1, 0);
    return h.explain(size);
  };
  t.is(explain(false, [...P0, ...P1]), null);
  t.is(explain(true, [...P1, ...P0]), null);
  t.regex(explain(false, [...P1, ...P0]) ?? '', /no order/, 'p0 was through before p1 began');
  t.regex(explain(true, [[0, 0], ...P1, [0, 1]]) ?? '', /no order/, 'a list is torn');
  t.regex(explain(true, [[0, 1], [0, 0], ...P1]) ?? '', /no order/, 'a list is turned round');
  t.regex(explain(true, [...P0, ...P1.slice(0, 2)]) ?? '', /no order/, 'the SYNC is lost');
  t.regex(explain(true, [...P0, ...P1], 2) ?? '', /no order/, 'the queue has two slots');
});

test('the command queue: a SYNC is not back before its list has been taken', (t) => {
  const h = new QueueHistory(new Int32Array(1024));
  h.begin(0, 0, 1, true);
  h.end(0, 0);
  h.take(commandValue(0, 0, 0));
  h.takeSync();
  t.true(h.synced(0, 0));
  t.regex(h.explain(128) ?? '', /no order/);
});

test('the command queue: what nobody gave is not taken, and nothing twice', (t) => {
  const h = new QueueHistory(new Int32Array(1024));
  h.begin(0, 0, 1, false);
  t.regex(h.take(0) ?? '', /nobody gave/);
  t.regex(h.take(commandValue(0, 0, 1)) ?? '', /nobody gave/);
  t.is(h.take(commandValue(0, 0, 0)), null);
  t.regex(h.take(commandValue(0, 0, 0)) ?? '', /again/);
});
