import test from 'ava';
import { Once, onceField } from '../../../hw/sync/once.js';
import { bench } from './sync-env.js';

const ETIMEDOUT = 110;

function onces() {
  const scene = bench(onceField());
  const [a, b, c] = scene.envs.map((env) => new Once(env, scene.offset));
  return { ...scene, a: a!, b: b!, c: c! };
}

test('run: the first caller does it, the others do not', (t) => {
  const { a, b } = onces();
  let runs = 0;
  const fn = (): void => {
    runs++;
  };
  t.false(a.isDone());
  t.is(a.run(fn), 1);
  t.true(b.isDone());
  t.is(b.run(fn), 0);
  t.is(a.run(fn), 0);
  t.is(runs, 1);
});

test('run: what throws is not done, and the next caller does it', (t) => {
  const { a, b } = onces();
  t.throws(
    () =>
      a.run(() => {
        throw new Error('no');
      }),
    { message: 'no' },
  );
  t.false(a.isDone());
  t.is(
    b.run(() => undefined),
    1,
  );
});

test('run: waits for the one who does it, up to the deadline', (t) => {
  const { a, b, clock } = onces();
  a.run(() => {
    t.is(
      b.run(() => t.fail('done twice'), clock.soon()),
      -ETIMEDOUT,
    );
  });
  t.true(b.isDone());
});

test('run: when the one who did it died, the next does it again', (t) => {
  const { a, b, c, threads, envs, clock } = onces();
  a.run(() => {
    threads.markDead(envs[0].threadId);
    t.is(
      b.run(() => undefined, clock.soon()),
      1,
    );
  });
  t.true(c.isDone());
});

test('run: a waiter notices that death too', (t) => {
  const { a, b, threads, envs, clock } = onces();
  a.run(() => {
    envs[1].relax = () => {
      threads.markDead(envs[0].threadId);
      return true;
    };
    t.is(
      b.run(() => undefined, clock.soon()),
      1,
    );
  });
});

test('run: inside itself is a bug', (t) => {
  const { a } = onces();
  t.throws(() => a.run(() => a.run(() => undefined)), { message: /runs itself/ });
});
