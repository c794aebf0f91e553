import test from 'ava';
import { Mutex, mutexField } from '../../../hw/sync/mutex.js';
import { watchAccesses } from '../../kit/schedule-hook.js';
import { bench, done, everyPlaceForWaker } from './sync-env.js';

const ETIMEDOUT = 110;
const EOWNERDEAD = 130;
const ENOTRECOVERABLE = 131;

function mutexes() {
  const scene = bench(mutexField());
  const [a, b, c] = scene.envs.map((env) => new Mutex(env, scene.offset));
  return { ...scene, a: a!, b: b!, c: c! };
}

test('lock: a free mutex is held by the locker, and free again after unlock', (t) => {
  const { a, b, envs } = mutexes();
  t.is(a.owner(), 0);
  t.is(a.lock(), 0);
  t.is(b.owner(), envs[0].threadId);
  t.true(a.heldByMe());
  t.false(b.heldByMe());
  t.notThrows(() => a.assertHeld());
  t.throws(() => b.assertHeld(), { message: /does not hold/ });
  a.unlock();
  t.is(a.owner(), 0);
});

test('tryLock: fails at once when held', (t) => {
  const { a, b } = mutexes();
  t.true(a.tryLock());
  t.false(b.tryLock());
  a.unlock();
  t.true(b.tryLock());
});

test('lock: waits until the owner unlocks', (t) => {
  const { a, b, envs, clock } = mutexes();
  a.lock();
  let steps = 0;
  envs[1].relax = () => {
    if (++steps === 3) a.unlock();
    return true;
  };
  t.is(b.lock(clock.soon()), 0);
  t.is(steps, 3);
  t.true(b.heldByMe());
});

test('lock: ETIMEDOUT at the deadline, and the owner keeps it', (t) => {
  const { a, b, clock } = mutexes();
  a.lock();
  t.is(b.lock(clock.soon()), -ETIMEDOUT);
  t.true(a.heldByMe());
  a.unlock();
  t.is(b.lock(clock.soon()), 0);
});

test('lock: twice by one thread is a bug, and so is unlock by another', (t) => {
  const { a, b } = mutexes();
  a.lock();
  t.throws(() => a.lock(), { message: /twice/ });
  t.throws(() => b.unlock(), { message: /unlock by thread/ });
  a.unlock();
  t.throws(() => a.unlock(), { message: /unlock by thread/ });
});

test('owner death: one locker gets EOWNERDEAD and the mutex, the others wait for it', (t) => {
  const { a, b, c, threads, envs, clock } = mutexes();
  a.lock();
  threads.markDead(envs[0].threadId);
  t.false(b.tryLock());
  t.is(b.lock(clock.soon()), -EOWNERDEAD);
  t.true(b.heldByMe());
  t.is(c.lock(clock.soon()), -ETIMEDOUT);
});

test('owner death: after markConsistent the mutex is as good as new', (t) => {
  const { a, b, c, threads, envs, clock } = mutexes();
  a.lock();
  threads.markDead(envs[0].threadId);
  b.lock(clock.soon());
  b.markConsistent();
  b.unlock();
  t.is(c.lock(clock.soon()), 0);
});

test('owner death: unlock without markConsistent leaves it not recoverable', (t) => {
  const { a, b, c, threads, envs, clock } = mutexes();
  a.lock();
  threads.markDead(envs[0].threadId);
  b.lock(clock.soon());
  let waiting = 0;
  envs[2].relax = () => {
    if (++waiting === 2) b.unlock();
    return true;
  };
  t.is(c.lock(clock.soon()), -ENOTRECOVERABLE, 'a waiter learns it');
  t.is(b.lock(clock.soon()), -ENOTRECOVERABLE, 'and so does whoever comes later');
  t.false(c.heldByMe());
  t.false(c.tryLock());
});

test('owner death: the one who took over may die too', (t) => {
  const { a, b, c, threads, envs, clock } = mutexes();
  a.lock();
  threads.markDead(envs[0].threadId);
  b.lock(clock.soon());
  threads.markDead(envs[1].threadId);
  t.is(c.lock(clock.soon()), -EOWNERDEAD);
  c.markConsistent();
  c.unlock();
  t.true(c.tryLock());
});

test('markConsistent: only by the owner', (t) => {
  const { b } = mutexes();
  t.throws(() => b.markConsistent(), { message: /does not hold/ });
});

test('no unlock is missed, wherever it falls into lock', (t) => {
  everyPlaceForWaker(t, mutexField(), (waiter, waker, offset) => {
    const held = new Mutex(waker, offset);
    held.lock();
    return { waiter: () => new Mutex(waiter, offset).lock(), waker: () => done(held.unlock()) };
  });
});

test('the schedule hook sees each shared access of lock and unlock', (t) => {
  const { a, b, offset, clock } = mutexes();
  const seen: string[] = [];
  const record = (what: () => void): string[] => {
    seen.length = 0;
    watchAccesses((op, at) => seen.push(`${op}+${at - offset}`));
    try {
      what();
    } finally {
      watchAccesses(null);
    }
    return [...seen];
  };
  t.deepEqual(
    record(() => a.lock()),
    ['rmw+0'],
  );
  const contended = record(() => b.lock(clock.soon()));
  t.is(contended[0], 'rmw+0');
  t.true(contended.length > 64);
  t.deepEqual(
    record(() => a.unlock()),
    ['load+0', 'store+0', 'load+4'],
  );
  t.deepEqual(
    record(() => a.tryLock()),
    ['rmw+0'],
  );
});

test('the schedule hook sees check-and-sleep as one wait, between the announcement and its end', (t) => {
  const { a, envs, offset, clock } = mutexes();
  a.lock();
  const seen: string[] = [];
  const parking = new Mutex({ ...envs[1], canPark: true, spinNs: 0, parkSliceMs: 1 }, offset);
  watchAccesses((op, at) => seen.push(`${op}+${at - offset}`));
  try {
    parking.lock(clock.soon());
  } finally {
    watchAccesses(null);
  }
  const at = seen.indexOf('wait+0');
  // Announce, read the value to sleep on, look once more, sleep, and no more sleeping.
  t.deepEqual(seen.slice(at - 3, at + 2), ['rmw+4', 'load+0', 'load+0', 'wait+0', 'rmw+4']);
});
