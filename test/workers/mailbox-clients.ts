/** A thread that floods the mailbox: worker of mailbox.test.ts. Posts ahead, takes behind, and counts. */
import { parentPort, workerData } from 'node:worker_threads';
import type { MemoryHandle } from '../../hw/memory/machine-memory.js';
import { MailboxClient } from '../../workers/protocol/mailbox-client.js';
import { attachEnv } from './bare-machine.js';

export interface FloodOrder {
  readonly handle: MemoryHandle;
  readonly client: number;
  readonly calls: number;
  readonly outstanding: number;
  /** Post `calls` tickets and end without taking any. */
  readonly abandon?: boolean;
}

export interface FloodResult {
  readonly threadId: number;
  readonly taken: number;
  readonly wrong: number;
}

const IOMMUFD_0 = 1 << 16;
const { handle, client, calls, outstanding, abandon = false } = workerData as FloodOrder;
const { env, memory } = attachEnv(handle);
const mailbox = new MailboxClient(env, memory);

const bytes = new Uint8Array(8);
const view = new DataView(bytes.buffer);
const open: { ticket: number; call: number }[] = [];
let posted = 0;
let taken = 0;
let wrong = 0;

while (taken < calls) {
  while (posted < calls && open.length < outstanding) {
    view.setUint32(0, client, true);
    view.setUint32(4, posted, true);
    const ticket = mailbox.post(IOMMUFD_0, 0x1234, bytes);
    if (ticket < 0) break;
    open.push({ ticket, call: posted++ });
  }
  if (abandon) break;
  const oldest = open.shift();
  if (oldest === undefined) continue;
  if (mailbox.wait(oldest.ticket) < 0) wrong++;
  // The core answers with the number of the call, and writes its complement into the structure.
  if (mailbox.take(oldest.ticket, bytes) !== oldest.call) wrong++;
  if (view.getUint32(4, true) !== ~oldest.call >>> 0) wrong++;
  taken++;
}
if (!abandon) env.threads.retire(env.threadId);
const result: FloodResult = { threadId: env.threadId, taken, wrong };
parentPort?.postMessage(result);
