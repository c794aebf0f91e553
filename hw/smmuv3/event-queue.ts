/**
 * The producer of the Event queue. [IHI0070] 3.5, 7.2 to 7.4. A record that finds the queue disabled, full or
 * aborting is lost; a full queue toggles OVFLG, once per acknowledgement. A stalled transaction asks `writable`
 * first and waits (stalls.ts), so that its record is neither lost nor the cause of an overflow.
 *
 * Merging (7.3.1): a record of a stream with STE.MEV that equals the last one written, while that one has not
 * been read, stands for both.
 */
import type { Words } from '../sync/words.js';
import type { Bus } from './bus.js';
import { EVENT_BYTES, EVENT_WORDS, type EventRecord, encodeEvent, eventsMerge } from './event.js';
import type { Interrupts } from './interrupts.js';
import {
  QUEUE_OVERFLOW,
  queueAdvance,
  queueEmpty,
  queueFull,
  queueIndex,
  queuePointer,
  queueSpace,
} from './queue.js';
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
  /** The last record that this object wrote, and PROD after it: what merging compares with. */
  readonly #last = new Uint32Array(EVENT_WORDS);
  #lastProd = -1;

  constructor(bus: Bus, smmu: number, interrupts: Interrupts, maxLog2: number) {
    this.#words = bus.memory.words;
    this.#bus = bus;
    this.#base = smmu;
    this.#interrupts = interrupts;
    this.#maxLog2 = maxLog2;
  }

  /** 7.2.1: how many records the queue takes now. */
  space(): number {
    if (!this.#open()) return 0;
    const words = this.#words;
    const log2 = this.#log2(words.load64(this.#base + at.eventqBase));
    return Math.max(
      0,
      queueSpace(words.load(this.#base + at.eventqProd), words.load(this.#base + at.eventqCons), log2),
    );
  }

  /** @param merge  whether the stream permits merging (STE.MEV) */
  record(event: Partial<EventRecord> & { readonly id: number }, merge = false): void {
    const words = this.#words;
    if (!this.#open()) {
      words.add(this.#base + at.eventsLost, 1);
      return;
    }
    const queue = words.load64(this.#base + at.eventqBase);
    const log2 = this.#log2(queue);
    const prod = words.load(this.#base + at.eventqProd);
    const cons = words.load(this.#base + at.eventqCons);
    encodeEvent(this.#record, 0, event);
    if (merge && this.#merges(prod, cons, log2)) {
      words.add(this.#base + at.eventsMerged, 1);
      return;
    }
    if (queueFull(prod, cons, log2)) {
      words.add(this.#base + at.eventsLost, 1);
      // 7.4: no new overflow is flagged until the last one is acknowledged.
      if (((prod ^ cons) & QUEUE_OVERFLOW) === 0) this.#overflow(prod, log2);
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
    // Plain stores: the slot is the SMMU's until PROD, stored atomically, passes it.
    words.writeUnsigned(to, this.#record, 0, EVENT_WORDS);
    const next = queueAdvance(prod, log2);
    words.store(this.#base + at.eventqProd, next);
    words.add(this.#base + at.eventsRecorded, 1);
    this.#last.set(this.#record);
    this.#lastProd = queuePointer(next, log2);
    // CONS is read after PROD is written, as software writes CONS and then reads PROD: one of the two sees
    // the other, so that no record is left without an interrupt.
    const now = words.load(this.#base + at.eventqCons);
    if (queuePointer(now, log2) === queuePointer(prod, log2)) this.#interrupts.eventq();
  }

  /** When software has emptied the queue meanwhile it may not have seen that something is lost: it is told. */
  #overflow(prod: number, log2: number): void {
    this.#words.store(this.#base + at.eventqProd, prod ^ QUEUE_OVERFLOW);
    if (queueEmpty(prod, this.#words.load(this.#base + at.eventqCons), log2)) this.#interrupts.eventq();
  }

  /** Enabled, and no abort unacknowledged. */
  #open(): boolean {
    return (
      CR0.EVENTQEN.get(this.#words.load(this.#base + at.cr0ack)) === 1 &&
      !this.#interrupts.active(GERROR.EVENTQ_ABT_ERR.mask)
    );
  }

  #log2(queue: bigint): number {
    return Math.min(Number(EVENTQ_BASE.LOG2SIZE.get(queue)), this.#maxLog2);
  }

  /** Whether the last record written says the same and is unread: PROD still follows it, and CONS is not there. */
  #merges(prod: number, cons: number, log2: number): boolean {
    const pointer = queuePointer(prod, log2);
    return (
      pointer === this.#lastProd &&
      pointer !== queuePointer(cons, log2) &&
      eventsMerge(this.#last, this.#record)
    );
  }
}
