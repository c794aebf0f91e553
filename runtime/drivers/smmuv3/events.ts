/**
 * The consumer of an SMMU's event queue. [IHI0070] 3.5.2, 7.2. Records are taken one at a time and CONS is
 * published after each, so that the SMMU has room as soon as can be; an overflow is acknowledged when the
 * queue has been read.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_evtq_thread
 */
import { NO_BUGS } from '../../../hw/bugs/bug-switches.js';
import {
  C_BAD_CD,
  C_BAD_STE,
  C_BAD_SUBSTREAMID,
  EVENT_BYTES,
  EVENT_WORDS,
  F_ACCESS,
  F_ADDR_SIZE,
  F_PERMISSION,
  F_STREAM_DISABLED,
  F_TRANSLATION,
} from '../../../hw/smmuv3/event.js';
import { QUEUE_OVERFLOW, queueAdvance, queueEmpty, queueIndex } from '../../../hw/smmuv3/queue.js';
import { EVENTQ_CONS, EVENTQ_PROD } from '../../../hw/smmuv3/registers.js';
import type { Words } from '../../../hw/sync/words.js';
import type { ErrorRegisters } from './gerror.js';

/** What a guest learns about its own streams; everything else is the host's business. */
export const FORWARDED_EVENTS: ReadonlySet<number> = new Set([
  C_BAD_STE,
  F_STREAM_DISABLED,
  C_BAD_SUBSTREAMID,
  C_BAD_CD,
  F_TRANSLATION,
  F_ADDR_SIZE,
  F_ACCESS,
  F_PERMISSION,
]);

export class EventQueue {
  readonly #words: Words;
  readonly #registers: ErrorRegisters;
  readonly #linear: number;
  readonly #lg2: number;
  /** A bug of the zoo. */
  readonly #early: boolean;
  readonly #record = new Uint32Array(EVENT_WORDS);

  constructor(words: Words, registers: ErrorRegisters, linear: number, lg2: number, bugs = NO_BUGS) {
    this.#early = bugs['evtq-consumer-advanced-early'];
    this.#words = words;
    this.#registers = registers;
    this.#linear = linear;
    this.#lg2 = lg2;
  }

  /**
   * Reads what is there, at most one queue's worth, so that a flood of faults cannot hold the core.
   * @param take  called with each record, which is reused afterwards
   * @returns how many were read, and whether some had been lost before
   */
  drain(take: (record: Uint32Array) => void): { taken: number; overflow: boolean } {
    let prod = this.#registers.read32(EVENTQ_PROD.offset);
    let cons = this.#registers.read32(EVENTQ_CONS.offset);
    let taken = 0;
    while (taken < 2 ** this.#lg2) {
      if (queueEmpty(prod, cons, this.#lg2)) {
        prod = this.#registers.read32(EVENTQ_PROD.offset);
        if (queueEmpty(prod, cons, this.#lg2)) break;
      }
      if (this.#early) this.#registers.write32(EVENTQ_CONS.offset, queueAdvance(cons, this.#lg2));
      const linear = this.#linear + queueIndex(cons, this.#lg2) * EVENT_BYTES;
      for (let i = 0; i < EVENT_WORDS; i++) this.#record[i] = this.#words.load(linear + i * 4);
      cons = queueAdvance(cons, this.#lg2);
      this.#registers.write32(EVENTQ_CONS.offset, cons);
      take(this.#record);
      taken++;
    }
    const overflow = ((prod ^ cons) & QUEUE_OVERFLOW) !== 0;
    if (overflow) this.#registers.write32(EVENTQ_CONS.offset, (cons ^ QUEUE_OVERFLOW) >>> 0);
    return { taken, overflow };
  }
}
