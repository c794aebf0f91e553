/**
 * The walker of dirty.test.ts, on a thread of its own: marks leaves dirty, then accessed, by compare-exchange, and
 * counts how often each went from clean to dirty. With the access flag it flips a bit that is software's: that one
 * must always be as it was left.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { MachineMemory, type MemoryHandle } from '../../../hw/memory/machine-memory.js';

const { handle, slots, counts, control, pages, stage, total } = workerData as {
  handle: MemoryHandle;
  slots: number;
  counts: number;
  control: number;
  pages: number;
  stage: 1 | 2;
  total: number;
};
const { words } = MachineMemory.attach(handle);
const BIT7 = 1n << 7n;
const AF = 1n << 10n;
const SOFTWARE = 1n << 55n;

for (let i = 0; i < pages; i++) words.store(counts + i * 4, 0);
const flags = new Array<bigint>(pages).fill(0n);
let lost = 0;
parentPort!.postMessage('ready');
for (let n = 0, page = 0; n < total; page = (page + 1) % pages) {
  const slot = slots + page * 8;
  let was = words.load64(slot);
  const dirty = stage === 1 ? was & ~BIT7 : was | BIT7;
  if (dirty !== was && words.compareExchange64(slot, was, dirty) === was) {
    words.add(counts + page * 4, 1);
    n++;
  }
  do {
    was = words.load64(slot);
    if ((was & SOFTWARE) !== flags[page]) lost++;
  } while (words.compareExchange64(slot, was, (was | AF) ^ SOFTWARE) !== was);
  flags[page] = (was & SOFTWARE) ^ SOFTWARE;
}
words.store(control + 4, lost);
words.store(control, 1);
