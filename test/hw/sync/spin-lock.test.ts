import test from 'ava';
import { SpinLock, spinLockField } from '../../../hw/sync/spin-lock.js';
import { watchAccesses } from '../../kit/schedule-hook.js';
import { bench } from './sync-env.js';

const ETIMEDOUT = 110;
const EOWNERDEAD = 130;

function locks() {
  const scene = bench(spinLockField());
  const [a, b] = scene.envs.map((env) => new SpinLock(env, scene.offset));
  return { ...scene, a: a!, b: b! };
}

test('lock: free, held, free again', (t) => {
  const { a, b } = locks();
  t.is(a.lock(), 0);
  t.true(a.heldByMe());
  t.false(b.tryLock());
  a.unlock();
  t.true(b.tryLock());
});

test('lock: spins until the holder unlocks', (t) => {
  const { a, b, envs, clock } = locks();
  a.lock();
  envs[1].relax = () => {
    if (a.heldByMe()) a.unlock();
    return true;
  };
  t.is(b.lock(clock.soon()), 0);
});

test('lock: ETIMEDOUT at the deadline', (t) => {
  const { a, b, clock } = locks();
  a.lock();
  t.is(b.lock(clock.soon()), -ETIMEDOUT);
  t.true(a.heldByMe());
});

test('lock: a thread that parks naps and takes the lock without being woken', (t) => {
  const { a, envs, offset, clock } = locks();
  a.lock();
  let naps = 0;
  const napper = new SpinLock(
    {
      ...envs[1],
      canPark: true,
      spinNs: 0,
      relax: () => {
        if (++naps > 200 && a.heldByMe()) a.unlock();
        return false;
      },
    },
    offset,
  );
  t.is(napper.lock(clock.soon() + 1e9), 0);
});

test('owner death: the next locker takes it over', (t) => {
  const { a, b, threads, envs, clock } = locks();
  a.lock();
  threads.markDead(envs[0].threadId);
  t.is(b.lock(clock.soon()), -EOWNERDEAD);
  t.true(b.heldByMe());
  b.unlock();
  t.is(b.lock(), 0);
});

test('misuse is a bug', (t) => {
  const { a, b } = locks();
  t.throws(() => a.unlock(), { message: /does not hold/ });
  a.lock();
  t.throws(() => a.lock(), { message: /twice/ });
  t.throws(() => b.unlock(), { message: /does not hold/ });
});

test('two never hold it, wherever one comes while another takes it', (t) => {
  let places = 0;
  for (let came = true; came; places++) {
    const { a, b } = locks();
    let accesses = 0;
    came = false;
    let other = false;
    watchAccesses(() => {
      if (accesses++ !== places) return;
      came = true;
      other = b.tryLock();
    });
    let mine: boolean;
    try {
      mine = a.tryLock();
    } finally {
      watchAccesses(null);
    }
    t.true(mine !== other, `place ${places}`);
  }
  t.true(places > 1);
});
