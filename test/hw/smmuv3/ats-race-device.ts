/** A device with an ATC: one page over and over, and whether what it got was taken away before it began. */
import { workerData } from 'node:worker_threads';
import { XLAT_FROM_ATC, Xlat } from '../../../hw/iotlb/port-layout.js';
import { Kernel } from '../../../hw/kernel/kernel.js';
import { MachineMemory, type MemoryHandle } from '../../../hw/memory/machine-memory.js';
import { DmaPort } from '../../../hw/pci/dma-port.js';
import { monotonicClock, ThreadTable, ThreadTableLayout } from '../../../hw/sync/thread.js';
import { RACE_IOVA, RACE_PA, RACE_VERSIONS, RaceLayout } from './ats-race-layout.js';

const { handle } = workerData as { handle: MemoryHandle };
const memory = MachineMemory.attach(handle);
const { words } = memory;
const threads = new ThreadTable(memory, memory.region(ThreadTableLayout, 'threads'));
const env = { words, threads, threadId: threads.register(), clock: monotonicClock, canPark: true };
const dma = new DmaPort(env, memory, Kernel.load(memory), 'racer', 'port:0');
const base = memory.region(RaceLayout, 'race').base;
const at = RaceLayout.at;

while (words.load(base + at.stop) === 0) {
  const version = words.load(base + at.version);
  dma.prepare(0, RACE_IOVA, 0, 1, dma.streamId, 0xffff_ffff);
  dma.translate(1);
  if (dma.status(0) === 0) {
    const got = (dma.pa(0) - RACE_PA) / 4096;
    const behind = (version - got) & (RACE_VERSIONS - 1);
    if (behind > 0 && behind < RACE_VERSIONS / 2) words.add(base + at.stale, 1);
    if (dma.field(0, Xlat.at.source) === XLAT_FROM_ATC) words.add(base + at.hits, 1);
  }
  dma.end();
  words.add(base + at.batches, 1);
}
words.store(base + at.finished, 1);
