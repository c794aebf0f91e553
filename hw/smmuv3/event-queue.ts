/**
 * The producer of the Event queue. [IHI0070] 3.5, 7.2 and 7.4. A record that finds the queue disabled, full or
 * aborting is lost; a full queue toggles OVFLG, once per acknowledgement.
 */
import type { Words } from '../sync/words.js';
import type { Bus } from './bus.js';
import { EVENT_BYTES, EVENT_WORDS, type EventRecord, encodeEvent } from './event.js';
import type { Interrupts } from './interrupts.js';
import { QUEUE_OVERFLOW, queueAdvance, queueFull, queueIndex, queuePointer } from './queue.js';
import { CR0, EVENTQ_BASE, GERROR } from './registers.js';
import { Smmuv3Layout } from './smmuv3-layout.js';

const at = Smmuv3Layout.at;

export class EventQueue {
  readonly #words: Words;
  readonly #bus: Bus;
  readonly #base: number;
  readonly #interrupts: Interrupts;
  readonly #maxLog2: number;
  readonly #record = new Uint32Array(EVENT_WORDS);

  constructor(bus: Bus, smmu: number, interrupts: Interrupts, maxLog2: number) {
    this.#words = bus.memory.words;
    this.#bus = bus;
    this.#base = smmu;
    this.#interrupts = interrupts;
    this.#maxLog2 = maxLog2;
  }

  record(event: Partial<EventRecord> & { readonly id: number }): void {
    const words = this.#words;
    if (
      CR0.EVENTQEN.get(words.load(this.#base + at.cr0ack)) === 0 ||
      this.#interrupts.active(GERROR.EVENTQ_ABT_ERR.mask)
    ) {
      words.add(this.#base + at.eventsLost, 1);
      return;
    }
    const queue = words.load64(this.#base + at.eventqBase);
    const log2 = Math.min(Number(EVENTQ_BASE.LOG2SIZE.get(queue)), this.#maxLog2);
    const prod = words.load(this.#base + at.eventqProd);
    const cons = words.load(this.#base + at.eventqCons);
    if (queueFull(prod, cons, log2)) {
      words.add(this.#base + at.eventsLost, 1);
      // 7.4: no new overflow is flagged until the last one is acknowledged.
      if (((prod ^ cons) & QUEUE_OVERFLOW) === 0)
        words.store(this.#base + at.eventqProd, prod ^ QUEUE_OVERFLOW);
      return;
    }
    // The queue is aligned to its size: low bits of ADDR are zero whatever was written.
    const size = EVENT_BYTES * 2 ** log2;
    const start = Math.floor(Number(EVENTQ_BASE.ADDR.get(queue)) / size) * size;
    const to = this.#bus.memory.linearOf(start + queueIndex(prod, log2) * EVENT_BYTES, EVENT_BYTES);
    if (to < 0) {
      words.add(this.#base + at.eventsLost, 1);
      this.#interrupts.error(GERROR.EVENTQ_ABT_ERR.mask);
      return;
    }
    encodeEvent(this.#record, 0, event);
    // Plain stores: the slot is the SMMU's until PROD, stored atomically, passes it.
    this.#bus.memory.u32.set(this.#record, to >>> 2);
    words.store(this.#base + at.eventqProd, queueAdvance(prod, log2));
    words.add(this.#base + at.eventsRecorded, 1);
    // CONS is read after PROD is written, as software writes CONS and then reads PROD: one of the two sees
    // the other, so that no record is left without an interrupt.
    const now = words.load(this.#base + at.eventqCons);
    if (queuePointer(now, log2) === queuePointer(prod, log2)) this.#interrupts.eventq();
  }
}
