/**
 * The command queue against a consumer of the test's own, which sees every slot that CMDQ_PROD gives away.
 * Register offsets and command encodings are restated from [IHI0070] 4 and 6.3.
 */
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { heldWord, type ProducerReport, QueueFixture } from '../../../kit/queue-fixture.js';
import { SEED } from '../../../kit/random.js';
import { watchAccesses } from '../../../kit/schedule-hook.js';

const CERROR_ILL = 1;

/** Commands that carry who made them: PREFETCH_CONFIG of StreamID `value`. */
function commands(...values: number[]): Uint32Array {
  const cmds = new Uint32Array(values.length * 4);
  values.forEach((value, i) => {
    cmds[i * 4] = 0x01;
    cmds[i * 4 + 1] = value;
  });
  return cmds;
}

test('commands reach the hardware in order, followed by the SYNC that is waited for', (t) => {
  const f = new QueueFixture({ lg2: 7 });
  t.is(f.queue.issue(commands(1, 2, 3), 3, true), 0);
  t.deepEqual(f.consumed, [1, 2, 3, -1]);
  t.is(f.queue.lastSyncIndex, 3);
});

test('without a SYNC nothing is waited for', (t) => {
  const f = new QueueFixture({ lg2: 7 });
  f.stopped = true;
  t.is(f.queue.issue(commands(1, 2), 2, false), 0);
  t.is(f.prod(), 2);
  t.deepEqual(f.consumed, []);
});

for (const msi of [false, true])
  test(`many laps: every command once and in order, SYNC by ${msi ? 'MSI' : 'CMDQ_CONS'}`, (t) => {
    const f = new QueueFixture({ lg2: 7, msi });
    const sent: number[] = [];
    for (let round = 0, value = 0; round < 400; round++) {
      const n = 1 + (round % 13);
      const values = Array.from({ length: n }, () => ++value);
      sent.push(...values);
      t.is(f.queue.issue(commands(...values), n, round % 3 === 0), 0);
    }
    t.is(f.queue.issue(commands(9_999_999), 1, true), 0);
    t.deepEqual(
      f.consumed.filter((value) => value >= 0),
      [...sent, 9_999_999],
    );
  });

test('a list of the whole queue fits, and the queue is full, not empty, meanwhile', (t) => {
  const f = new QueueFixture({ lg2: 7 });
  f.stopped = true;
  const all = Array.from({ length: 128 }, (_, i) => i);
  t.is(f.queue.issue(commands(...all), 128, false), 0);
  // Index 0, wrap bit set.
  t.is(f.prod(), 128);
  f.stopped = false;
  t.is(f.queue.issue(commands(500), 1, true), 0);
  t.deepEqual(f.consumed, [...all, 500, -1]);
});

test('a full queue and a dead SMMU: -ETIMEDOUT, no slot is overwritten', (t) => {
  const f = new QueueFixture({ lg2: 7, deadlineNs: 5e6 });
  f.stopped = true;
  const all = Array.from({ length: 128 }, (_, i) => i);
  t.is(f.queue.issue(commands(...all), 128, false), 0);
  t.is(f.queue.issue(commands(500), 1, false), -110);
  f.stopped = false;
  f.consumeAll();
  t.deepEqual(f.consumed, all);
});

test('a SYNC that never completes: -ETIMEDOUT', (t) => {
  const f = new QueueFixture({ lg2: 7, deadlineNs: 5e6 });
  f.stopped = true;
  t.is(f.queue.issue(commands(1), 1, true), -110);
});

test('the host of the SMMU is dead: -ETIMEDOUT long before the deadline', (t) => {
  const f = new QueueFixture({ lg2: 7, deadlineNs: 3600e9 });
  f.stopped = true;
  f.markHostDead();
  t.is(f.queue.issue(commands(1), 1, true), -110);
});

test('a refused command becomes a SYNC, the others are executed once, the error is acknowledged once', (t) => {
  const f = new QueueFixture({ lg2: 7 });
  f.refuse = (value) => (value === 2 ? CERROR_ILL : 0);
  t.is(f.queue.issue(commands(1, 2, 3), 3, true), 0);
  t.deepEqual(f.consumed, [1, -1, 3, -1]);
  t.is(f.acknowledged, 1);
  t.is(f.skipped(), 1);
});

test('a retried fetch is not skipped', (t) => {
  const f = new QueueFixture({ lg2: 7 });
  let failures = 0;
  const CERROR_ABT = 2;
  f.refuse = (value) => (value === 2 && failures++ === 0 ? CERROR_ABT : 0);
  t.is(f.queue.issue(commands(1, 2, 3), 3, true), 0);
  t.deepEqual(f.consumed, [1, 2, 3, -1]);
  t.is(f.skipped(), 0);
});

test('submit to two queues, then wait for both: the second does not wait for the first', (t) => {
  const f = new QueueFixture({ lg2: 7 });
  const g = new QueueFixture({ lg2: 7 });
  const first = f.queue.submit(commands(1), 1, true);
  const second = g.queue.submit(commands(2), 1, true);
  t.deepEqual(f.consumed, []);
  t.is(f.queue.wait(first), 0);
  t.is(g.queue.wait(second), 0);
  t.deepEqual(
    [f.consumed, g.consumed],
    [
      [1, -1],
      [2, -1],
    ],
  );
});

for (const msi of [false, true])
  test(`four threads, SYNC by ${msi ? 'MSI' : 'CMDQ_CONS'}: each command exactly once, each list contiguous and synced`, async (t) => {
    t.log(`SEED=${SEED}`);
    const threads = 4;
    const f = new QueueFixture({ lg2: 7, msi, canPark: true });
    const url = new URL('../../../kit/queue-producer.js', import.meta.url);
    const started = performance.now();
    const workers = Array.from(
      { length: threads },
      (_, thread) =>
        new Worker(url, {
          workerData: { handle: f.memory.handle(), thread, lists: 600, seed: SEED + thread, msi },
        }),
    );
    const reports: ProducerReport[] = [];
    const failures: unknown[] = [];
    for (const worker of workers) {
      worker.on('message', (report: ProducerReport) => reports.push(report));
      worker.on('error', (error) => failures.push(error));
    }
    while (reports.length + failures.length < threads && performance.now() - started < 30_000) {
      for (let i = 0; i < 2000; i++) f.step();
      await new Promise((resolve) => setImmediate(resolve));
    }
    f.consumeAll();
    for (const worker of workers) await worker.terminate();
    t.deepEqual(failures, []);
    t.is(reports.length, threads);
    t.true(reports.every((report) => report.status === 0));
    checkLists(t, f.consumed, reports);
    t.deepEqual(f.violations, []);
  });

test('an owner does not publish a follower that has reserved and not yet written', async (t) => {
  const f = new QueueFixture({ lg2: 7 });
  const { words } = f.memory;
  const held = heldWord(f.memory);
  const url = new URL('../../../kit/queue-producer.js', import.meta.url);
  let worker: Worker | undefined;
  const finished = new Promise<ProducerReport>((resolve, reject) => {
    // The follower is a thread that stops in its first list; the owner is this one, stopped until then.
    const start = (): void => {
      worker = new Worker(url, {
        workerData: { handle: f.memory.handle(), thread: 1, lists: 1, seed: 3, hold: true },
      });
      worker.on('message', resolve);
      worker.on('error', reject);
    };
    const { linear } = f.memory.ram;
    watchAccesses((op, offset) => {
      if (op !== 'store' || offset < linear) return;
      watchAccesses(null);
      start();
      while (words.load(held) !== 1) words.wait(held, 0, 10);
    });
  });
  let polls = 0;
  let early = 0;
  f.onRelax = () => {
    if (f.prod() !== 0) {
      if (polls < 500) early++;
      return;
    }
    if (++polls === 500) {
      words.store(held, 2);
      words.notify(held, 1);
    }
  };
  t.is(f.queue.issue(commands(7), 1, true), 0);
  t.true(polls >= 500, 'the owner waited for the follower');
  t.is(early, 0);
  const report = await finished;
  t.is(report.status, 0);
  f.consumeAll();
  t.deepEqual(f.violations, []);
  await worker?.terminate();
});

/** Values are thread * 2^24 + list * 2^8 + place in the list. */
function checkLists(
  t: { is(a: unknown, b: unknown, message?: string): void },
  consumed: readonly number[],
  reports: readonly ProducerReport[],
): void {
  const next = new Map<number, { list: number; place: number }>();
  let broken = 0;
  for (let i = 0; i < consumed.length; i++) {
    const value = consumed[i]!;
    if (value < 0) continue;
    const thread = value >>> 24;
    const list = (value >>> 8) & 0xffff;
    const place = value & 0xff;
    const expected = next.get(thread) ?? { list: 0, place: 0 };
    if (list !== expected.list || place !== expected.place) broken++;
    const report = reports.find((r) => r.thread === thread)!;
    const length = report.lengths[list]!;
    // Inside a list the very next slot is the next command.
    if (place + 1 < length && consumed[i + 1] !== value + 1) broken++;
    if (place + 1 === length && report.synced[list] === 1 && consumed[i + 1] !== -1) broken++;
    next.set(thread, place + 1 === length ? { list: list + 1, place: 0 } : { list, place: place + 1 });
  }
  t.is(broken, 0, 'commands out of order, twice, or torn from their list');
  for (const { thread, lengths } of reports) t.is(next.get(thread)!.list, lengths.length);
}
