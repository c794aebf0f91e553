/**
 * The pIOMMU of walker.test.ts, on a thread of its own: translates writes to random pages, each by a walk, and
 * notes for each page the number of the last one.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Kernel } from '../../../hw/kernel/kernel.js';
import { MachineMemory, type MemoryHandle } from '../../../hw/memory/machine-memory.js';
import { Random } from '../../kit/random.js';

const { handle, unit, iotlb, context, xlat, control, pages, first, rounds } = workerData as {
  handle: MemoryHandle;
  unit: number;
  iotlb: number;
  context: number;
  xlat: number;
  control: number;
  pages: number;
  first: number;
  rounds: number;
};
const memory = MachineMemory.attach(handle);
const kernel = Kernel.load(memory);
const { words, u32 } = memory;
const random = new Random(1);

parentPort!.postMessage('ready');
// However the two threads are scheduled, they are to meet.
for (let n = 1; n <= rounds || words.load(control + 8) === 0; n++) {
  const page = random.below(pages);
  words.store(control, n);
  kernel.iotlbInvalidateAll(unit, iotlb);
  u32[xlat >>> 2] = (first + page) << 12;
  u32[(xlat >>> 2) + 1] = 0;
  u32[(xlat >>> 2) + 2] = 1;
  if (kernel.translate(unit, context, iotlb, xlat) !== 0) throw new Error('a write faulted');
  words.store(control + 64 + page * 4, n);
}
words.store(control + 4, 1);
