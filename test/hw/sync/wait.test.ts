import test from 'ava';
import { i32 } from '../../../hw/memory/layout.js';
import { waitUntil } from '../../../hw/sync/wait.js';
import { bench } from './sync-env.js';

const ETIMEDOUT = 110;
const EOWNERDEAD = 130;

test('waitUntil: ready at once reads no clock', (t) => {
  const { envs, offset } = bench(i32());
  const env = { ...envs[0], clock: { nowNs: () => t.fail('read the clock') as unknown as number } };
  t.is(
    waitUntil(env, offset, () => true, 0),
    0,
  );
});

test('waitUntil: a deadline that is past ends it, a thread that may not park spins until then', (t) => {
  const { envs, offset, clock } = bench(i32());
  t.is(
    waitUntil(envs[0], offset, () => false, clock.soon()),
    -ETIMEDOUT,
  );
});

test('waitUntil: an owner that is dead ends it, unless what it did was enough', (t) => {
  const { envs, offset, clock, threads } = bench(i32());
  const [me, other] = envs;
  threads.markDead(other.threadId);
  t.is(
    waitUntil(
      me,
      offset,
      () => false,
      clock.soon(),
      () => other.threadId,
    ),
    -EOWNERDEAD,
  );
  let enough = false;
  t.is(
    waitUntil(
      me,
      offset,
      () => enough,
      clock.soon(),
      () => {
        enough = true;
        return other.threadId;
      },
    ),
    0,
  );
});

test('waitUntil: a predicate that answered true is not asked again', (t) => {
  const { envs, offset, memory } = bench(i32());
  const env = { ...envs[0], canPark: true, spinNs: 0, parkSliceMs: 1 };
  let taken = 0;
  let announced = 0;
  const result = waitUntil(
    env,
    offset,
    () => {
      if (announced === 0) return false;
      taken++;
      return true;
    },
    Number.POSITIVE_INFINITY,
    undefined,
    (delta) => {
      announced += delta;
    },
  );
  t.is(result, 0);
  t.is(taken, 1);
  t.is(announced, 0);
  t.is(memory.words.load(offset), 0);
});

test('threads: ids are reused after retire, never after death, and run out', (t) => {
  const { threads } = bench(i32());
  const id = threads.register();
  t.is(id, 5);
  threads.retire(id);
  t.is(threads.register(), id);
  threads.markDead(id);
  threads.retire(id);
  t.true(threads.isDead(id));
  for (let next = 6; next <= 255; next++) t.is(threads.register(), next);
  t.is(threads.register(), -1);
});
