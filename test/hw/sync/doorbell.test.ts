import test from 'ava';
import { Doorbell, doorbellField } from '../../../hw/sync/doorbell.js';
import { watchAccesses } from '../../kit/schedule-hook.js';
import { bench, everyPlaceForWaker } from './sync-env.js';

const ETIMEDOUT = 110;
const EOWNERDEAD = 130;

test('ring: counts, and leaves a listener that is awake alone', (t) => {
  const { envs, offset, memory } = bench(doorbellField());
  const bell = new Doorbell(envs[0], offset);
  bell.ring();
  bell.ring();
  t.is(bell.rings(), 2);
  t.is(memory.words.load(offset + 64), 0);
});

test('waitFor: work that is there needs no ring', (t) => {
  const { envs, offset } = bench(doorbellField());
  t.is(
    new Doorbell(envs[0], offset).waitFor(() => true),
    0,
  );
});

test('waitFor: a ring without work is not enough', (t) => {
  const { envs, offset, clock } = bench(doorbellField());
  const bell = new Doorbell(envs[0], offset);
  envs[0].relax = () => {
    bell.ring();
    return true;
  };
  t.is(
    bell.waitFor(() => false, clock.soon()),
    -ETIMEDOUT,
  );
});

test('waitFor: the death of the only ringer ends it', (t) => {
  const { envs, offset, threads, clock } = bench(doorbellField());
  threads.markDead(envs[1].threadId);
  const bell = new Doorbell(envs[0], offset);
  t.is(
    bell.waitFor(
      () => false,
      clock.soon(),
      () => envs[1].threadId,
    ),
    -EOWNERDEAD,
  );
});

test('waitFor: the listener is marked parked while it sleeps, and not after', (t) => {
  const { envs, offset, memory, clock } = bench(doorbellField());
  let parkedSeen = 0;
  const bell = new Doorbell({ ...envs[0], canPark: true, spinNs: 0, parkSliceMs: 1 }, offset, offset + 4);
  bell.waitFor(() => {
    parkedSeen += memory.words.load(offset + 4);
    return false;
  }, clock.soon());
  t.true(parkedSeen > 0);
  t.is(memory.words.load(offset + 4), 0);
});

test('no ring is missed, wherever it falls into waitFor', (t) => {
  everyPlaceForWaker(t, doorbellField(), (waiter, waker, offset) => {
    const work = offset + 4;
    return {
      waiter: () => new Doorbell(waiter, offset).waitFor(() => waiter.words.load(work) === 1),
      waker: () => {
        waker.words.store(work, 1);
        new Doorbell(waker, offset).ring();
        return true;
      },
    };
  });
});

test('ring: counts before it looks whether the listener sleeps, and notifies last', (t) => {
  const { envs, offset, memory } = bench(doorbellField());
  memory.words.store(offset + 64, 1);
  const seen: string[] = [];
  watchAccesses((op, at) => seen.push(`${op}+${at - offset}`));
  try {
    new Doorbell(envs[0], offset).ring();
  } finally {
    watchAccesses(null);
  }
  t.deepEqual(seen, ['rmw+0', 'load+64', 'notify+0']);
});
