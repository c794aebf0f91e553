/**
 * A guest driver's two queues: it produces commands and consumes events. [IHI0070] 3.5.1. Both lie in guest RAM,
 * aligned to their size; the registers move them.
 */
import { bug } from '../../hw/memory/bug.js';
import { COMMAND_BYTES, COMMAND_WORDS } from '../../hw/smmuv3/command.js';
import { decodeEvent, EVENT_BYTES, EVENT_WORDS, type EventRecord } from '../../hw/smmuv3/event.js';
import {
  QUEUE_OVERFLOW,
  queueAdvance,
  queueEmpty,
  queueFull,
  queueIndex,
  queuePointer,
} from '../../hw/smmuv3/queue.js';
import {
  CMDQ_BASE,
  CMDQ_CONS,
  CMDQ_PROD,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_PROD,
  GERROR,
  GERRORN,
} from '../../hw/smmuv3/registers.js';
import { EIO, ENOMEM } from '../../uapi/abi/errno.js';
import type { GuestRam } from './guest-ram.js';
import type { SmmuMmio } from './virtual-smmu.js';

const PAGE = 4096;

/** Frames for a queue, aligned to its size. @returns first frame | -ENOMEM */
function allocQueue(ram: GuestRam, bytes: number): number {
  const pages = Math.max(1, bytes / PAGE);
  return ram.allocZeroed(pages, pages);
}

export class GuestCommandQueue {
  readonly #ram: GuestRam;
  readonly #mmio: SmmuMmio;
  readonly #log2: number;
  readonly #pfn: number;
  #prod = 0;

  private constructor(ram: GuestRam, mmio: SmmuMmio, log2: number, pfn: number) {
    this.#ram = ram;
    this.#mmio = mmio;
    this.#log2 = log2;
    this.#pfn = pfn;
    let base = CMDQ_BASE.ADDR.put(0n, BigInt(pfn * PAGE));
    base = CMDQ_BASE.LOG2SIZE.put(base, BigInt(log2));
    mmio.write64(CMDQ_BASE.offset, base);
    mmio.write32(CMDQ_PROD.offset, 0);
    mmio.write32(CMDQ_CONS.offset, 0);
  }

  /** Programs the registers; the queue must be disabled. @returns the queue | -ENOMEM */
  static create(ram: GuestRam, mmio: SmmuMmio, log2: number): GuestCommandQueue | number {
    const pfn = allocQueue(ram, COMMAND_BYTES * 2 ** log2);
    return pfn < 0 ? -ENOMEM : new GuestCommandQueue(ram, mmio, log2, pfn);
  }

  /** Adds a command; the SMMU sees it at the next kick, or earlier when the queue is full. @returns 0 | -EIO */
  put(command: Uint32Array): number {
    const cons = this.#mmio.read32(CMDQ_CONS.offset);
    if (queueFull(this.#prod, cons, this.#log2)) {
      const status = this.kick();
      if (status < 0) return status;
    }
    const slot = this.#pfn * PAGE + queueIndex(this.#prod, this.#log2) * COMMAND_BYTES;
    if (!this.#ram.writeWords(slot, command.subarray(0, COMMAND_WORDS))) bug('command queue left guest RAM');
    this.#prod = queueAdvance(this.#prod, this.#log2);
    return 0;
  }

  /**
   * Hands over everything put so far. The write traps, so what it started is finished when it returns.
   * @returns 0 | -EIO an illegal command, now skipped, or the SMMU is dead
   */
  kick(): number {
    const mmio = this.#mmio;
    mmio.write32(CMDQ_PROD.offset, this.#prod);
    const cons = mmio.read32(CMDQ_CONS.offset);
    if (queueEmpty(this.#prod, cons, this.#log2)) return 0;
    const active = mmio.read32(GERROR.offset) ^ mmio.read32(GERRORN.offset);
    if ((active & GERROR.CMDQ_ERR.mask) === 0) return -EIO;
    // What Linux does: overwrite the command with a harmless one, acknowledge, and go on.
    const slot = this.#pfn * PAGE + queueIndex(cons, this.#log2) * COMMAND_BYTES;
    this.#ram.writeWords(slot, HARMLESS);
    mmio.write32(GERRORN.offset, mmio.read32(GERRORN.offset) ^ GERROR.CMDQ_ERR.mask);
    return -EIO;
  }

  /** Log2 of entries. */
  get log2(): number {
    return this.#log2;
  }

  destroy(): void {
    this.#ram.frames.release(this.#pfn, Math.max(1, (COMMAND_BYTES * 2 ** this.#log2) / PAGE));
  }
}

/** CMD_SYNC, without completion signal. */
const HARMLESS = Uint32Array.of(0x46, 0, 0, 0);

export class GuestEventQueue {
  readonly #ram: GuestRam;
  readonly #mmio: SmmuMmio;
  readonly #log2: number;
  readonly #pfn: number;
  /** Overflows seen and acknowledged. */
  overflows = 0;

  private constructor(ram: GuestRam, mmio: SmmuMmio, log2: number, pfn: number) {
    this.#ram = ram;
    this.#mmio = mmio;
    this.#log2 = log2;
    this.#pfn = pfn;
    let base = EVENTQ_BASE.ADDR.put(0n, BigInt(pfn * PAGE));
    base = EVENTQ_BASE.LOG2SIZE.put(base, BigInt(log2));
    mmio.write64(EVENTQ_BASE.offset, base);
    mmio.write32(EVENTQ_PROD.offset, 0);
    mmio.write32(EVENTQ_CONS.offset, 0);
  }

  static create(ram: GuestRam, mmio: SmmuMmio, log2: number): GuestEventQueue | number {
    const pfn = allocQueue(ram, EVENT_BYTES * 2 ** log2);
    return pfn < 0 ? -ENOMEM : new GuestEventQueue(ram, mmio, log2, pfn);
  }

  /** Takes every record there is, and acknowledges an overflow. */
  take(): EventRecord[] {
    const mmio = this.#mmio;
    const prod = mmio.read32(EVENTQ_PROD.offset);
    let cons = mmio.read32(EVENTQ_CONS.offset);
    const records: EventRecord[] = [];
    const words = new Uint32Array(EVENT_WORDS);
    while (!queueEmpty(prod, cons, this.#log2)) {
      const slot = this.#pfn * PAGE + queueIndex(cons, this.#log2) * EVENT_BYTES;
      if (!this.#ram.copyWords(slot, words)) bug('event queue left guest RAM');
      records.push(decodeEvent(words));
      cons = queueAdvance(cons, this.#log2);
    }
    if (((prod ^ cons) & QUEUE_OVERFLOW) !== 0) this.overflows++;
    mmio.write32(EVENTQ_CONS.offset, (queuePointer(cons, this.#log2) | (prod & QUEUE_OVERFLOW)) >>> 0);
    return records;
  }

  destroy(): void {
    this.#ram.frames.release(this.#pfn, Math.max(1, (EVENT_BYTES * 2 ** this.#log2) / PAGE));
  }
}
