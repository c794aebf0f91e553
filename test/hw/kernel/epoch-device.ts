/**
 * A device on a thread of its own, for epoch.test.ts: batch after batch it translates the same pages, then
 * looks at the tag that the test keeps for the frame it was given, and counts every dead frame it was given
 * while inside its epoch.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { PortLayout, Xlat } from '../../../hw/iotlb/port-layout.js';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../../hw/kernel/kernel.js';
import { MachineMemory, type MemoryHandle } from '../../../hw/memory/machine-memory.js';

/** control: word 0 stop; word 16 + frame: 1 while the frame is dead. */
const { handle, port, unit, control, pages } = workerData as {
  handle: MemoryHandle;
  port: number;
  unit: number;
  control: number;
  pages: number;
};
const memory = MachineMemory.attach(handle);
const kernel = Kernel.load(memory);
const { words, u32 } = memory;
const batch = port + PortLayout.at.batch;
const sid = u32[(port + PortLayout.at.sid) >> 2]!;
for (let i = 0; i < pages; i++) {
  const slot = (batch + i * 64) >> 2;
  u32[slot] = i * 4096;
  u32[slot + 1] = 0;
  u32[slot + 2] = 0;
  u32[slot + 3] = sid;
  u32[slot + 4] = 0xffff_ffff;
}

let translations = 0;
let faults = 0;
let stale = 0;
parentPort!.postMessage('ready');
while (words.load(control) === 0) {
  let left = kernel.dmaBegin(port, pages);
  if (left > 0) words.add(unit + UnitLayout.at.doorbell, 1);
  while (left > 0 && words.load(control) === 0) left = kernel.dmaPoll(port);
  for (let i = 0; left === 0 && i < pages; i++) {
    const xlat = batch + i * 64;
    if (u32[(xlat + Xlat.at.status) >> 2] !== 0) {
      faults++;
      continue;
    }
    const frame = (u32[(xlat + Xlat.at.pa) >> 2]! >>> 12) & 0xfff;
    if (words.load(control + 64 + frame * 4) !== 0) stale++;
    translations++;
  }
  kernel.dmaEnd(port);
}
parentPort!.postMessage({ translations, faults, stale });
