import { Worker } from 'node:worker_threads';
import test, { type ExecutionContext } from 'ava';
import { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { Barrier } from '../../../hw/sync/barrier.js';
import { Epoch } from '../../../hw/sync/epoch.js';
import { Semaphore } from '../../../hw/sync/semaphore.js';
import { monotonicClock, type SyncEnv, ThreadTable, ThreadTableLayout } from '../../../hw/sync/thread.js';
import { DATA, StressLayout } from './stress-layout.js';
import type { StressData } from './stress-worker.js';

interface Run {
  /** Sum of what the workers posted. */
  readonly sum: number;
  /** The first guarded word at the end. */
  readonly data: number;
}

/** @param onDeath  called for a worker that exits without an answer; otherwise that is an error */
async function stress(
  scenario: string,
  workers: number,
  rounds: number,
  init?: (env: SyncEnv, base: number) => void,
  onDeath?: (threads: ThreadTable, memory: MachineMemory, base: number) => void,
): Promise<Run> {
  const memory = MachineMemory.create({ ramBytes: 2 ** 21, controlBytes: 2 ** 20 });
  const threads = new ThreadTable(memory, memory.allocRegion(ThreadTableLayout, 'threads'));
  const { base } = memory.allocRegion(StressLayout, 'stress');
  const { words } = memory;
  init?.({ words, threads, threadId: threads.register(), clock: monotonicClock, canPark: false }, base);
  const handle = memory.handle();
  const part = (index: number): Promise<number> => {
    const workerData: StressData = { handle, scenario, index, workers, rounds };
    const worker = new Worker(new URL('./stress-worker.js', import.meta.url), { workerData });
    return new Promise((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', (code) => {
        if (code === 0) return;
        if (onDeath === undefined) reject(new Error(`worker ${index} exited with ${code}`));
        else {
          onDeath(threads, memory, base);
          resolve(0);
        }
      });
    });
  };
  const posted = await Promise.all(Array.from({ length: workers }, (_, index) => part(index)));
  return { sum: posted.reduce((sum, n) => sum + n, 0), data: words.load(base + DATA) };
}

async function everyRoundCounts(t: ExecutionContext, run: Promise<Run>, total: number): Promise<void> {
  t.deepEqual(await run, { sum: total, data: total });
}

test.serial('mutex: no count and no wake-up is lost', async (t) => {
  await everyRoundCounts(t, stress('mutex', 4, 3000), 12_000);
});

test.serial('mutex: eight threads on fewer cores', async (t) => {
  await everyRoundCounts(t, stress('mutex', 8, 500), 4000);
});

test.serial('spin-lock: no count is lost', async (t) => {
  await everyRoundCounts(t, stress('spin-lock', 3, 2000), 6000);
});

test.serial('rw-lock: readers see whole writes, and all get through', async (t) => {
  const { sum, data } = await stress('rw-lock', 4, 2000);
  t.is(data, sum);
  t.true(sum > 2600 && sum < 2700);
});

test.serial('semaphore: never more inside than there are units, and all get through', async (t) => {
  const run = await stress('semaphore', 5, 2000, (env, base) => new Semaphore(env, base).init(2));
  t.deepEqual(run, { sum: 10_000, data: 0 });
});

test.serial('condition: what is put into a cell is taken out once', async (t) => {
  const { sum, data } = await stress('condition', 4, 1500);
  t.is(sum, 2 * ((1500 * 1501) / 2));
  t.is(data, 0);
});

test.serial('barrier: nobody passes before all have come', async (t) => {
  const run = await stress('barrier', 4, 600, (env, base) => new Barrier(env, base).init(4));
  t.deepEqual(run, { sum: 1200, data: 2400 });
});

test.serial('once: done once each, and nobody returns before', async (t) => {
  await everyRoundCounts(t, stress('once', 4, 1000), 1000);
});

test.serial('seq-lock: no read is torn', async (t) => {
  t.is((await stress('seq-lock', 3, 2000)).sum, 2000);
});

test.serial('epoch: nothing is reused under a visitor, and every visit ends', async (t) => {
  const run = await stress('epoch', 3, 2000, (env, base) => new Epoch(env, base, 3).init());
  t.is(run.sum, 2000);
});

test.serial('doorbell: two threads take turns', async (t) => {
  await everyRoundCounts(t, stress('doorbell', 2, 3000), 6000);
});

test.serial('spsc-ring: every slot arrives, whole and in order', async (t) => {
  t.is((await stress('spsc-ring', 2, 20_000)).sum, (20_000 * 19_999) / 2);
});

test.serial('mpsc-ring: every slot arrives, in order for each producer', async (t) => {
  t.is((await stress('mpsc-ring', 4, 4000)).sum, 12_000);
});

test.serial('a thread that dies with a mutex: one of those that wait is told', async (t) => {
  const run = await stress('owner-death', 4, 1, undefined, (threads, memory, base) =>
    threads.markDead(memory.words.load(base + DATA)),
  );
  t.is(run.sum, 1);
});
