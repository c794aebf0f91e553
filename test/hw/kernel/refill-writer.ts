/**
 * The pIOMMU of hits.test.ts, on a thread of its own: refills the four ways of one set without end. Frame, IPA
 * page and tag say the same thing, so that a reader can tell a torn entry.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { FILL_READ, FILL_S1, FILL_S2, FILL_WRITE, Kernel } from '../../../hw/kernel/kernel.js';
import { MachineMemory, type MemoryHandle } from '../../../hw/memory/machine-memory.js';

const { handle, unit, iotlb, tag, page, stop } = workerData as {
  handle: MemoryHandle;
  unit: number;
  iotlb: number;
  tag: number;
  page: number;
  stop: number;
};
const memory = MachineMemory.attach(handle);
const kernel = Kernel.load(memory);
const BITS = FILL_READ | FILL_WRITE | FILL_S1 | FILL_S2;

let fills = 0;
parentPort!.postMessage('ready');
while (memory.words.load(stop) === 0) {
  for (let i = 0; i < 64; i++) {
    // The page that is looked for, and then other pages and another tag over it, until its way is taken again.
    const version = (fills++ % 0xffff) + 1;
    kernel.iotlbFill(unit, iotlb, tag, page, version, 12, BITS, version);
    kernel.iotlbFill(unit, iotlb, tag ^ 1, page, 0x70000, 12, BITS, 0);
    kernel.iotlbFill(unit, iotlb, tag, page + 64, 0x70001, 12, BITS, 1);
    kernel.iotlbFill(unit, iotlb, tag, page + 128, 0x70002, 12, BITS, 2);
    kernel.iotlbFill(unit, iotlb, tag, page + 192, 0x70003, 12, BITS, 3);
  }
}
parentPort!.postMessage(fills);
