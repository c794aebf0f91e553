import test from 'ava';
import { SeqLock, seqLockField } from '../../../hw/sync/seq-lock.js';
import { watchAccesses } from '../../kit/schedule-hook.js';
import { bench, done, everyPlaceForWaker } from './sync-env.js';

const ETIMEDOUT = 110;
const EOWNERDEAD = 130;
const room = { bytes: seqLockField().bytes + 16, align: 8 };

function locks() {
  const scene = bench(room);
  const [a, b, c] = scene.envs.map((env) => new SeqLock(env, scene.offset));
  return { ...scene, a: a!, b: b!, c: c!, data: scene.offset + 8 };
}

test('a read between writes is good', (t) => {
  const { a, b } = locks();
  t.is(a.writeBegin(), 0);
  a.writeEnd();
  const ticket = b.readBegin();
  t.is(ticket, 1);
  t.false(b.readRetry(ticket));
});

test('a read that a write began or ended in is void', (t) => {
  const { a, b } = locks();
  const ticket = b.readBegin();
  a.writeBegin();
  t.true(b.readRetry(ticket));
  a.writeEnd();
  t.true(b.readRetry(ticket));
});

test('readBegin: waits for the writer to end, up to the deadline', (t) => {
  const { a, b, envs, clock } = locks();
  a.writeBegin();
  t.is(b.readBegin(clock.soon()), -ETIMEDOUT);
  let steps = 0;
  envs[1].relax = () => {
    if (++steps === 3) a.writeEnd();
    return true;
  };
  t.is(b.readBegin(clock.soon()), 1);
});

test('writeBegin: one writer at a time', (t) => {
  const { a, b, envs, clock } = locks();
  a.writeBegin();
  t.is(b.writeBegin(clock.soon()), -ETIMEDOUT);
  envs[1].relax = () => {
    a.writeEnd();
    envs[1].relax = undefined;
    return true;
  };
  t.is(b.writeBegin(clock.soon()), 0);
  t.throws(() => a.writeEnd(), { message: /does not write/ });
  t.throws(() => b.writeBegin(), { message: /twice/ });
});

test('a dead writer: readers get EOWNERDEAD, the next writer takes over', (t) => {
  const { a, b, c, threads, envs, clock, data } = locks();
  a.writeBegin();
  threads.markDead(envs[0].threadId);
  t.is(b.readBegin(clock.soon()), -EOWNERDEAD);
  t.is(b.read(data, new Int32Array(2), 2, clock.soon()), -EOWNERDEAD);
  t.is(c.writeBegin(clock.soon()), -EOWNERDEAD);
  c.writeEnd();
  t.is(b.readBegin(), 1);
});

test('read: copies what was there at one moment, wherever a write falls', (t) => {
  for (let place = 0; place < 3; place++) {
    const { a, b, memory, data } = locks();
    const write = (value: number): void => {
      a.writeBegin();
      memory.words.store(data, value);
      memory.words.store(data + 4, value);
      a.writeEnd();
    };
    write(7);
    let accesses = 0;
    watchAccesses(() => {
      if (accesses++ === place) write(9);
    });
    const into = new Int32Array(2);
    try {
      t.is(b.read(data, into, 2), 0);
    } finally {
      watchAccesses(null);
    }
    t.deepEqual([...into], [9, 9], `place ${place}`);
  }
});

test('read: a writer that never pauses cannot keep a reader past its deadline', (t) => {
  const { a, b, clock, data } = locks();
  let inWrite = false;
  watchAccesses(() => {
    if (inWrite) return;
    inWrite = true;
    a.writeBegin();
    a.writeEnd();
    inWrite = false;
  });
  try {
    t.is(b.read(data, new Int32Array(2), 2, clock.soon()), -ETIMEDOUT);
  } finally {
    watchAccesses(null);
  }
});

test('the sequence wraps at 2^24', (t) => {
  const { a, b, memory, offset } = locks();
  memory.words.store(offset, 0xffff_ff00 | 0);
  const ticket = b.readBegin();
  t.is(ticket, 0xff_ffff);
  t.false(b.readRetry(ticket));
  a.writeBegin();
  a.writeEnd();
  t.true(b.readRetry(ticket));
  t.is(b.readBegin(), 0);
});

test('no end of a write is missed, wherever it falls', (t) => {
  everyPlaceForWaker(t, seqLockField(), (waiter, waker, offset) => {
    const writer = new SeqLock(waker, offset);
    writer.writeBegin();
    return {
      waiter: () => Math.min(0, new SeqLock(waiter, offset).readBegin()),
      waker: () => done(writer.writeEnd()),
    };
  });
  everyPlaceForWaker(t, seqLockField(), (waiter, waker, offset) => {
    const writer = new SeqLock(waker, offset);
    writer.writeBegin();
    return { waiter: () => new SeqLock(waiter, offset).writeBegin(), waker: () => done(writer.writeEnd()) };
  });
});
