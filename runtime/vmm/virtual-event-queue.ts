/**
 * The producer of a guest's event queue. [IHI0070] 3.5.1, 7.2, 7.4.
 *
 *   full, and no overflow pending   PROD.OVFLG is toggled, the record is lost
 *   full, overflow pending          the record is lost
 *   base outside the guest's RAM    GERROR.EVENTQ_ABT_ERR, the record is lost
 *
 * An overflow is pending while PROD.OVFLG and CONS.OVACKFLG differ; records still enter when there is room.
 */
import { EVENT_BYTES, EVENT_WORDS } from '../../hw/smmuv3/event.js';
import { QUEUE_OVERFLOW, queueAdvance, queueFull, queueIndex } from '../../hw/smmuv3/queue.js';
import { EVENTQ_BASE } from '../../hw/smmuv3/registers.js';
import type { GuestRam } from './guest-ram.js';

export type EventOutcome = 'recorded' | 'overflowed' | 'aborted';

export class VirtualEventQueue {
  readonly #ram: GuestRam;
  #base = 0n;
  #prod = 0;
  #cons = 0;

  constructor(ram: GuestRam) {
    this.#ram = ram;
  }

  /** Registers, raw. Base and PROD are writable only while the queue is disabled: the caller sees to it. */
  get base(): bigint {
    return this.#base;
  }
  set base(value: bigint) {
    this.#base = value;
  }
  get prod(): number {
    return this.#prod;
  }
  set prod(value: number) {
    this.#prod = value >>> 0;
  }
  get cons(): number {
    return this.#cons;
  }
  set cons(value: number) {
    this.#cons = value >>> 0;
  }

  /** @param maxLg2  IDR1.EVENTQS */
  record(words: Uint32Array, maxLg2: number): EventOutcome {
    const log2 = Math.min(Number(EVENTQ_BASE.LOG2SIZE.get(this.#base)), maxLg2);
    if (queueFull(this.#prod, this.#cons, log2)) return this.overflow();
    const size = EVENT_BYTES * 2 ** log2;
    const table = Math.floor(Number(EVENTQ_BASE.ADDR.get(this.#base)) / size) * size;
    const slot = table + queueIndex(this.#prod, log2) * EVENT_BYTES;
    if (!this.#ram.writeWords(slot, words.subarray(0, EVENT_WORDS))) return 'aborted';
    this.#prod = queueAdvance(this.#prod, log2);
    return 'recorded';
  }

  /** Records were lost, here or upstream. */
  overflow(): EventOutcome {
    if (((this.#prod ^ this.#cons) & QUEUE_OVERFLOW) === 0) this.#prod = (this.#prod ^ QUEUE_OVERFLOW) >>> 0;
    return 'overflowed';
  }
}
