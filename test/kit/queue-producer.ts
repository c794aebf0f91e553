/** A thread that puts numbered command lists of random length on the queue of a QueueFixture. */
import { parentPort, workerData } from 'node:worker_threads';
import type { MemoryHandle } from '../../hw/memory/machine-memory.js';
import { CommandQueue } from '../../runtime/drivers/smmuv3/cmdq.js';
import { attachEnv, attachMemory, heldWord, type ProducerReport, queueHost } from './queue-fixture.js';
import { Random } from './random.js';
import { watchAccesses } from './schedule-hook.js';

const { handle, thread, lists, seed, hold } = workerData as {
  handle: MemoryHandle;
  thread: number;
  lists: number;
  seed: number;
  /** Stop between reserving the first slots and writing them. */
  hold?: boolean;
};

const memory = attachMemory(handle);
const queue = CommandQueue.attach(memory, attachEnv(memory, true), 0, queueHost(memory));
if (hold === true) {
  const word = heldWord(memory);
  const { linear } = memory.ram;
  watchAccesses((op, offset) => {
    if (op !== 'store' || offset < linear) return;
    watchAccesses(null);
    memory.words.store(word, 1);
    memory.words.wait(word, 1, 20_000);
  });
}
const random = new Random(seed);
const lengths: number[] = [];
const synced: number[] = [];
let status = 0;
for (let list = 0; list < lists && status === 0; list++) {
  const n = 1 + random.below(random.chance(0.1) ? 63 : 6);
  const sync = random.chance(0.4);
  const cmds = new Uint32Array(n * 4);
  for (let place = 0; place < n; place++) {
    cmds[place * 4] = 0x01;
    cmds[place * 4 + 1] = thread * 2 ** 24 + list * 2 ** 8 + place;
  }
  status = queue.issue(cmds, n, sync);
  lengths.push(n);
  synced.push(sync ? 1 : 0);
}
const report: ProducerReport = { thread, status, lengths, synced };
parentPort!.postMessage(report);
