/**
 * A thread's scratch memory, shared out: one area for the data of the ioctl being made, then one batch of
 * invalidation commands per vIOMMU.
 *
 *   | call data | batch 0 | batch 1 | ...
 */
import type { VmmTransport } from './transport.js';
import { BATCH_ENTRIES, BATCH_ENTRY_BYTES, CALL_DATA_BYTES, type ScratchArea } from './transport.js';

const BATCH_BYTES = BATCH_ENTRIES * BATCH_ENTRY_BYTES;

export class Scratch {
  /** Data of one ioctl at a time. */
  readonly call: ScratchArea;
  readonly #free: ScratchArea[] = [];

  /** @throws RangeError when the memory is too small, or not contiguous in RAM */
  constructor(transport: VmmTransport) {
    const { va, bytes } = transport.scratch;
    const linear = transport.user.linearOf(va, bytes);
    if (linear < 0 || bytes < CALL_DATA_BYTES || linear % 64 !== 0)
      throw new RangeError(
        `vmm: scratch memory of ${bytes} bytes is not ${CALL_DATA_BYTES} bytes in one run`,
      );
    this.call = { va, linear, bytes: CALL_DATA_BYTES };
    for (let at = CALL_DATA_BYTES; at + BATCH_BYTES <= bytes; at += BATCH_BYTES)
      this.#free.push({ va: va + BigInt(at), linear: linear + at, bytes: BATCH_BYTES });
    this.#free.reverse();
  }

  takeBatch(): ScratchArea | null {
    return this.#free.pop() ?? null;
  }

  giveBatch(area: ScratchArea): void {
    this.#free.push(area);
  }
}
