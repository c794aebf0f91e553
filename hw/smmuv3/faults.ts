/**
 * What becomes of a transaction that cannot go on: recorded or not, terminated with an abort, terminated as if it
 * had succeeded (RAZ/WI), or stalled. [IHI0070] 3.12, 5.5, 7.2, 7.3.
 */
import {
  NO_SSID,
  XLAT_FAULT_CLASS_SHIFT,
  XLAT_FAULT_S2,
  XLAT_FAULT_TABLE_WRITE,
  XLAT_FLAG_ATS,
  XLAT_FLAG_INSTRUCTION,
  XLAT_FLAG_PRIVILEGED,
  XLAT_FLAG_TRANSLATED,
  XLAT_FLAG_WRITE,
  XLAT_RAZ_WI,
  XLAT_STALLED,
  Xlat,
} from '../iotlb/port-layout.js';
import {
  CONTEXT_BYPASS,
  CONTEXT_FLAG_INSTCFG_SHIFT,
  CONTEXT_FLAG_MEV,
  CONTEXT_FLAG_PRIVCFG_SHIFT,
  CONTEXT_FLAG_S1_ABORT,
  CONTEXT_FLAG_S1_RECORD,
  CONTEXT_FLAG_S1_STALL,
  CONTEXT_FLAG_S2_RECORD,
  CONTEXT_FLAG_S2_STALL,
  CONTEXT_S2,
} from '../iotlb/unit-layout.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import type { ConfigCache } from './config-cache.js';
import { type ConfigFault, word52 } from './config-fetch.js';
import {
  EVENT_CLASS_IN,
  type EventRecord,
  F_ADDR_SIZE,
  F_PERMISSION,
  F_WALK_EABT,
  isTranslationRelated,
} from './event.js';
import type { EventQueue } from './event-queue.js';
import type { Stalls } from './stalls.js';

const IOVA = Xlat.at.iova >> 2;
const FLAGS = Xlat.at.flags >> 2;
const SID = Xlat.at.sid >> 2;
const SSID = Xlat.at.ssid >> 2;
const PA = Xlat.at.pa >> 2;
const IPA = Xlat.at.ipa >> 2;
const STATUS = Xlat.at.status >> 2;
const SIZE_LG2 = Xlat.at.sizeLg2 >> 2;
const FILL_SEQ = Xlat.at.fillSeq >> 2;
const FAULT = Xlat.at.fault >> 2;
const SOURCE = Xlat.at.source >> 2;
const LEVEL = Xlat.at.level >> 2;

/** STE.PRIVCFG, INSTCFG: 0b1x overrides with x. */
const CFG_OVERRIDE = 2;

export class Faults {
  readonly #memory: MachineMemory;
  readonly #events: EventQueue;
  readonly #stalls: Stalls;
  readonly #oasBits: number;

  constructor(memory: MachineMemory, events: EventQueue, stalls: Stalls, oasBits: number) {
    this.#memory = memory;
    this.#events = events;
    this.#stalls = stalls;
    this.#oasBits = oasBits;
  }

  /**
   * The stream has no configuration that could be used: `configs` says why.
   * @param port  base of the port that the request came by
   * @param xlat  the request, which becomes its answer
   */
  unconfigured(port: number, xlat: number, configs: ConfigCache): void {
    const { fault, recordFault, stallFault } = configs;
    const ipa = fault.ipa ?? 0;
    const detail = (fault.s2 ? XLAT_FAULT_S2 : 0) | ((fault.class ?? 0) << XLAT_FAULT_CLASS_SHIFT);
    this.answer(xlat, fault.id, detail);
    const { u32 } = this.#memory;
    u32[(xlat >>> 2) + IPA] = ipa % 2 ** 32;
    u32[(xlat >>> 2) + IPA + 1] = Math.floor(ipa / 2 ** 32);
    if (stallFault) this.#stall(port, xlat, fault, 0);
    else if (recordFault) this.record(xlat, fault);
  }

  /** A request whose walk ended in a fault: status, fault, ipa and pa of the record say which. */
  walked(port: number, xlat: number, flags: number, kind: number): void {
    const { u32 } = this.#memory;
    const x = xlat >>> 2;
    const translated = (u32[x + FLAGS]! & XLAT_FLAG_TRANSLATED) !== 0;
    if (kind === CONTEXT_S2 && u32[x + IOVA + 1]! >= 2 ** (this.#oasBits - 32) && !translated)
      // 3.4: what bypasses stage 1 is checked against the intermediate address size first.
      this.answer(xlat, F_ADDR_SIZE, EVENT_CLASS_IN << XLAT_FAULT_CLASS_SHIFT);
    const status = u32[x + STATUS]!;
    const detail = u32[x + FAULT]!;
    const s2 = (detail & XLAT_FAULT_S2) !== 0;
    const cls = (detail >> XLAT_FAULT_CLASS_SHIFT) & 3;
    const fault: ConfigFault = {
      id: status,
      s2,
      class: cls,
      ipa: s2 ? Math.floor(word52(u32, x + IPA) / 4096) * 4096 : 0,
      // A table is read, but for a hardware update of a stage-1 descriptor.
      ttrnw:
        status === F_PERMISSION && s2 && cls !== EVENT_CLASS_IN && (detail & XLAT_FAULT_TABLE_WRITE) === 0,
      fetchAddr: status === F_WALK_EABT ? Math.floor(word52(u32, x + PA) / 8) * 8 : 0,
    };
    // 3.12: what bypassed stage 1 and is out of range is always terminated, with an abort.
    const bypassed = status === F_ADDR_SIZE && !s2 && (kind === CONTEXT_BYPASS || kind === CONTEXT_S2);
    const stalls = (flags & (s2 ? CONTEXT_FLAG_S2_STALL : CONTEXT_FLAG_S1_STALL)) !== 0;
    if (stalls && !bypassed && !translated && isTranslationRelated(status)) {
      this.#stall(port, xlat, fault, flags);
      return;
    }
    // 5.2, 5.4: an external abort is recorded whatever CD.R and STE.S2R say, and so is a bypass out of range.
    const wanted = flags & (s2 ? CONTEXT_FLAG_S2_RECORD : CONTEXT_FLAG_S1_RECORD);
    const abort = bypassed || (flags & CONTEXT_FLAG_S1_ABORT) !== 0;
    this.#terminate(xlat, fault, bypassed || status === F_WALK_EABT || wanted !== 0, flags, abort);
  }

  /** Fills the answer of a request that was not translated. */
  answer(xlat: number, status: number, detail = 0): void {
    const { u32 } = this.#memory;
    const x = xlat >>> 2;
    u32[x + PA] = u32[x + PA + 1] = u32[x + IPA] = u32[x + IPA + 1] = 0;
    u32[x + SIZE_LG2] = u32[x + FILL_SEQ] = u32[x + SOURCE] = u32[x + LEVEL] = 0;
    u32[x + FAULT] = detail;
    u32[x + STATUS] = status;
  }

  /** @param flags  CONTEXT_FLAG_* of the stream, 0 where its configuration is unknown */
  record(xlat: number, fault: Partial<EventRecord> & { readonly id: number }, flags = 0): void {
    const { u32 } = this.#memory;
    const x = xlat >>> 2;
    const asked = u32[x + FLAGS]!;
    const ssid = u32[x + SSID]!;
    const write = (asked & XLAT_FLAG_WRITE) !== 0;
    const privileged = effective(asked & XLAT_FLAG_PRIVILEGED, flags >> CONTEXT_FLAG_PRIVCFG_SHIFT);
    const instruction = effective(asked & XLAT_FLAG_INSTRUCTION, flags >> CONTEXT_FLAG_INSTCFG_SHIFT);
    this.#events.record(
      {
        ...fault,
        sid: u32[x + SID]!,
        ssv: ssid !== NO_SSID,
        ssid: ssid === NO_SSID ? 0 : ssid & 0xfffff,
        rnw: !write,
        ind: !write && instruction,
        pnu: privileged,
        inputAddr: (BigInt(u32[x + IOVA + 1]!) << 32n) | BigInt(u32[x + IOVA]!),
      },
      (flags & CONTEXT_FLAG_MEV) !== 0,
    );
  }

  /** @param abort  CD.A, or what counts as CD.A = 1 */
  #terminate(xlat: number, fault: ConfigFault, record: boolean, flags: number, abort: boolean): void {
    if (record) this.record(xlat, fault, flags);
    const { u32 } = this.#memory;
    const asked = u32[(xlat >>> 2) + FLAGS]!;
    const ordinary = (asked & (XLAT_FLAG_ATS | XLAT_FLAG_TRANSLATED)) === 0;
    // The device is not told. Stage 2, and what is no translation fault, always abort.
    if (!abort && ordinary && fault.s2 !== true && isTranslationRelated(fault.id))
      u32[(xlat >>> 2) + STATUS] = XLAT_RAZ_WI;
  }

  /** The record of a stall is never lost: without room for it, the transaction waits for that first. */
  #stall(port: number, xlat: number, fault: ConfigFault, flags: number): void {
    const { u32 } = this.#memory;
    const x = xlat >>> 2;
    const writable = this.#events.space() > 0;
    const stag = this.#stalls.hold(port, u32[x + SID]!, writable);
    if (stag < 0) {
      // 3.12: no more can stall, so this one is terminated with an abort, and its record has Stall = 0.
      this.#terminate(xlat, fault, true, flags, true);
      return;
    }
    if (writable) this.record(xlat, { ...fault, stall: true, stag }, flags);
    u32[x + STATUS] = XLAT_STALLED;
    u32[x + LEVEL] = stag;
  }
}

/** @param cfg  STE.PRIVCFG or INSTCFG in the low two bits */
function effective(asked: number, cfg: number): boolean {
  return (cfg & CFG_OVERRIDE) !== 0 ? (cfg & 1) !== 0 : asked !== 0;
}
