/** Pool task: a device's traffic program, with the DMA port of its device. */
import { type PoolTask, runProgram } from './program.js';
import type { TaskOutcome } from './protocol/messages.js';

export function run(task: PoolTask): Promise<TaskOutcome> {
  return runProgram(task, (thread) => {
    const { deviceIndex } = task;
    if (deviceIndex === undefined) throw new TypeError(`${task.name}: a device program needs a deviceIndex`);
    return { port: thread.dmaPort(deviceIndex) };
  });
}
