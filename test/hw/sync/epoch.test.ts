import test from 'ava';
import { Epoch, epochField } from '../../../hw/sync/epoch.js';
import { watchAccesses } from '../../kit/schedule-hook.js';
import { bench, done, everyPlaceForWaker } from './sync-env.js';

const ETIMEDOUT = 110;

function epochs() {
  const scene = bench(epochField(3));
  const [a, b, c] = scene.envs.map((env) => new Epoch(env, scene.offset, 3));
  a!.init();
  return { ...scene, a: a!, b: b!, c: c! };
}

test('synchronize: nobody inside, nothing to wait for', (t) => {
  const { a, clock } = epochs();
  t.is(a.synchronize(clock.soon()), 0);
});

test('synchronize: waits for who was inside before, not for who comes after', (t) => {
  const { a, b, c, envs, clock } = epochs();
  const before = b.enter(1);
  let steps = 0;
  envs[0].relax = () => {
    steps++;
    if (steps === 2) t.is(c.enter(2), before + 1);
    if (steps === 4) b.leave(1);
    return true;
  };
  t.is(a.synchronize(clock.soon()), 0);
  t.is(steps, 4);
});

test('synchronize: ETIMEDOUT while someone stays inside', (t) => {
  const { a, b, clock } = epochs();
  b.enter(1);
  t.is(a.synchronize(clock.soon()), -ETIMEDOUT);
  b.leave(1);
  t.is(a.synchronize(clock.soon()), 0);
});

test('synchronize: a visitor that died has left', (t) => {
  const { a, b, c, threads, envs, clock } = epochs();
  b.claim(1);
  b.enter(1);
  c.claim(2);
  c.enter(2);
  threads.markDead(envs[1].threadId);
  t.is(a.synchronize(clock.soon()), -ETIMEDOUT, 'the living one is still inside');
  c.leave(2);
  t.is(a.synchronize(clock.soon()), 0);
});

test('advance and isPast: a synchronizer may go on with other work', (t) => {
  const { a, b } = epochs();
  b.enter(1);
  const gen = a.advance();
  t.false(a.isPast(gen));
  b.leave(1);
  t.true(a.isPast(gen));
});

test('enter: twice into one slot is a bug', (t) => {
  const { a } = epochs();
  a.enter(0);
  t.throws(() => a.enter(0), { message: /entered twice/ });
});

test('enter: a generation that moves meanwhile is seen, wherever it falls', (t) => {
  for (let place = 0; place < 6; place++) {
    const { a, b } = epochs();
    let gen = 0;
    let past = false;
    let accesses = 0;
    watchAccesses(() => {
      if (accesses++ !== place) return;
      gen = b.advance();
      past = b.isPast(gen);
    });
    let entered: number;
    try {
      entered = a.enter(0);
    } finally {
      watchAccesses(null);
    }
    if (gen === 0) {
      t.true(place >= 4, 'enter makes four accesses when nothing moves');
      continue;
    }
    // Either the synchronizer is told to wait, or the visitor knows the new generation.
    t.true(entered === gen || !past, `place ${place}`);
  }
});

test('generations skip 0 and compare modulo 2^32', (t) => {
  const { a, b, memory, offset } = epochs();
  memory.words.store(offset, -2);
  t.is(b.enter(1), 0xffff_fffe);
  const last = a.advance();
  t.is(last >>> 0, 0xffff_ffff);
  t.false(a.isPast(last));
  b.leave(1);
  t.is(b.enter(1), 0xffff_ffff);
  const first = a.advance();
  t.is(first, 1);
  t.false(a.isPast(first));
  t.true(a.isPast(last));
});

test('no leave is missed, wherever it falls into synchronize', (t) => {
  everyPlaceForWaker(t, epochField(2), (waiter, waker, offset) => {
    const visitor = new Epoch(waker, offset, 2);
    visitor.init();
    visitor.enter(1);
    return {
      waiter: () => new Epoch(waiter, offset, 2).synchronize(),
      waker: () => done(visitor.leave(1)),
    };
  });
});
