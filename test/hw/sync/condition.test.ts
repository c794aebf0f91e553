import test from 'ava';
import { Condition, conditionField } from '../../../hw/sync/condition.js';
import { Mutex, mutexField } from '../../../hw/sync/mutex.js';
import { bench, everyPlaceForWaker } from './sync-env.js';

const ETIMEDOUT = 110;
const EOWNERDEAD = 130;

const pair = { bytes: conditionField().bytes + mutexField().bytes + 8, align: 8 };

function conditions() {
  const scene = bench(pair);
  const [a, b] = scene.envs.map((env) => ({
    condition: new Condition(env, scene.offset),
    mutex: new Mutex(env, scene.offset + 8),
  }));
  return { ...scene, a: a!, b: b! };
}

test('wait: releases the mutex, and holds it again after a signal', (t) => {
  const { a, b, envs, clock } = conditions();
  a.mutex.lock();
  envs[0].relax = () => {
    if (b.mutex.tryLock()) {
      b.condition.signal();
      b.mutex.unlock();
    }
    return true;
  };
  t.is(a.condition.wait(a.mutex, clock.soon()), 0);
  t.true(a.mutex.heldByMe());
});

test('wait: ETIMEDOUT at the deadline, with the mutex', (t) => {
  const { a, b, clock } = conditions();
  a.mutex.lock();
  t.is(a.condition.wait(a.mutex, clock.soon()), -ETIMEDOUT);
  t.true(a.mutex.heldByMe());
  a.mutex.unlock();
  t.true(b.mutex.tryLock());
});

test('wait: without the mutex is a bug', (t) => {
  const { a } = conditions();
  t.throws(() => a.condition.wait(a.mutex), { message: /does not hold/ });
});

test('wait: a signal before it is not kept', (t) => {
  const { a, b, clock } = conditions();
  b.condition.signal();
  a.mutex.lock();
  t.is(a.condition.wait(a.mutex, clock.soon()), -ETIMEDOUT);
});

test('wait: the mutex owner died meanwhile', (t) => {
  const { a, b, envs, threads, clock } = conditions();
  a.mutex.lock();
  envs[0].relax = () => {
    if (b.mutex.tryLock()) {
      b.condition.broadcast();
      threads.markDead(envs[1].threadId);
    }
    return true;
  };
  t.is(a.condition.wait(a.mutex, clock.soon()), -EOWNERDEAD);
  t.true(a.mutex.heldByMe());
});

test('waitFor: a wake-up is not enough, what is waited for must hold', (t) => {
  const { a, b, envs, clock } = conditions();
  a.mutex.lock();
  let signals = 0;
  envs[0].relax = () => {
    signals++;
    b.condition.signal();
    return true;
  };
  t.is(
    a.condition.waitFor(a.mutex, () => signals >= 3, clock.soon()),
    0,
  );
  t.is(signals, 3);
  t.is(
    a.condition.waitFor(a.mutex, () => false, clock.soon()),
    -ETIMEDOUT,
  );
});

test('no signal is missed, wherever it falls into wait', (t) => {
  everyPlaceForWaker(t, pair, (waiter, waker, offset) => {
    const flag = offset + 16;
    const mutex = new Mutex(waiter, offset + 8);
    return {
      waiter: () => {
        mutex.lock();
        const condition = new Condition(waiter, offset);
        const result = condition.waitFor(mutex, () => waiter.words.load(flag) === 1);
        mutex.unlock();
        return result;
      },
      waker: () => {
        const held = new Mutex(waker, offset + 8);
        if (!held.tryLock()) return false;
        waker.words.store(flag, 1);
        held.unlock();
        new Condition(waker, offset).signal();
        return true;
      },
    };
  });
});
