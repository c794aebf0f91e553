/** A thread that already sleeps is woken: what no interleaving before the sleep can show. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { Barrier } from '../../../hw/sync/barrier.js';
import { Condition } from '../../../hw/sync/condition.js';
import { Doorbell } from '../../../hw/sync/doorbell.js';
import { Epoch } from '../../../hw/sync/epoch.js';
import { Mutex } from '../../../hw/sync/mutex.js';
import { Once } from '../../../hw/sync/once.js';
import { RwLock } from '../../../hw/sync/rw-lock.js';
import { Semaphore } from '../../../hw/sync/semaphore.js';
import { SeqLock } from '../../../hw/sync/seq-lock.js';
import { monotonicClock, type SyncEnv, ThreadTable, ThreadTableLayout } from '../../../hw/sync/thread.js';
import { ASLEEP, DATA, GO, StressLayout } from './stress-layout.js';
import type { StressData } from './stress-worker.js';

/** Holds what the sleeper waits for, lets it fall asleep, releases. */
type Holder = (env: SyncEnv, base: number, untilAsleep: () => void) => void;

const holders: Record<string, Holder> = {
  mutex(env, base, untilAsleep) {
    const mutex = new Mutex(env, base);
    mutex.lock();
    untilAsleep();
    mutex.unlock();
  },
  'rw-lock, reader'(env, base, untilAsleep) {
    const lock = new RwLock(env, base);
    lock.writeLock();
    untilAsleep();
    lock.writeUnlock();
  },
  'rw-lock, writer'(env, base, untilAsleep) {
    const lock = new RwLock(env, base);
    lock.writeLock();
    untilAsleep();
    lock.writeUnlock();
  },
  'rw-lock, writer behind a reader'(env, base, untilAsleep) {
    const lock = new RwLock(env, base);
    lock.readLock();
    untilAsleep();
    lock.readUnlock();
  },
  semaphore(env, base, untilAsleep) {
    untilAsleep();
    new Semaphore(env, base).release();
  },
  condition(env, base, untilAsleep) {
    untilAsleep();
    const mutex = new Mutex(env, base + 64);
    mutex.lock();
    new Condition(env, base).signal();
    mutex.unlock();
  },
  barrier(env, base, untilAsleep) {
    const barrier = new Barrier(env, base);
    barrier.init(2);
    untilAsleep();
    barrier.wait();
  },
  once(env, base, untilAsleep) {
    new Once(env, base).run(untilAsleep);
  },
  'seq-lock, reader'(env, base, untilAsleep) {
    const lock = new SeqLock(env, base);
    lock.writeBegin();
    untilAsleep();
    lock.writeEnd();
  },
  'seq-lock, writer'(env, base, untilAsleep) {
    const lock = new SeqLock(env, base);
    lock.writeBegin();
    untilAsleep();
    lock.writeEnd();
  },
  epoch(env, base, untilAsleep) {
    const epoch = new Epoch(env, base, 2);
    epoch.init();
    epoch.enter(1);
    untilAsleep();
    epoch.leave(1);
  },
  doorbell(env, base, untilAsleep) {
    untilAsleep();
    env.words.store(base + DATA, 1);
    new Doorbell(env, base).ring();
  },
};

for (const [name, hold] of Object.entries(holders)) {
  test.serial(`${name}: a sleeper is woken`, async (t) => {
    const memory = MachineMemory.create({ ramBytes: 2 ** 21, controlBytes: 2 ** 20 });
    const threads = new ThreadTable(memory, memory.allocRegion(ThreadTableLayout, 'threads'));
    const { base } = memory.allocRegion(StressLayout, 'stress');
    const { words } = memory;
    const workerData: StressData = {
      handle: memory.handle(),
      scenario: `sleeper: ${name}`,
      index: 0,
      workers: 1,
      rounds: 1,
    };
    const worker = new Worker(new URL('./stress-worker.js', import.meta.url), { workerData });
    t.deepEqual(await once(worker, 'message'), ['up']);
    const answer = once(worker, 'message');
    const env = { words, threads, threadId: threads.register(), clock: monotonicClock, canPark: true };
    hold(env, base, () => {
      words.store(base + GO, 1);
      words.notify(base + GO, 1);
      words.wait(base + ASLEEP, 0, 10_000);
      // From the schedule point to the sleep itself: nothing there can be observed.
      words.wait(base + ASLEEP + 4, 0, 20);
    });
    t.deepEqual(await answer, [0]);
  });
}
