/**
 * Who may use ATS, and what a Translation Request is answered when it cannot be translated. [IHI0070] 3.9.1.
 *
 *   Translation Request        configuration error -> CA   EATS = 0, SMMUEN = 0 -> UR and F_BAD_ATS_TREQ
 *                              Config = 0b000 -> UR        translation fault -> success, R = W = 0
 *   Translated transaction     ATSCHK = 0 -> passes        ATSCHK = 1: EATS = 0 -> F_TRANSL_FORBIDDEN
 *                              full ATS -> passes          split stage -> stage 2, whose faults are recorded
 *
 * A translated address beyond the output size is aborted without a record. Not modelled: CR2.REC_CFG_ATS, a PASID
 * on Translated transactions (IDR3.PASIDTT = 0), DPT.
 */
import {
  NO_SSID,
  XLAT_ABORT,
  XLAT_ATS_CA,
  XLAT_ATS_UR,
  XLAT_FLAG_ATS,
  XLAT_FLAG_INSTRUCTION,
  XLAT_FLAG_PRIVILEGED,
  XLAT_FLAG_TRANSLATED,
  XLAT_FLAG_WRITE,
  XLAT_FROM_BYPASS,
  XLAT_OK,
  XLAT_PERM_READ,
  XLAT_PERM_WRITE,
  Xlat,
} from '../iotlb/port-layout.js';
import {
  CONTEXT_ABORT,
  CONTEXT_BYPASS,
  CONTEXT_FLAG_ATS,
  CONTEXT_FLAG_ATS_S1CHK,
  StreamContext,
} from '../iotlb/unit-layout.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import type { Smmuv3Config } from './config.js';
import type { ConfigCache } from './config-cache.js';
import {
  F_BAD_ATS_TREQ,
  F_TRANSL_FORBIDDEN,
  isTranslationRelated,
  TREQ_EXECUTE,
  TREQ_PRIVILEGED,
  TREQ_READ,
  TREQ_WRITE,
} from './event.js';
import type { Faults } from './faults.js';
import { CR0 } from './registers.js';
import { Smmuv3Layout } from './smmuv3-layout.js';

const IOVA = Xlat.at.iova >> 2;
const FLAGS = Xlat.at.flags >> 2;
const PA = Xlat.at.pa >> 2;
const STATUS = Xlat.at.status >> 2;
const SIZE_LG2 = Xlat.at.sizeLg2 >> 2;
const FAULT = Xlat.at.fault >> 2;
const SOURCE = Xlat.at.source >> 2;
/** The smallest translation unit of ATS, whatever the granules. */
const STU_LG2 = 12;

export const ATS_KINDS = XLAT_FLAG_ATS | XLAT_FLAG_TRANSLATED;

export class AtsRequests {
  readonly #memory: MachineMemory;
  readonly #base: number;
  readonly #config: Smmuv3Config;
  readonly #configs: ConfigCache;
  readonly #faults: Faults;

  constructor(parts: {
    memory: MachineMemory;
    smmu: number;
    config: Smmuv3Config;
    configs: ConfigCache;
    faults: Faults;
  }) {
    this.#memory = parts.memory;
    this.#base = parts.smmu;
    this.#config = parts.config;
    this.#configs = parts.configs;
    this.#faults = parts.faults;
  }

  /** SMMUEN = 0: nothing of ATS works. */
  disabled(xlat: number): void {
    if (this.#asks(xlat)) this.#unsupported(xlat, this.#config.ats);
    else this.#forbidden(xlat, this.#config.ats);
  }

  /**
   * May this request go on?
   * @returns base of the StreamContext to translate it with, or 0 when it has its answer
   */
  admit(xlat: number, sid: number, ssid: number): number {
    if (this.#asks(xlat)) return this.#admitRequest(xlat, sid, ssid);
    return this.#admitTranslated(xlat, sid, ssid);
  }

  /** A request that was admitted, and whose translation ended in a fault. */
  failed(port: number, xlat: number, flags: number, kind: number): void {
    const { u32 } = this.#memory;
    if (!this.#asks(xlat)) {
      if (u32[(xlat >>> 2) + STATUS] !== XLAT_ABORT) this.#faults.walked(port, xlat, flags, kind);
      return;
    }
    const status = u32[(xlat >>> 2) + STATUS]!;
    if (isTranslationRelated(status)) this.denied(xlat);
    else this.#faults.answer(xlat, status === XLAT_ABORT ? XLAT_ATS_UR : XLAT_ATS_CA);
  }

  /** Success, and no permission: R = W = 0. */
  denied(xlat: number): void {
    this.#faults.answer(xlat, XLAT_OK);
    this.#memory.u32[(xlat >>> 2) + SIZE_LG2] = STU_LG2;
  }

  #asks(xlat: number): boolean {
    return (this.#memory.u32[(xlat >>> 2) + FLAGS]! & XLAT_FLAG_ATS) !== 0;
  }

  #admitRequest(xlat: number, sid: number, ssid: number): number {
    if (!this.#config.ats) {
      this.#unsupported(xlat, false);
      return 0;
    }
    const context = this.#configs.lookup(sid, ssid);
    if (context === 0) {
      const { fault } = this.#configs;
      // A stage-2 fault of the CD fetch is a fault of translation, not of configuration.
      if (isTranslationRelated(fault.id)) this.denied(xlat);
      else this.#faults.answer(xlat, XLAT_ATS_CA);
      return 0;
    }
    const kind = this.#field(context, StreamContext.at.kind);
    if (kind === CONTEXT_ABORT) {
      this.#unsupported(xlat, false);
      return 0;
    }
    if (!this.#enabled(context)) {
      this.#unsupported(xlat, true);
      return 0;
    }
    if (kind === CONTEXT_BYPASS) {
      // S1DSS skips the only stage: identity, with everything permitted.
      if (this.#pass(xlat)) this.#memory.u32[(xlat >>> 2) + FAULT] = XLAT_PERM_READ | XLAT_PERM_WRITE;
      else this.denied(xlat);
      return 0;
    }
    return context;
  }

  #admitTranslated(xlat: number, sid: number, ssid: number): number {
    if (this.#config.ats && !this.#checked()) {
      // Fetched for the device, which looks there whether it has to ask at all.
      this.#configs.lookup(sid, ssid);
      if (!this.#pass(xlat)) this.#faults.answer(xlat, XLAT_ABORT);
      return 0;
    }
    const context = this.#config.ats ? this.#configs.lookup(sid, ssid) : 0;
    if (context === 0 || this.#field(context, StreamContext.at.kind) === CONTEXT_ABORT) {
      this.#faults.answer(xlat, XLAT_ABORT);
      return 0;
    }
    if (!this.#enabled(context)) {
      this.#forbidden(xlat, true);
      return 0;
    }
    if ((this.#field(context, StreamContext.at.flags) & CONTEXT_FLAG_ATS_S1CHK) !== 0) return context;
    if (!this.#pass(xlat)) this.#faults.answer(xlat, XLAT_ABORT);
    return 0;
  }

  /** STE.EATS as it counts: split-stage ATS needs ATSCHK (3.9.2). */
  #enabled(context: number): boolean {
    const flags = this.#field(context, StreamContext.at.flags);
    if ((flags & CONTEXT_FLAG_ATS) === 0) return false;
    return (flags & CONTEXT_FLAG_ATS_S1CHK) === 0 || this.#checked();
  }

  #checked(): boolean {
    return CR0.ATSCHK.get(this.#memory.words.load(this.#base + Smmuv3Layout.at.cr0ack)) === 1;
  }

  #field(context: number, at: number): number {
    return this.#memory.u32[(context + at) >> 2]!;
  }

  /** The address is what it says. @returns false when it is beyond the output size */
  #pass(xlat: number): boolean {
    const { u32 } = this.#memory;
    const x = xlat >>> 2;
    if (u32[x + IOVA + 1]! >= 2 ** (this.#config.oasBits - 32)) return false;
    this.#faults.answer(xlat, XLAT_OK);
    u32[x + PA] = u32[x + IOVA]!;
    u32[x + PA + 1] = u32[x + IOVA + 1]!;
    u32[x + SIZE_LG2] = this.#config.oasBits;
    u32[x + SOURCE] = XLAT_FROM_BYPASS;
    return true;
  }

  #unsupported(xlat: number, record: boolean): void {
    this.#faults.answer(xlat, XLAT_ATS_UR);
    if (!record) return;
    const { u32 } = this.#memory;
    const asked = u32[(xlat >>> 2) + FLAGS]!;
    const pasid = u32[(xlat >>> 2) + (Xlat.at.ssid >> 2)] !== NO_SSID;
    const permissions =
      TREQ_READ |
      ((asked & XLAT_FLAG_WRITE) !== 0 ? TREQ_WRITE : 0) |
      (pasid && (asked & XLAT_FLAG_INSTRUCTION) !== 0 ? TREQ_EXECUTE : 0) |
      (pasid && (asked & XLAT_FLAG_PRIVILEGED) !== 0 ? TREQ_PRIVILEGED : 0);
    this.#faults.record(xlat, { id: F_BAD_ATS_TREQ, permissions, span: 1 });
  }

  #forbidden(xlat: number, record: boolean): void {
    this.#faults.answer(xlat, XLAT_ABORT);
    if (record) this.#faults.record(xlat, { id: F_TRANSL_FORBIDDEN });
  }
}
