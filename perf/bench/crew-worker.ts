/** A member of a crew: one device that translates the same batch over and over, in its micro-TLB. */
import { parentPort, workerData } from 'node:worker_threads';
import { PORT_BATCH } from '../../hw/iotlb/port-layout.js';
import { type MachineHandle, MachineThread } from '../../runtime/machine-thread.js';
import { currentThread, ranNs } from './affinity.js';
import { FIRST_PAGE, prepare } from './machines.js';

export interface CrewData {
  readonly handle: MachineHandle;
  readonly device: number;
  readonly pages: number;
}

export interface CrewOrder {
  /** performance.timeOrigin + performance.now(). */
  readonly startMs: number;
  readonly ms: number;
}

export interface CrewReport {
  readonly translations: number;
  readonly ms: number;
  /** Of the time, that the thread had a processor. */
  readonly share: number;
}

const BATCHES_PER_LOOK = 64;

const { handle, device, pages } = workerData as CrewData;
const port = MachineThread.attach(handle).dmaPort(device);
for (let slot = 0; slot < PORT_BATCH; slot++) prepare(port, slot, FIRST_PAGE + (slot % pages));

const now = (): number => performance.timeOrigin + performance.now();

parentPort!.on('message', ({ startMs, ms }: CrewOrder) => {
  const me = currentThread();
  while (now() < startMs);
  const ran = ranNs(me);
  const began = performance.now();
  let batches = 0;
  let took = 0;
  do {
    for (let i = 0; i < BATCHES_PER_LOOK; i++) {
      port.translate(PORT_BATCH);
      port.end();
    }
    batches += BATCHES_PER_LOOK;
    took = performance.now() - began;
  } while (took < ms);
  const share = (ranNs(me) - ran) / (took * 1e6);
  const report: CrewReport = {
    translations: batches * PORT_BATCH,
    ms: took,
    share: Number.isNaN(share) ? 1 : share,
  };
  parentPort!.postMessage(report);
});
parentPort!.postMessage(currentThread());
