/**
 * The consumer of an SMMU's PRI queue. [IHI0070] 3.5.2, 8.1. Records are taken one at a time, CONS published after
 * each; an overflow is acknowledged when the queue has been read: the SMMU has answered those groups itself.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_priq_thread, arm_smmu_handle_ppr
 */
import { NO_BUGS } from '../../../hw/bugs/bug-switches.js';
import { PAGE_REQUEST, PAGE_REQUEST_BYTES } from '../../../hw/smmuv3/page-request.js';
import { QUEUE_OVERFLOW, queueAdvance, queueEmpty, queueIndex } from '../../../hw/smmuv3/queue.js';
import { PRIQ_CONS, PRIQ_PROD } from '../../../hw/smmuv3/registers.js';
import type { Words } from '../../../hw/sync/words.js';
import type { ErrorRegisters } from './gerror.js';

export interface PageRequest {
  readonly sid: number;
  /** -1 when it came without a PASID. */
  readonly ssid: number;
  readonly group: number;
  readonly last: boolean;
  readonly read: boolean;
  readonly write: boolean;
  readonly exec: boolean;
  readonly priv: boolean;
  /** Input address >> 12. */
  readonly page: number;
}

export class PriQueue {
  readonly #words: Words;
  readonly #registers: ErrorRegisters;
  readonly #linear: number;
  readonly #lg2: number;
  /** A bug of the zoo. */
  readonly #neverAcknowledges: boolean;
  readonly #record = new Uint32Array(PAGE_REQUEST_BYTES / 4);

  constructor(words: Words, registers: ErrorRegisters, linear: number, lg2: number, bugs = NO_BUGS) {
    this.#neverAcknowledges = bugs['priq-overflow-never-acknowledged'];
    this.#words = words;
    this.#registers = registers;
    this.#linear = linear;
    this.#lg2 = lg2;
  }

  /** Reads what is there, at most one queue's worth. @returns how many, and whether some had been lost before */
  drain(take: (request: PageRequest) => void): { taken: number; overflow: boolean } {
    let prod = this.#registers.read32(PRIQ_PROD.offset);
    let cons = this.#registers.read32(PRIQ_CONS.offset);
    let taken = 0;
    for (; taken < 2 ** this.#lg2; taken++) {
      if (queueEmpty(prod, cons, this.#lg2)) {
        prod = this.#registers.read32(PRIQ_PROD.offset);
        if (queueEmpty(prod, cons, this.#lg2)) break;
      }
      const linear = this.#linear + queueIndex(cons, this.#lg2) * PAGE_REQUEST_BYTES;
      for (let i = 0; i < this.#record.length; i++) this.#record[i] = this.#words.load(linear + i * 4);
      cons = queueAdvance(cons, this.#lg2);
      this.#registers.write32(PRIQ_CONS.offset, cons);
      take(this.#decode());
    }
    const overflow = !this.#neverAcknowledges && ((prod ^ cons) & QUEUE_OVERFLOW) !== 0;
    if (overflow) this.#registers.write32(PRIQ_CONS.offset, (cons ^ QUEUE_OVERFLOW) >>> 0);
    return { taken, overflow };
  }

  #decode(): PageRequest {
    const record = this.#record;
    return {
      sid: PAGE_REQUEST.StreamID.get(record),
      ssid: PAGE_REQUEST.SSV.get(record) === 1 ? PAGE_REQUEST.SubstreamID.get(record) : -1,
      group: PAGE_REQUEST.PRGIndex.get(record),
      last: PAGE_REQUEST.Last.get(record) === 1,
      read: PAGE_REQUEST.R.get(record) === 1,
      write: PAGE_REQUEST.W.get(record) === 1,
      exec: PAGE_REQUEST.X.get(record) === 1,
      priv: PAGE_REQUEST.Priv.get(record) === 1,
      page: PAGE_REQUEST.Page.get(record),
    };
  }
}
