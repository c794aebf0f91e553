import test from 'ava';
import type { Field } from '../../../hw/memory/layout.js';
import { setLockOrderCheck } from '../../../hw/sync/lock-rank.js';
import { Mutex } from '../../../hw/sync/mutex.js';
import { RwLock, rwLockField } from '../../../hw/sync/rw-lock.js';
import { SpinLock } from '../../../hw/sync/spin-lock.js';
import { bench } from './sync-env.js';

const room: Field = { bytes: rwLockField().bytes + 64, align: 64 };

function locks() {
  const { envs, offset } = bench(room);
  const [env, other] = envs;
  return {
    outer: new RwLock(env, offset, 10),
    middle: new Mutex(env, offset + rwLockField().bytes, 20),
    inner: new SpinLock(env, offset + rwLockField().bytes + 8, 30),
    twin: new Mutex(env, offset + rwLockField().bytes + 16, 20),
    unranked: new Mutex(env, offset + rwLockField().bytes + 24),
    others: new Mutex(other, offset + rwLockField().bytes + 16, 20),
  };
}

test.serial.beforeEach(() => setLockOrderCheck(true));
test.serial.afterEach.always(() => setLockOrderCheck(false));

test.serial('locks taken outermost first are fine, again and again', (t) => {
  const { outer, middle, inner } = locks();
  for (let i = 0; i < 2; i++) {
    t.is(outer.writeLock(), 0);
    t.is(middle.lock(), 0);
    t.is(inner.lock(), 0);
    inner.unlock();
    middle.unlock();
    outer.writeUnlock();
  }
});

test.serial('an inversion is a bug that names both ranks, and takes nothing', (t) => {
  const { outer, middle, inner } = locks();
  inner.lock();
  t.throws(() => middle.lock(), { message: /rank 20 while it holds rank 30/ });
  t.throws(() => outer.readLock(), { message: /rank 10 while it holds rank 30/ });
  t.throws(() => outer.writeLock(), { message: /rank 10 while it holds rank 30/ });
  t.is(middle.owner(), 0);
  inner.unlock();
  outer.readLock();
  t.is(middle.lock(), 0);
  t.throws(() => outer.writeLock(), { message: /rank 10/ });
});

test.serial('two locks of one rank are an inversion', (t) => {
  const { middle, twin } = locks();
  middle.lock();
  t.throws(() => twin.lock(), { message: /rank 20 while it holds rank 20/ });
});

test.serial('locks need not be released in reverse order', (t) => {
  const { outer, middle, inner } = locks();
  outer.readLock();
  middle.lock();
  outer.readUnlock();
  t.is(inner.lock(), 0);
  inner.unlock();
  middle.unlock();
  t.is(outer.readLock(), 0);
});

test.serial('a try-lock is recorded, not checked', (t) => {
  const { middle, inner, outer } = locks();
  inner.lock();
  t.true(middle.tryLock());
  inner.unlock();
  t.throws(() => outer.readLock(), { message: /holds rank 20/ });
});

test.serial('another thread, and a lock without a rank, are not concerned', (t) => {
  const { middle, unranked, inner, others } = locks();
  inner.lock();
  t.is(unranked.lock(), 0);
  t.is(others.lock(), 0);
  t.throws(() => middle.lock());
});

test.serial('nothing is checked unless asked', (t) => {
  setLockOrderCheck(false);
  const { middle, inner } = locks();
  inner.lock();
  t.is(middle.lock(), 0);
});
