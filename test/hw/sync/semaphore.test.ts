import test from 'ava';
import { Semaphore, semaphoreField } from '../../../hw/sync/semaphore.js';
import { bench, done, everyPlaceForWaker } from './sync-env.js';

const ETIMEDOUT = 110;

function semaphores(count: number) {
  const scene = bench(semaphoreField());
  const [a, b] = scene.envs.map((env) => new Semaphore(env, scene.offset));
  a!.init(count);
  return { ...scene, a: a!, b: b! };
}

test('acquire: takes one until none is left', (t) => {
  const { a, b, clock } = semaphores(2);
  t.is(a.acquire(), 0);
  t.true(b.tryAcquire());
  t.is(a.value(), 0);
  t.false(a.tryAcquire());
  t.is(a.acquire(clock.soon()), -ETIMEDOUT);
  t.is(a.value(), 0);
});

test('acquire: waits for a release', (t) => {
  const { a, b, envs, clock } = semaphores(0);
  let steps = 0;
  envs[0].relax = () => {
    if (++steps === 5) b.release(2);
    return true;
  };
  t.is(a.acquire(clock.soon()), 0);
  t.is(a.value(), 1);
});

test('release: of nothing, or past the largest count, is a bug', (t) => {
  const { a } = semaphores(0x7fff_fffe);
  t.throws(() => a.release(0), { message: /release of 0/ });
  a.release();
  t.throws(() => a.release(), { message: /release of 1/ });
});

test('no release is missed, wherever it falls into acquire', (t) => {
  everyPlaceForWaker(t, semaphoreField(), (waiter, waker, offset) => ({
    waiter: () => new Semaphore(waiter, offset).acquire(),
    waker: () => done(new Semaphore(waker, offset).release()),
  }));
});
