/**
 * The bus front of one CMDQV for its host: what loads and stores in its aperture do, on any thread. A store that has
 * an effect rings the SMMU's doorbell; the model acts on it when its thread steps.
 *
 * Read-only registers ignore stores, and so do BASE and CONS_INDX_BASE while their queue is enabled. A VCMDQ that is
 * not allocated has no page 0 under its global number: it reads as zero and ignores stores, as everything does that
 * is not modelled, which is logged once per offset.
 */
import { UnitLayout } from '../iotlb/unit-layout.js';
import { Doorbell } from '../sync/doorbell.js';
import type { SyncEnv } from '../sync/thread.js';
import type { Words } from '../sync/words.js';
import { CmdqvLayout, slotOf, VCMDQ_BYTES, VcmdqRecord, VINTF_BYTES, VintfRecord } from './cmdqv-layout.js';
import type { CmdqvConfig, CmdqvRegions } from './config.js';
import * as R from './registers.js';

const at = CmdqvLayout.at;
const vintfAt = VintfRecord.at;
const vcmdqAt = VcmdqRecord.at;
const MAX_LOGGED = 256;

interface Slot {
  /** Linear offset. */
  readonly word: number;
  readonly rule: 'rw' | 'ro' | 'config' | 'vcmdq-off';
  /** Record of the queue, for `vcmdq-off`. */
  readonly vcmdq: number;
}

export class CmdqvMmio {
  readonly #words: Words;
  readonly #config: CmdqvConfig;
  readonly #regions: CmdqvRegions;
  readonly #doorbell: Doorbell;
  readonly #log: (message: string) => void;
  readonly #logged = new Set<number>();

  /** @param unit  base of the SMMU's `unit:N` region */
  constructor(
    env: SyncEnv,
    config: CmdqvConfig,
    regions: CmdqvRegions,
    unit: number,
    log: (message: string) => void,
  ) {
    this.#words = env.words;
    this.#config = config;
    this.#regions = regions;
    const { doorbell, doorbellParked } = UnitLayout.at;
    this.#doorbell = new Doorbell(env, unit + doorbell, unit + doorbellParked);
    this.#log = log;
  }

  /** @param offset  from the CMDQV's base, a multiple of 4 */
  read32(offset: number): number {
    const slot = this.#find(offset);
    if (slot === null) return 0;
    return this.#words.load(slot.word) >>> 0;
  }

  write32(offset: number, value: number): void {
    const slot = this.#find(offset);
    if (slot === null || slot.rule === 'ro') return;
    if (slot.rule === 'vcmdq-off' && this.#words.load(slot.vcmdq + vcmdqAt.enabled) !== 0) return;
    if (offset >= R.VINTF_BASE && offset < R.VCMDQ_PAGE0) this.#beforeVintf(offset, slot.word, value);
    else if (slot.rule === 'config' && offset >= R.CMDQV_CMDQ_ALLOC) this.#beforeAlloc(slot.word, value);
    this.#words.store(slot.word, value);
    if (slot.rule === 'config') this.#words.add(this.#regions.cmdqv + at.hostSeq, 1);
    this.#doorbell.ring();
  }

  /** A VCMDQ that is put in a logical place begins with registers of 0: what was written there before had no effect. */
  #beforeAlloc(word: number, value: number): void {
    const { vintfs, vcmdqsPerVintf } = this.#config;
    const [vintf, lvcmdq] = [R.CMDQ_ALLOC.VINTF.get(value), R.CMDQ_ALLOC.LVCMDQ.get(value)];
    const rises = R.CMDQ_ALLOC.ALLOCATED.get(value & ~this.#words.load(word)) === 1;
    if (rises && vintf < vintfs && lvcmdq < vcmdqsPerVintf && this.#allocatedAs(vintf, lvcmdq) < 0)
      this.#clear(slotOf(this.#regions.pages + vintf * R.PAGE_BYTES, lvcmdq), R.VCMDQ_STRIDE);
  }

  /** A VINTF that is enabled shows nothing of what its page was used for before, where no VCMDQ is. */
  #beforeVintf(offset: number, word: number, value: number): void {
    if ((offset - R.VINTF_BASE) % R.VINTF_STRIDE !== R.VINTF_CONFIG.offset) return;
    if (R.VINTF_CONFIG.EN.get(value & ~this.#words.load(word)) === 0) return;
    const vintf = Math.floor((offset - R.VINTF_BASE) / R.VINTF_STRIDE);
    const page = this.#regions.pages + vintf * R.PAGE_BYTES;
    const { vcmdqsPerVintf } = this.#config;
    for (let lvcmdq = 0; lvcmdq < vcmdqsPerVintf; lvcmdq++)
      if (this.#allocatedAs(vintf, lvcmdq) < 0) this.#clear(slotOf(page, lvcmdq), R.VCMDQ_STRIDE);
    this.#clear(slotOf(page, vcmdqsPerVintf), R.PAGE_BYTES - vcmdqsPerVintf * R.VCMDQ_STRIDE);
  }

  #clear(linear: number, bytes: number): void {
    for (let i = 0; i < bytes; i += 4) this.#words.store(linear + i, 0);
  }

  read64(offset: number): bigint {
    return (BigInt(this.read32(offset + 4)) << 32n) | BigInt(this.read32(offset));
  }

  write64(offset: number, value: bigint): void {
    this.write32(offset, Number(value & 0xffff_ffffn));
    this.write32(offset + 4, Number((value >> 32n) & 0xffff_ffffn));
  }

  #find(offset: number): Slot | null {
    const slot = this.#decode(offset);
    if (slot === null && !this.#logged.has(offset) && this.#logged.size < MAX_LOGGED) {
      this.#logged.add(offset);
      this.#log(`cmdqv: access to unmodelled register offset 0x${offset.toString(16)}: RAZ/WI`);
    }
    return slot;
  }

  #decode(offset: number): Slot | null {
    if (offset < R.VCMDQ_PAGE0) return this.#configPage(offset);
    const { vintfs, vcmdqsPerVintf } = this.#config;
    if (offset >= R.VINTF_PAGES) {
      const vintf = Math.floor((offset - R.VINTF_PAGES) / (2 * R.PAGE_BYTES));
      const inPages = (offset - R.VINTF_PAGES) % (2 * R.PAGE_BYTES);
      const lvcmdq = Math.floor((inPages % R.PAGE_BYTES) / R.VCMDQ_STRIDE);
      if (vintf >= vintfs || lvcmdq >= vcmdqsPerVintf) return null;
      if (inPages < R.PAGE_BYTES) return this.#page0(vintf, lvcmdq, inPages % R.VCMDQ_STRIDE);
      const q = this.#allocatedAs(vintf, lvcmdq);
      return q < 0 ? null : this.#page1(q, inPages % R.VCMDQ_STRIDE);
    }
    const page1 = offset >= R.VCMDQ_PAGE1;
    const q = Math.floor((offset % R.PAGE_BYTES) / R.VCMDQ_STRIDE);
    const register = offset % R.VCMDQ_STRIDE;
    if (q >= vintfs * vcmdqsPerVintf) return null;
    if (page1) return this.#page1(q, register);
    const alloc = this.#alloc(q);
    if (R.CMDQ_ALLOC.ALLOCATED.get(alloc) === 0) return null;
    return this.#page0(R.CMDQ_ALLOC.VINTF.get(alloc), R.CMDQ_ALLOC.LVCMDQ.get(alloc), register);
  }

  #configPage(offset: number): Slot | null {
    const { cmdqv } = this.#regions;
    const { vintfs, vcmdqsPerVintf } = this.#config;
    const array = (from: number, count: number, to: number, rule: Slot['rule']): Slot | null =>
      offset >= from && offset < from + count * 4 && offset % 4 === 0
        ? { word: cmdqv + to + offset - from, rule, vcmdq: 0 }
        : null;
    if (offset >= R.VINTF_BASE) {
      const vintf = Math.floor((offset - R.VINTF_BASE) / R.VINTF_STRIDE);
      if (vintf >= vintfs) return null;
      return this.#vintf(cmdqv + at.vintfs + vintf * VINTF_BYTES, (offset - R.VINTF_BASE) % R.VINTF_STRIDE);
    }
    return (
      array(R.CMDQV_CONFIG.offset, 1, at.config, 'config') ??
      array(R.CMDQV_PARAM.offset, 1, at.param, 'ro') ??
      array(R.CMDQV_STATUS.offset, 1, at.status, 'ro') ??
      array(R.CMDQV_VINTF_ERR_MAP, 2, at.vintfErrMap, 'ro') ??
      array(R.CMDQV_VINTF_INT_MASK, 2, at.vintfIntMask, 'rw') ??
      array(R.CMDQV_CMDQ_ERR_MAP, 4, at.cmdqErrMap, 'ro') ??
      array(R.CMDQV_CMDQ_ALLOC, vintfs * vcmdqsPerVintf, at.cmdqAlloc, 'config')
    );
  }

  #vintf(record: number, offset: number): Slot | null {
    const { sidsPerVintf } = this.#config;
    const array = (from: number, count: number, to: number, rule: Slot['rule']): Slot | null =>
      offset >= from && offset < from + count * 4 && offset % 4 === 0
        ? { word: record + to + offset - from, rule, vcmdq: 0 }
        : null;
    return (
      array(R.VINTF_CONFIG.offset, 1, vintfAt.config, 'config') ??
      array(R.VINTF_STATUS.offset, 1, vintfAt.status, 'ro') ??
      array(R.VINTF_SID_MATCH, sidsPerVintf, vintfAt.sidMatch, 'rw') ??
      array(R.VINTF_SID_REPLACE, sidsPerVintf, vintfAt.sidReplace, 'rw') ??
      array(R.VINTF_LVCMDQ_ERR_MAP, 4, vintfAt.lvcmdqErrMap, 'ro')
    );
  }

  #page0(vintf: number, lvcmdq: number, register: number): Slot | null {
    const { vintfs, vcmdqsPerVintf } = this.#config;
    if (vintf >= vintfs || lvcmdq >= vcmdqsPerVintf || register % 4 !== 0) return null;
    if (register > R.VCMDQ_GERRORN.offset) return null;
    if (register === R.VCMDQ_STATUS.offset || register === R.VCMDQ_GERROR.offset) {
      // What a guest may have written there is not what the host is told.
      const q = this.#allocatedAs(vintf, lvcmdq);
      if (q < 0) return null;
      const own = register === R.VCMDQ_STATUS.offset ? vcmdqAt.enabled : vcmdqAt.gerror;
      return { word: this.#record(q) + own, rule: 'ro', vcmdq: 0 };
    }
    const slot = slotOf(this.#regions.pages + vintf * R.PAGE_BYTES, lvcmdq);
    return { word: slot + register, rule: 'rw', vcmdq: 0 };
  }

  #record(q: number): number {
    return this.#regions.cmdqv + at.vcmdqs + q * VCMDQ_BYTES;
  }

  #page1(q: number, register: number): Slot | null {
    const vcmdq = this.#record(q);
    if (register % 4 !== 0) return null;
    if (register < 8) return { word: vcmdq + vcmdqAt.base + register, rule: 'vcmdq-off', vcmdq };
    if (register < 16) return { word: vcmdq + vcmdqAt.consIndxBase + register - 8, rule: 'vcmdq-off', vcmdq };
    return null;
  }

  #alloc(q: number): number {
    return this.#words.load(this.#regions.cmdqv + at.cmdqAlloc + q * 4);
  }

  /** @returns global number of the queue that is this VINTF's logical one, or -1 */
  #allocatedAs(vintf: number, lvcmdq: number): number {
    const { vintfs, vcmdqsPerVintf } = this.#config;
    for (let q = 0; q < vintfs * vcmdqsPerVintf; q++) {
      const alloc = this.#alloc(q);
      if (
        R.CMDQ_ALLOC.ALLOCATED.get(alloc) === 1 &&
        R.CMDQ_ALLOC.VINTF.get(alloc) === vintf &&
        R.CMDQ_ALLOC.LVCMDQ.get(alloc) === lvcmdq
      )
        return q;
    }
    return -1;
  }
}
