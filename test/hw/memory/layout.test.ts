import test from 'ava';
import { array, i32, layout, line, raw, roundUp, u64 } from '../../../hw/memory/layout.js';

test('layout: fields lie in order, each at its alignment', (t) => {
  const shape = layout('x', 3, { a: i32(), b: u64(), c: array(i32(), 3), d: i32() });
  t.deepEqual(shape.at, { a: 0, b: 8, c: 16, d: 28 });
  t.is(shape.name, 'x');
  t.is(shape.version, 3);
});

test('layout: the size is a whole number of cache lines', (t) => {
  t.is(layout('x', 1, { a: i32() }).size, 64);
  t.is(layout('x', 1, { a: raw(64), b: i32() }).size, 128);
});

test('line: nothing else shares the cache line', (t) => {
  const { at, size } = layout('x', 1, { a: i32(), b: line(i32()), c: i32() });
  t.deepEqual(at, { a: 0, b: 64, c: 128 });
  t.is(size, 192);
});

test('layout: an empty field or an alignment that is no power of two is a bug', (t) => {
  t.throws(() => layout('x', 1, { a: array(i32(), 0) }), { message: /x\.a: bad field shape/ });
  t.throws(() => layout('x', 1, { a: { bytes: 4, align: 3 } }), { message: /x\.a: bad field shape/ });
});

test('roundUp: is exact past 2^32', (t) => {
  t.is(roundUp(2 ** 40 + 1, 4096), 2 ** 40 + 4096);
  t.is(roundUp(4096, 4096), 4096);
});
