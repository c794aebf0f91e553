import test from 'ava';
import { SpscRing, spscRingField } from '../../../hw/sync/spsc-ring.js';
import { bench } from './sync-env.js';

function rings() {
  const scene = bench(spscRingField(4, 2));
  const [producer, consumer] = scene.envs.map((env) => new SpscRing(env, scene.offset, 4, 2));
  return { ...scene, producer: producer!, consumer: consumer! };
}

test('push and pop: batches, in order, as many as fit', (t) => {
  const { producer, consumer } = rings();
  const from = Int32Array.from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  const into = new Int32Array(12);
  t.is(producer.push(from, 2, 5), 4);
  t.is(producer.push(from, 0, 1), 0);
  t.is(consumer.filled(), 4);
  t.is(consumer.pop(into, 1, 3), 3);
  t.deepEqual([...into], [0, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0]);
  t.is(producer.push(from, 10, 1), 1);
  t.is(consumer.pop(into, 0, 6), 2);
  t.deepEqual([...into.subarray(0, 4)], [8, 9, 10, 11]);
  t.is(consumer.pop(into, 0, 6), 0);
});

test('the indexes wrap at 2^32', (t) => {
  const { producer, consumer, memory, offset } = rings();
  memory.words.store(offset, -2);
  memory.words.store(offset + 64, -2);
  const into = new Int32Array(8);
  t.is(producer.push(Int32Array.from([1, 2, 3, 4, 5, 6, 7, 8]), 0, 4), 4);
  t.is(producer.push(into, 0, 1), 0);
  t.is(consumer.pop(into, 0, 4), 4);
  t.deepEqual([...into], [1, 2, 3, 4, 5, 6, 7, 8]);
  t.is(memory.words.load(offset), 2);
});

test('indexes that make no sense never lead out of the ring', (t) => {
  const { producer, consumer, memory, offset } = rings();
  memory.words.store(offset, 1000);
  t.is(consumer.filled(), 4);
  t.is(consumer.pop(new Int32Array(8), 0, 4), 4);
  memory.words.store(offset + 64, 2000);
  t.is(producer.push(new Int32Array(8), 0, 4), 0);
});

test('a slot is not seen before its words are there', (t) => {
  const { producer, consumer, envs, offset } = rings();
  const words = envs[0].words;
  const order: string[] = [];
  const watched = new SpscRing(
    {
      ...envs[0],
      words: Object.assign(Object.create(words) as typeof words, {
        load: (at: number) => words.load(at),
        write: (at: number, from: Int32Array, index: number, count: number) => {
          order.push(`slot, ${consumer.filled()} seen`);
          words.write(at, from, index, count);
        },
        store: (at: number, value: number) => {
          order.push(`prod, ${consumer.filled()} seen`);
          words.store(at, value);
        },
      }),
    },
    offset,
    4,
    2,
  );
  watched.push(new Int32Array(4), 0, 2);
  t.deepEqual(order, ['slot, 0 seen', 'slot, 0 seen', 'prod, 0 seen']);
  t.is(consumer.filled(), 2);
  t.is(producer.push(new Int32Array(4), 0, 2), 2);
});

test('a ring of a size that is no power of two is a bug', (t) => {
  const { envs, offset } = rings();
  t.throws(() => new SpscRing(envs[0], offset, 3, 1), { message: /ring of 3 slots/ });
});
