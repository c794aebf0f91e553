import test from 'ava';
import { Barrier, barrierField } from '../../../hw/sync/barrier.js';
import { bench, everyPlaceForWaker } from './sync-env.js';

const ETIMEDOUT = 110;
const EOWNERDEAD = 130;

function barriers(parties: number) {
  const scene = bench(barrierField());
  const [a, b] = scene.envs.map((env) => new Barrier(env, scene.offset));
  a!.init(parties);
  return { ...scene, a: a!, b: b! };
}

test('wait: the last to arrive lets all through, again and again', (t) => {
  const { a, b, envs, clock } = barriers(2);
  for (let round = 0; round < 3; round++) {
    let serial = -1;
    envs[0].relax = () => {
      if (serial < 0) serial = b.wait();
      return true;
    };
    t.is(a.wait(clock.soon()), 0);
    t.is(serial, 1);
    t.is(a.arrived(), 0);
  }
});

test('wait: alone is through at once', (t) => {
  const { a } = barriers(1);
  t.is(a.wait(), 1);
  t.is(a.wait(), 1);
});

test('wait: who gives up has not arrived', (t) => {
  const { a, b, envs, clock } = barriers(2);
  t.is(a.wait(clock.soon()), -ETIMEDOUT);
  t.is(a.arrived(), 0);
  envs[0].relax = () => {
    if (a.arrived() === 1) b.wait();
    return true;
  };
  t.is(a.wait(clock.soon()), 0);
});

test('breakAll: ends every wait, now and later, until init', (t) => {
  const { a, b, envs, clock } = barriers(2);
  envs[0].relax = () => {
    b.breakAll();
    return true;
  };
  t.is(a.wait(clock.soon()), -EOWNERDEAD);
  t.is(b.wait(clock.soon()), -EOWNERDEAD);
  a.init(1);
  t.is(a.wait(), 1);
});

test('init: for 1 to 255 threads', (t) => {
  const { a } = barriers(255);
  for (const parties of [0, 256, 1.5]) t.throws(() => a.init(parties), { message: /barrier for/ });
});

test('no arrival is missed, wherever it falls into wait', (t) => {
  everyPlaceForWaker(t, barrierField(), (waiter, waker, offset) => {
    const other = new Barrier(waker, offset);
    other.init(2);
    return {
      waiter: () => Math.min(0, new Barrier(waiter, offset).wait()),
      // Whoever is last does not wait: the waker is last once the waiter has arrived.
      waker: () => other.arrived() === 1 && other.wait() === 1,
    };
  });
});
