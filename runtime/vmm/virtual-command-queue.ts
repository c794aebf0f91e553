/**
 * The consumer of a guest's command queue. [IHI0070] 3.5.1, 4, 7.1. It runs in the trap of a CMDQ_PROD write,
 * on the thread that wrote, and every command it took is complete when the write returns.
 *
 *   CONS ----> command ----> CFGI_STE*: the guest's STE is read again, at once
 *                       \--> TLBI, CFGI_CD*, ATC_INV: gathered ----> SYNC, a full batch or the end: issued
 *
 * CONS moves only past commands that were handled. An illegal one stops the queue: CONS.ERR, GERROR.CMDQ_ERR,
 * until the guest acknowledges. Guests write anything; one trap takes at most twice the queue's size.
 */
import {
  CMD,
  CMD_ATC_INV,
  CMD_CFGI,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_CFGI_RANGE,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PREFETCH_ADDR,
  CMD_PREFETCH_CONFIG,
  CMD_SYNC,
  CMD_SYNC_FIELDS,
  CMD_TLBI,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA,
  CMD_TLBI_NSNH_ALL,
  COMMAND_BYTES,
  COMMAND_WORDS,
  SYNC_CS_IRQ,
  SYNC_CS_SEV,
} from '../../hw/smmuv3/command.js';
import { queueAdvance, queueIndex, queuePointer } from '../../hw/smmuv3/queue.js';
import { CERROR_ABT, CERROR_ILL, CERROR_NONE, CMDQ_BASE, CMDQ_CONS } from '../../hw/smmuv3/registers.js';
import { EIO } from '../../uapi/abi/errno.js';
import type { GuestRam } from './guest-ram.js';
import type { SmmuFeatures } from './virtual-idr.js';

/** What the queue's commands act on. `origin` counts the commands of one trap. */
export interface CommandSink {
  /** Streams firstSid..lastSid (inclusive): their STEs may have changed. */
  reconfigure(firstSid: number, lastSid: number, origin: number): void;
  /** A command for one stream. A StreamID that nobody has is ignored. */
  toStream(sid: number, command: Uint32Array, origin: number): void;
  /** A command without a StreamID. */
  toAll(command: Uint32Array, origin: number): void;
  /** Issues what was gathered. @returns 0 | -errno, then `failedOrigin` says at which command */
  flush(): number;
  readonly failedOrigin: number;
  /** A SYNC that asks for an interrupt has completed. */
  syncInterrupt(): void;
}

/** ok: stopped at PROD. error: CONS.ERR says why. dead: the physical SMMU no longer answers. */
export type ConsumeOutcome = 'ok' | 'error' | 'dead';

const SID_LAST = 0xffff_ffff;

export class VirtualCommandQueue {
  readonly #ram: GuestRam;
  readonly #sink: CommandSink;
  readonly #command = new Uint32Array(COMMAND_WORDS);
  /** CMDQ_BASE, PROD and CONS, raw. */
  base = 0n;
  prod = 0;
  cons = 0;
  /** Commands handled since reset. */
  handled = 0;

  constructor(ram: GuestRam, sink: CommandSink) {
    this.#ram = ram;
    this.#sink = sink;
  }

  /** Takes commands up to PROD; the queue is enabled and not in error. */
  consume(features: SmmuFeatures): ConsumeOutcome {
    const log2 = Math.min(Number(CMDQ_BASE.LOG2SIZE.get(this.base)), features.cmdqsLg2);
    const size = COMMAND_BYTES * 2 ** log2;
    const table = Math.floor(Number(CMDQ_BASE.ADDR.get(this.base)) / size) * size;
    const first = queuePointer(this.cons, log2);
    const end = queuePointer(this.prod, log2);
    let taken = 0;
    for (let at = first; at !== end; at = queueAdvance(at, log2)) {
      let error = CERROR_NONE;
      if (!this.#ram.copyWords(table + queueIndex(at, log2) * COMMAND_BYTES, this.#command))
        error = CERROR_ABT;
      else if (!this.#execute(features, taken)) error = CERROR_ILL;
      if (error !== CERROR_NONE || CMD.OP.get(this.#command) === CMD_SYNC) {
        const status = this.#sink.flush();
        // A command before this one failed: that is where the queue stops.
        if (status < 0) return this.#refuse(first, log2, status);
      }
      if (error !== CERROR_NONE) return this.#stop(first, log2, taken, error);
      taken++;
    }
    const status = this.#sink.flush();
    if (status < 0) return this.#refuse(first, log2, status);
    this.#moveTo(first, log2, taken, CERROR_NONE);
    return 'ok';
  }

  #refuse(first: number, log2: number, status: number): ConsumeOutcome {
    const { failedOrigin } = this.#sink;
    if (status === -EIO) return this.#stop(first, log2, failedOrigin, CERROR_ILL);
    this.#moveTo(first, log2, failedOrigin, CERROR_NONE);
    return 'dead';
  }

  #stop(first: number, log2: number, taken: number, error: number): ConsumeOutcome {
    this.#moveTo(first, log2, taken, error);
    return 'error';
  }

  #moveTo(first: number, log2: number, taken: number, error: number): void {
    this.handled += taken;
    this.cons = CMDQ_CONS.ERR.put(queueAdvance(first, log2, taken), error);
  }

  /** @returns false for a command that is CERROR_ILL */
  #execute(features: SmmuFeatures, origin: number): boolean {
    const command = this.#command;
    if (CMD.SSec.get(command) === 1) return false;
    switch (CMD.OP.get(command)) {
      case CMD_PREFETCH_CONFIG:
      case CMD_PREFETCH_ADDR:
        return true;
      case CMD_CFGI_STE: {
        const sid = CMD_CFGI.StreamID.get(command);
        this.#sink.reconfigure(sid, sid, origin);
        return true;
      }
      case CMD_CFGI_STE_RANGE: {
        const span = 2 ** (CMD_CFGI_RANGE.Range.get(command) + 1);
        const sid = Math.floor(CMD_CFGI_RANGE.StreamID.get(command) / span) * span;
        this.#sink.reconfigure(sid, Math.min(sid + span - 1, SID_LAST), origin);
        return true;
      }
      case CMD_CFGI_CD:
      case CMD_CFGI_CD_ALL:
        this.#sink.toStream(CMD_CFGI.StreamID.get(command), command, origin);
        return true;
      case CMD_ATC_INV:
        if (features.ats === 0) return false;
        this.#sink.toStream(CMD_CFGI.StreamID.get(command), command, origin);
        return true;
      case CMD_TLBI_NH_VA:
      case CMD_TLBI_NH_VAA:
        if (features.rangeInvalidate === 0) clearRange(command);
        this.#sink.toAll(command, origin);
        return true;
      case CMD_TLBI_NH_ALL:
      case CMD_TLBI_NH_ASID:
      case CMD_TLBI_NSNH_ALL:
        this.#sink.toAll(command, origin);
        return true;
      case CMD_SYNC: {
        const cs = CMD_SYNC_FIELDS.CS.get(command);
        if (cs > SYNC_CS_SEV) return false;
        if (cs === SYNC_CS_IRQ) this.#sink.syncInterrupt();
        return true;
      }
      default:
        // Stage 2, EL2, EL3, PRI and stalls are not offered in the ID registers.
        return false;
    }
  }
}

/** Without IDR3.RIL these bits are RES0, whatever the guest left in them; the hardware below may have RIL. */
function clearRange(command: Uint32Array): void {
  CMD_TLBI.NUM.put(command, 0);
  CMD_TLBI.SCALE.put(command, 0);
  CMD_TLBI.TTL128.put(command, 0);
  CMD_TLBI.TTL.put(command, 0);
  CMD_TLBI.TG.put(command, 0);
}
