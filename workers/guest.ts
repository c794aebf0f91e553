/** Pool task: a guest (its VMM and vCPU in one), with its own way to the kernel. */
import { type PoolTask, runProgram } from './program.js';
import { mailboxTransport } from './protocol/mailbox-transport.js';
import type { TaskOutcome } from './protocol/messages.js';

export function run(task: PoolTask): Promise<TaskOutcome> {
  return runProgram(task, (thread, mailbox) => {
    const { wiring } = task;
    return wiring === undefined ? {} : { transport: mailboxTransport(thread, mailbox, wiring) };
  });
}
