import test from 'ava';
import { MpscRing, mpscRingField } from '../../../hw/sync/mpsc-ring.js';
import { watchAccesses } from '../../kit/schedule-hook.js';
import { bench } from './sync-env.js';

function rings() {
  const scene = bench(mpscRingField(4, 2));
  const [a, b, consumer] = scene.envs.map((env) => new MpscRing(env, scene.offset, 4, 2));
  return { ...scene, a: a!, b: b!, consumer: consumer! };
}

/** Runs `what` up to its shared access number `place`, where the thread dies. */
function dieAt(place: number, what: () => void): boolean {
  let accesses = 0;
  watchAccesses(() => {
    if (accesses++ === place) throw new Error('dies');
  });
  try {
    what();
    return false;
  } catch (error) {
    if ((error as Error).message !== 'dies') throw error;
    return true;
  } finally {
    watchAccesses(null);
  }
}

function popAll(ring: MpscRing): number[] {
  const into = new Int32Array(16);
  const n = ring.pop(into, 0, 8);
  return [...into.subarray(0, n * 2)];
}

test('push and pop: slots of several producers, in the order they were claimed', (t) => {
  const { a, b, consumer } = rings();
  t.false(consumer.hasWork());
  t.is(a.push(Int32Array.from([1, 2]), 0, 1), 1);
  t.is(b.push(Int32Array.from([9, 3, 4, 5, 6]), 1, 2), 2);
  t.true(consumer.hasWork());
  t.deepEqual(popAll(consumer), [1, 2, 3, 4, 5, 6]);
  t.deepEqual(popAll(consumer), []);
});

test('push: as many as fit; full is not empty, lap after lap', (t) => {
  const { a, b, consumer } = rings();
  const from = Int32Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  for (let lap = 0; lap < 5; lap++) {
    t.is(a.push(from, 0, 5), 4);
    t.is(b.push(from, 0, 1), 0);
    t.is(consumer.pop(new Int32Array(2), 0, 1), 1);
    t.is(b.push(from, 8, 1), 1);
    t.deepEqual(popAll(consumer), [3, 4, 5, 6, 7, 8, 9, 10]);
  }
});

test('the indexes wrap at 2^32', (t) => {
  const { a, consumer, memory, offset } = rings();
  const stride = 12;
  // Two slots before the end: slots 0 and 1 have been round once more than 2 and 3.
  const lap = 2 ** 30 - 1;
  memory.words.store(offset, -2);
  memory.words.store(offset + 64, -2);
  for (let slot = 0; slot < 4; slot++)
    memory.words.store(offset + 128 + slot * stride, slot < 2 ? 0 : (lap & 0x3f_ffff) << 10);
  t.is(a.push(Int32Array.from([1, 2, 3, 4, 5, 6, 7, 8]), 0, 4), 4);
  t.is(a.push(new Int32Array(2), 0, 1), 0);
  t.deepEqual(popAll(consumer), [1, 2, 3, 4, 5, 6, 7, 8]);
});

test('a slot that is claimed and not written is not seen, nor any behind it', (t) => {
  const { a, b, consumer, envs } = rings();
  t.true(
    dieAt(3, () => a.push(Int32Array.from([1, 2]), 0, 1)),
    'just before the words',
  );
  t.is(b.push(Int32Array.from([3, 4]), 0, 1), 1);
  t.is(consumer.claimant(), envs[0].threadId);
  t.false(consumer.hasWork());
  t.deepEqual(popAll(consumer), []);
});

test('a producer that dies, wherever in push, loses its own slot and no other', (t) => {
  let places = 0;
  for (let place = 0; ; place++) {
    const { a, b, consumer, threads, envs } = rings();
    b.push(Int32Array.from([1, 1]), 0, 1);
    if (!dieAt(place, () => a.push(Int32Array.from([2, 2]), 0, 1))) break;
    places++;
    threads.markDead(envs[0].threadId);
    const early = popAll(consumer);
    const got = [1, 1];
    t.is(b.push(Int32Array.from([3, 3, 4, 4, 5, 5, 6, 6]), 0, 4), 4, `place ${place}: all slots are free`);
    t.deepEqual([...early, ...popAll(consumer)], [...got, 3, 3, 4, 4, 5, 5, 6, 6], `place ${place}`);
    t.is(consumer.claimant(), 0);
    // Before the claim nothing is lost; from the claim to READY one slot is.
    t.is(consumer.lost(), place < 2 ? 0 : 1, `place ${place}`);
  }
  t.is(places, 5);
});

test('a producer whose prod moved on meanwhile claims another slot', (t) => {
  for (let place = 0; place < 5; place++) {
    const { a, b, consumer } = rings();
    let accesses = 0;
    watchAccesses(() => {
      if (accesses++ === place) b.push(Int32Array.from([3, 3]), 0, 1);
    });
    try {
      t.is(a.push(Int32Array.from([2, 2]), 0, 1), 1);
    } finally {
      watchAccesses(null);
    }
    const got = popAll(consumer);
    t.is(got.length, 4, `place ${place}`);
    t.deepEqual(
      [...got].sort((x, y) => x - y),
      [2, 2, 3, 3],
    );
  }
});

test('a whole lap may pass while a producer stands still', (t) => {
  for (let place = 0; place < 2; place++) {
    const { a, b, consumer } = rings();
    let accesses = 0;
    watchAccesses(() => {
      if (accesses++ !== place) return;
      b.push(new Int32Array(8), 0, 4);
      popAll(consumer);
      b.push(new Int32Array(2), 0, 1);
    });
    try {
      t.is(a.push(Int32Array.from([7, 8]), 0, 1), 1);
    } finally {
      watchAccesses(null);
    }
    t.deepEqual(popAll(consumer), [0, 0, 7, 8], `place ${place}`);
  }
});
