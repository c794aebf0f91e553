import test from 'ava';
import { RwLock, rwLockField } from '../../../hw/sync/rw-lock.js';
import { bench, done, everyPlaceForWaker } from './sync-env.js';

const ETIMEDOUT = 110;
const EOWNERDEAD = 130;

function locks() {
  const scene = bench(rwLockField());
  const [a, b, c, d] = scene.envs.map((env) => new RwLock(env, scene.offset));
  return { ...scene, a: a!, b: b!, c: c!, d: d! };
}

test('readers share, a writer excludes', (t) => {
  const { a, b, c, clock } = locks();
  t.is(a.readLock(), 0);
  t.is(b.readLock(), 0);
  t.false(c.tryWriteLock());
  t.is(c.writeLock(clock.soon()), -ETIMEDOUT);
  a.readUnlock();
  b.readUnlock();
  t.is(c.writeLock(), 0);
  t.false(a.tryReadLock());
  t.false(a.tryWriteLock());
  t.is(a.readLock(clock.soon()), -ETIMEDOUT);
  t.is(a.writeLock(clock.soon()), -ETIMEDOUT);
  c.writeUnlock();
  t.true(a.tryReadLock());
  t.false(b.tryWriteLock());
  a.readUnlock();
  t.true(b.tryWriteLock());
});

test('writeLock: waits for the readers inside, and lets none in meanwhile', (t) => {
  const { a, b, c, envs, clock } = locks();
  a.readLock();
  const entered: boolean[] = [];
  envs[2].relax = () => {
    entered.push(b.tryReadLock());
    if (entered.length === 3) a.readUnlock();
    return true;
  };
  t.is(c.writeLock(clock.soon()), 0);
  t.deepEqual(entered, [false, false, false]);
});

test('a writer in line goes before readers that come after it', (t) => {
  const { a, b, c, envs, clock } = locks();
  a.writeLock();
  let steps = 0;
  envs[1].relax = () => {
    if (++steps === 2) a.writeUnlock();
    if (steps === 3) t.fail('the writer in line was not next');
    if (steps >= 2) t.false(c.tryReadLock());
    return true;
  };
  t.is(b.writeLock(clock.soon()), 0);
});

test('a writer that gives up leaves the line to others', (t) => {
  const { a, b, c, clock } = locks();
  a.readLock();
  t.is(b.writeLock(clock.soon()), -ETIMEDOUT);
  t.is(c.readLock(clock.soon()), 0, 'while waiting for readers');
  a.readUnlock();
  c.readUnlock();
  a.writeLock();
  t.is(b.writeLock(clock.soon()), -ETIMEDOUT);
  a.writeUnlock();
  t.is(c.readLock(clock.soon()), 0, 'while waiting for a writer');
});

test('a dead writer: readers learn it, the next writer takes over', (t) => {
  const { a, b, c, threads, envs, clock } = locks();
  a.writeLock();
  threads.markDead(envs[0].threadId);
  t.is(b.readLock(clock.soon()), -EOWNERDEAD);
  t.false(b.readHeldByMe());
  t.is(c.writeLock(clock.soon()), -EOWNERDEAD);
  t.true(c.writeHeldByMe());
  c.writeUnlock();
  t.is(b.readLock(), 0);
});

test('a dead writer whose taker gives up stays an orphan', (t) => {
  const { a, b, c, d, threads, envs, clock } = locks();
  // b reads, a waits for it as the writer and dies there.
  b.readLock();
  envs[0].relax = () => {
    throw new Error('dies');
  };
  t.throws(() => a.writeLock(), { message: 'dies' });
  threads.markDead(envs[0].threadId);
  t.is(c.writeLock(clock.soon()), -ETIMEDOUT);
  t.is(d.readLock(clock.soon()), -EOWNERDEAD);
  b.readUnlock();
  t.is(c.writeLock(clock.soon()), -EOWNERDEAD);
});

test('a dead reader does not hold up a writer', (t) => {
  const { a, b, threads, envs, clock } = locks();
  a.readLock();
  threads.markDead(envs[0].threadId);
  t.is(b.writeLock(clock.soon()), 0);
});

test('a writer that dies in line holds up nobody', (t) => {
  const { a, b, c, d, threads, envs, clock } = locks();
  a.writeLock();
  envs[1].relax = () => {
    envs[1].relax = () => {
      throw new Error('dies');
    };
    return true;
  };
  t.throws(() => b.writeLock(), { message: 'dies' });
  threads.markDead(envs[1].threadId);
  a.writeUnlock();
  t.is(c.readLock(clock.soon()), 0);
  t.is(d.readLock(clock.soon()), 0);
  c.readUnlock();
  d.readUnlock();
  t.is(c.writeLock(clock.soon()), 0);
});

test('misuse is a bug', (t) => {
  const { a, b } = locks();
  t.throws(() => a.readUnlock(), { message: /does not read/ });
  t.throws(() => a.writeUnlock(), { message: /does not hold/ });
  a.readLock();
  t.throws(() => a.readLock(), { message: /reading twice/ });
  t.throws(() => a.writeLock(), { message: /under its own read lock/ });
  t.false(a.tryReadLock());
  t.false(a.tryWriteLock());
  a.readUnlock();
  b.writeLock();
  t.throws(() => b.writeLock(), { message: /writing twice/ });
  t.throws(() => b.readLock(), { message: /under its own write lock/ });
});

test('no unlock is missed, wherever it falls', (t) => {
  everyPlaceForWaker(t, rwLockField(), (waiter, waker, offset) => {
    const held = new RwLock(waker, offset);
    held.writeLock();
    return { waiter: () => new RwLock(waiter, offset).readLock(), waker: () => done(held.writeUnlock()) };
  });
  everyPlaceForWaker(t, rwLockField(), (waiter, waker, offset) => {
    const held = new RwLock(waker, offset);
    held.writeLock();
    return { waiter: () => new RwLock(waiter, offset).writeLock(), waker: () => done(held.writeUnlock()) };
  });
  everyPlaceForWaker(t, rwLockField(), (waiter, waker, offset) => {
    const held = new RwLock(waker, offset);
    held.readLock();
    return { waiter: () => new RwLock(waiter, offset).writeLock(), waker: () => done(held.readUnlock()) };
  });
});
