/**
 * Commands collected for one trip to the queue (Linux: struct arm_smmu_cmdq_batch). When it is full it goes
 * without a SYNC; the last trip carries the SYNC that covers all of them.
 */
import { COMMAND_WORDS } from '../../../hw/smmuv3/command.js';
import type { CommandQueue } from './cmdq.js';

/** Commands of one trip. With the SYNC they must fit the smallest queue. */
export const BATCH_ENTRIES = 64;

export class CommandBatch {
  readonly queue: CommandQueue;
  readonly #cmds = new Uint32Array(BATCH_ENTRIES * COMMAND_WORDS);
  #count = 0;
  #status = 0;

  constructor(queue: CommandQueue) {
    this.queue = queue;
  }

  get count(): number {
    return this.#count;
  }

  /** Adds the command that `encode` writes at (words, index). */
  add(encode: (words: Uint32Array, at: number) => void): void {
    if (this.#count === BATCH_ENTRIES) {
      const status = this.queue.issue(this.#cmds, this.#count, false);
      if (this.#status === 0) this.#status = status;
      this.#count = 0;
    }
    encode(this.#cmds, this.#count * COMMAND_WORDS);
    this.#count++;
  }

  /** Sends what is left and a SYNC. @returns a ticket for CommandQueue.wait | -ETIMEDOUT */
  submit(): number {
    const count = this.#count;
    const status = this.#status;
    this.#count = 0;
    this.#status = 0;
    return status < 0 ? status : this.queue.submit(this.#cmds, count, true);
  }

  /** submit() and wait. @returns 0 | -ETIMEDOUT */
  sync(): number {
    const ticket = this.submit();
    return ticket < 0 ? ticket : this.queue.wait(ticket);
  }
}
