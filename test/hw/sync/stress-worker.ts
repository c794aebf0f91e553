/**
 * One thread of a stress run of hw/sync: attaches to the memory it is given, plays its part of the scenario
 * that is named, and posts a number that the test sums up.
 *
 * It parks after the shortest spin, in slices far longer than anything here takes. A sleep that only the end of
 * its slice ended was not woken, and is thrown: the wait itself would find its condition true, and succeed late.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { MachineMemory, type MemoryHandle } from '../../../hw/memory/machine-memory.js';
import { Barrier } from '../../../hw/sync/barrier.js';
import { Condition } from '../../../hw/sync/condition.js';
import { Doorbell } from '../../../hw/sync/doorbell.js';
import { Epoch } from '../../../hw/sync/epoch.js';
import { MpscRing } from '../../../hw/sync/mpsc-ring.js';
import { Mutex } from '../../../hw/sync/mutex.js';
import { Once } from '../../../hw/sync/once.js';
import { RwLock } from '../../../hw/sync/rw-lock.js';
import { Semaphore } from '../../../hw/sync/semaphore.js';
import { SeqLock } from '../../../hw/sync/seq-lock.js';
import { SpinLock } from '../../../hw/sync/spin-lock.js';
import { SpscRing } from '../../../hw/sync/spsc-ring.js';
import { monotonicClock, type SyncEnv, ThreadTable, ThreadTableLayout } from '../../../hw/sync/thread.js';
import { type WaitResult, Words } from '../../../hw/sync/words.js';
import { watchAccesses } from '../../kit/schedule-hook.js';
import { ASLEEP, DATA, GO, StressLayout } from './stress-layout.js';

export interface StressData {
  readonly handle: MemoryHandle;
  readonly scenario: string;
  readonly index: number;
  readonly workers: number;
  readonly rounds: number;
}

const DEADLINE_MS = 30_000;
const SLICE_MS = 5000;

class WatchedWords extends Words {
  override wait(offset: number, value: number, timeoutMs: number): WaitResult {
    const result = super.wait(offset, value, timeoutMs);
    if (result === 'timed-out' && timeoutMs === SLICE_MS) throw new Error('a wake-up was lost');
    return result;
  }
}

interface Part {
  readonly env: SyncEnv;
  readonly base: number;
  readonly index: number;
  readonly workers: number;
  readonly rounds: number;
  readonly deadline: number;
}

function must(result: number): number {
  if (result < 0) throw new Error(`a wait ended with ${result}`);
  return result;
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

/** Long enough inside that others come and park. */
function dawdle({ env, base }: Part, accesses: number): void {
  for (let i = 0; i < accesses; i++) env.words.load(base + DATA + 64);
}

/** A read-modify-write that only mutual exclusion makes whole. */
function addUnguarded(part: Part): void {
  const { words } = part.env;
  const value = words.load(part.base + DATA);
  dawdle(part, 20);
  words.store(part.base + DATA, value + 1);
}

const scenarios: Record<string, (part: Part) => number> = {
  mutex(part) {
    const mutex = new Mutex(part.env, part.base);
    for (let i = 0; i < part.rounds; i++) {
      must(mutex.lock(part.deadline));
      addUnguarded(part);
      mutex.unlock();
    }
    return part.rounds;
  },

  'spin-lock'(part) {
    const lock = new SpinLock(part.env, part.base);
    for (let i = 0; i < part.rounds; i++) {
      must(lock.lock(part.deadline));
      addUnguarded(part);
      lock.unlock();
    }
    return part.rounds;
  },

  'rw-lock'(part) {
    const { words } = part.env;
    const lock = new RwLock(part.env, part.base);
    const [one, two] = [part.base + DATA, part.base + DATA + 4];
    let writes = 0;
    for (let i = 0; i < part.rounds; i++) {
      if ((i + part.index) % 3 === 0) {
        must(lock.writeLock(part.deadline));
        addUnguarded(part);
        words.store(two, words.load(one));
        lock.writeUnlock();
        writes++;
      } else {
        must(lock.readLock(part.deadline));
        const first = words.load(one);
        dawdle(part, 50);
        check(words.load(two) === first, 'a reader saw a write half done');
        lock.readUnlock();
      }
    }
    return writes;
  },

  semaphore(part) {
    const { words } = part.env;
    const semaphore = new Semaphore(part.env, part.base);
    for (let i = 0; i < part.rounds; i++) {
      must(semaphore.acquire(part.deadline));
      check(words.add(part.base + DATA, 1) < 2, 'a third one is inside');
      dawdle(part, 30);
      words.sub(part.base + DATA, 1);
      semaphore.release();
    }
    return part.rounds;
  },

  /** A cell for one number, even workers fill it, odd ones empty it. */
  condition(part) {
    const { words } = part.env;
    const mutex = new Mutex(part.env, part.base);
    const filled = new Condition(part.env, part.base + 64);
    const emptied = new Condition(part.env, part.base + 128);
    const cell = part.base + DATA;
    let sum = 0;
    for (let i = 1; i <= part.rounds; i++) {
      must(mutex.lock(part.deadline));
      if (part.index % 2 === 0) {
        must(emptied.waitFor(mutex, () => words.load(cell) === 0, part.deadline));
        words.store(cell, i);
        filled.signal();
      } else {
        must(filled.waitFor(mutex, () => words.load(cell) !== 0, part.deadline));
        sum += words.exchange(cell, 0);
        emptied.signal();
      }
      mutex.unlock();
    }
    return sum;
  },

  barrier(part) {
    const { words } = part.env;
    const barrier = new Barrier(part.env, part.base);
    let serials = 0;
    for (let i = 1; i <= part.rounds; i++) {
      words.add(part.base + DATA, 1);
      serials += must(barrier.wait(part.deadline));
      check(words.load(part.base + DATA) === i * part.workers, 'somebody is a round behind or ahead');
      serials += must(barrier.wait(part.deadline));
    }
    return serials;
  },

  once(part) {
    const { words } = part.env;
    let ran = 0;
    for (let i = 0; i < part.rounds; i++) {
      const result = must(
        new Once(part.env, part.base + i * 8).run(() => {
          dawdle(part, 300);
          words.add(part.base + DATA, 1);
        }, part.deadline),
      );
      ran += result;
      check(words.load(part.base + DATA) > i, 'returned before it was done');
    }
    return ran;
  },

  'seq-lock'(part) {
    const { words } = part.env;
    const lock = new SeqLock(part.env, part.base);
    const into = new Int32Array(4);
    if (part.index === 0) {
      for (let i = 1; i <= part.rounds; i++) {
        must(lock.writeBegin(part.deadline));
        for (let word = 0; word < 4; word++) {
          words.store(part.base + DATA + word * 4, i * (word + 1));
          dawdle(part, 60);
        }
        lock.writeEnd();
        dawdle(part, 200);
      }
      return part.rounds;
    }
    do {
      must(lock.read(part.base + DATA, into, 4, part.deadline));
      for (let word = 0; word < 4; word++) check(into[word] === into[0]! * (word + 1), 'a torn read');
    } while (into[0] !== part.rounds);
    return 0;
  },

  /** Worker 0 takes cells away, and poisons one when all who may use it have left. */
  epoch(part) {
    const { words } = part.env;
    const epoch = new Epoch(part.env, part.base, part.workers);
    const current = part.base + DATA;
    const end = current + 4;
    const cell = (at: number): number => part.base + DATA + 64 + at * 4;
    if (part.index === 0) {
      for (let i = 1; i <= part.rounds; i++) {
        words.store(cell(i % 2), 0);
        words.store(current, i % 2);
        must(epoch.synchronize(part.deadline));
        words.store(cell((i + 1) % 2), 1);
      }
      words.store(end, 1);
      return part.rounds;
    }
    epoch.claim(part.index);
    while (words.load(end) === 0) {
      epoch.enter(part.index);
      const at = words.load(current);
      for (let i = 0; i < 50; i++) check(words.load(cell(at)) === 0, 'a cell was reused under a visitor');
      epoch.leave(part.index);
    }
    return 0;
  },

  /** Two threads take turns. */
  doorbell(part) {
    const { words } = part.env;
    const turn = part.base + DATA;
    const mine = new Doorbell(part.env, part.base + part.index * 128);
    const theirs = new Doorbell(part.env, part.base + (1 - part.index) * 128);
    for (let i = 0; i < part.rounds; i++) {
      must(mine.waitFor(() => words.load(turn) % 2 === part.index, part.deadline));
      words.add(turn, 1);
      theirs.ring();
    }
    return part.rounds;
  },

  'spsc-ring'(part) {
    const ring = new SpscRing(part.env, part.base + 1024, 16, 3);
    const filled = new Doorbell(part.env, part.base);
    const emptied = new Doorbell(part.env, part.base + 128);
    const batch = new Int32Array(3 * 8);
    let sum = 0;
    for (let next = 0; next < part.rounds; ) {
      const want = Math.min(1 + (next % 8), part.rounds - next);
      if (part.index === 0) {
        for (let i = 0; i < want; i++) batch.set([next + i, ~(next + i), 7], i * 3);
        let pushed = 0;
        const push = (): boolean => {
          pushed = ring.push(batch, 0, want);
          return pushed > 0;
        };
        must(emptied.waitFor(push, part.deadline));
        next += pushed;
        filled.ring();
      } else {
        let popped = 0;
        const pop = (): boolean => {
          popped = ring.pop(batch, 0, want);
          return popped > 0;
        };
        must(filled.waitFor(pop, part.deadline));
        for (let i = 0; i < popped; i++) {
          check(
            batch[i * 3] === next && batch[i * 3 + 1] === ~next && batch[i * 3 + 2] === 7,
            'a wrong slot',
          );
          sum += next++;
        }
        emptied.ring();
      }
    }
    return sum;
  },

  /** The last worker consumes what the others push. */
  'mpsc-ring'(part) {
    const producers = part.workers - 1;
    const ring = new MpscRing(part.env, part.base + 2048, 8, 2);
    const filled = new Doorbell(part.env, part.base);
    const emptied = (producer: number): Doorbell => new Doorbell(part.env, part.base + 128 * (producer + 1));
    const batch = new Int32Array(2 * 4);
    if (part.index < producers) {
      for (let next = 0; next < part.rounds; ) {
        const want = Math.min(1 + (next % 4), part.rounds - next);
        for (let i = 0; i < want; i++) batch.set([part.index, next + i], i * 2);
        let pushed = 0;
        const push = (): boolean => {
          pushed = ring.push(batch, 0, want);
          return pushed > 0;
        };
        must(emptied(part.index).waitFor(push, part.deadline));
        next += pushed;
        filled.ring();
      }
      return 0;
    }
    const next = new Array<number>(producers).fill(0);
    let sum = 0;
    for (let got = 0; got < part.rounds * producers; ) {
      must(filled.waitFor(() => ring.hasWork(), part.deadline));
      const popped = ring.pop(batch, 0, 4);
      for (let i = 0; i < popped; i++) {
        const from = batch[i * 2]!;
        check(batch[i * 2 + 1] === next[from], 'a slot is missing or out of order');
        next[from]!++;
        sum++;
      }
      got += popped;
      for (let producer = 0; producer < producers; producer++) emptied(producer).ring();
    }
    return sum;
  },

  /** Worker 0 dies with the mutex; the others share its remains. */
  'owner-death'(part) {
    const { words } = part.env;
    const mutex = new Mutex(part.env, part.base);
    if (part.index === 0) {
      must(mutex.lock(part.deadline));
      words.store(part.base + DATA, part.env.threadId);
      words.notify(part.base + DATA, part.workers);
      process.exit(1);
    }
    while (words.load(part.base + DATA) === 0) words.wait(part.base + DATA, 0, 1000);
    const result = mutex.lock(part.deadline);
    if (result === -130) mutex.markConsistent();
    else must(result);
    mutex.unlock();
    return result === -130 ? 1 : 0;
  },
};

/** One wait each, for something that the test holds until this thread sleeps. */
const sleepers: Record<string, (part: Part) => number> = {
  mutex: ({ env, base, deadline }) => new Mutex(env, base).lock(deadline),
  'rw-lock, reader': ({ env, base, deadline }) => new RwLock(env, base).readLock(deadline),
  'rw-lock, writer': ({ env, base, deadline }) => new RwLock(env, base).writeLock(deadline),
  'rw-lock, writer behind a reader': ({ env, base, deadline }) => new RwLock(env, base).writeLock(deadline),
  semaphore: ({ env, base, deadline }) => new Semaphore(env, base).acquire(deadline),
  condition({ env, base, deadline }) {
    const mutex = new Mutex(env, base + 64);
    must(mutex.lock(deadline));
    return new Condition(env, base).wait(mutex, deadline);
  },
  barrier: ({ env, base, deadline }) => new Barrier(env, base).wait(deadline),
  once: ({ env, base, deadline }) => new Once(env, base).run(() => undefined, deadline),
  'seq-lock, reader': ({ env, base, deadline }) => Math.min(0, new SeqLock(env, base).readBegin(deadline)),
  'seq-lock, writer': ({ env, base, deadline }) => new SeqLock(env, base).writeBegin(deadline),
  epoch: ({ env, base, deadline }) => new Epoch(env, base, 2).synchronize(deadline),
  doorbell: ({ env, base, deadline }) =>
    new Doorbell(env, base).waitFor(() => env.words.load(base + DATA) !== 0, deadline),
};

for (const [name, wait] of Object.entries(sleepers))
  scenarios[`sleeper: ${name}`] = (part) => {
    const { words } = part.env;
    parentPort!.postMessage('up');
    while (words.load(part.base + GO) === 0) words.wait(part.base + GO, 0, 1000);
    watchAccesses((op) => {
      if (op !== 'wait') return;
      words.store(part.base + ASLEEP, 1);
      words.notify(part.base + ASLEEP, 1);
    });
    return must(wait(part));
  };

const { handle, scenario, index, workers, rounds } = workerData as StressData;
const memory = MachineMemory.attach(handle);
const threads = new ThreadTable(memory, memory.region(ThreadTableLayout, 'threads'));
const env: SyncEnv = {
  words: new WatchedWords(memory.buffer),
  threads,
  threadId: threads.register(),
  clock: monotonicClock,
  canPark: true,
  spinNs: 0,
  parkSliceMs: scenario === 'owner-death' ? 20 : SLICE_MS,
};
const deadline = monotonicClock.nowNs() + DEADLINE_MS * 1e6;
const { base } = memory.region(StressLayout, 'stress');
parentPort!.postMessage(scenarios[scenario]!({ env, base, index, workers, rounds, deadline }));
