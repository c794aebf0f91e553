/**
 * One CMDQV: command queues beside an SMMUv3's own, some of which a hypervisor gives to guests, which fill them
 * without a trap. [T241-CMDQV] NVIDIA Tegra241 (Grace).
 *
 *   CMDQV -- VINTFs, one a guest: VMID, HYP_OWN, StreamID slots, a page of registers to map
 *     '----- VCMDQs, by global number --CMDQ_ALLOC(q)--> logical VCMDQ of a VINTF
 *
 * The silicon's documentation is not public. What is here is what Linux 7.0's driver relies on; where that does not
 * say, this model does: the order in which queues are served (round robin, 32 commands each), that an unmatched
 * StreamID is CERROR_ILL (vcmdq.ts), that the interrupt is raised once for every error, that a store to what is
 * read-only in the page stands until the model's next step, the reset values (0), the version (1). A reset of the SMMU
 * does not reach it. Not modelled: VINTF_STATUS.STATUS (0), debug and performance registers, ownership of VINTFs by
 * Secure software, CONS_INDX_BASE (vcmdq.ts). Its commands are in no trace.
 */
import type { Companion, CompanionParts } from '../smmuv3/companion.js';
import type { Words } from '../sync/words.js';
import { CmdqvLayout, slotOf, VCMDQ_BYTES, VINTF_BYTES, VintfRecord } from './cmdqv-layout.js';
import type { CmdqvConfig, CmdqvRegions } from './config.js';
import * as R from './registers.js';
import { Vcmdq, type VcmdqHost, type VcmdqPlace } from './vcmdq.js';

const at = CmdqvLayout.at;
const vintfAt = VintfRecord.at;
const BITS = 32;

export class Tegra241Cmdqv implements Companion {
  readonly #config: CmdqvConfig;
  readonly #regions: CmdqvRegions;
  readonly #parts: CompanionParts;
  readonly #words: Words;
  readonly #host: VcmdqHost;
  /** Queues that are allocated to a VINTF, by global number. */
  readonly #queues = new Map<number, Vcmdq>();
  #hostSeq = -1;

  constructor(config: CmdqvConfig, regions: CmdqvRegions, parts: CompanionParts) {
    this.#config = config;
    this.#regions = regions;
    this.#parts = parts;
    this.#words = parts.words;
    const count = (offset: number, by: number): void => void this.#words.add(regions.cmdqv + offset, by);
    this.#host = {
      consumed: (commands) => count(at.commandsConsumed, commands),
      synced: () => count(at.syncs, 1),
      error: (place, active) => this.#mark(place, active),
    };
    // Whoever takes a unit over finds its SYNCs.
    this.#reallocate();
  }

  get syncPending(): boolean {
    for (const queue of this.#queues.values()) if (queue.syncPending) return true;
    return false;
  }

  get polled(): boolean {
    return this.#queues.size > 0;
  }

  hasWork(): boolean {
    if (this.#load(at.hostSeq) !== this.#hostSeq) return true;
    for (const queue of this.#queues.values())
      if (queue.hasWork(this.#powered(queue.place.vintfRecord))) return true;
    return false;
  }

  step(): boolean {
    let worked = this.#reconfigure();
    for (const queue of this.#queues.values())
      worked = queue.step(this.#powered(queue.place.vintfRecord)) || worked;
    return worked;
  }

  /** Takes what CMDQ_ALLOC and the CONFIGs say. @returns whether any was written since */
  #reconfigure(): boolean {
    const seq = this.#load(at.hostSeq);
    if (seq === this.#hostSeq) return false;
    this.#hostSeq = seq;
    this.#reallocate();
    const { cmdqv } = this.#regions;
    this.#follow(cmdqv + at.config, cmdqv + at.status);
    for (let vintf = 0; vintf < this.#config.vintfs; vintf++) {
      const record = cmdqv + at.vintfs + vintf * VINTF_BYTES;
      this.#follow(record + vintfAt.config, record + vintfAt.status);
    }
    return true;
  }

  #reallocate(): void {
    const { vintfs, vcmdqsPerVintf } = this.#config;
    const taken = new Set<number>();
    for (let q = 0; q < vintfs * vcmdqsPerVintf; q++) {
      const alloc = this.#load(at.cmdqAlloc + q * 4);
      const vintf = R.CMDQ_ALLOC.VINTF.get(alloc);
      const lvcmdq = R.CMDQ_ALLOC.LVCMDQ.get(alloc);
      const place = vintf * vcmdqsPerVintf + lvcmdq;
      const allocated = R.CMDQ_ALLOC.ALLOCATED.get(alloc) === 1;
      const there = allocated && vintf < vintfs && lvcmdq < vcmdqsPerVintf && !taken.has(place);
      if (allocated && !there)
        this.#parts.log(`cmdqv: VCMDQ ${q} is given a logical place that is taken, or not there`);
      if (there) taken.add(place);
      const now = this.#queues.get(q);
      const same = there && now?.place.vintf === vintf && now.place.lvcmdq === lvcmdq;
      if (now !== undefined && !same) {
        now.remove();
        this.#queues.delete(q);
      }
      if (there && !same)
        this.#queues.set(q, new Vcmdq(this.#place(q, vintf, lvcmdq), this.#parts, this.#host));
    }
  }

  #place(q: number, vintf: number, lvcmdq: number): VcmdqPlace {
    const { cmdqv, pages } = this.#regions;
    return {
      q,
      vintf,
      lvcmdq,
      record: cmdqv + at.vcmdqs + q * VCMDQ_BYTES,
      vintfRecord: cmdqv + at.vintfs + vintf * VINTF_BYTES,
      slot: slotOf(pages + vintf * R.PAGE_BYTES, lvcmdq),
      sids: this.#config.sidsPerVintf,
    };
  }

  /** STATUS shows at once what CONFIG says; the enable is bit 0 in all of them. */
  #follow(config: number, status: number): void {
    this.#words.store(status, this.#words.load(config) & 1);
  }

  #powered(vintfRecord: number): boolean {
    return (this.#load(at.status) & this.#words.load(vintfRecord + vintfAt.status) & 1) === 1;
  }

  /** Error maps, then the interrupt. */
  #mark({ q, vintf, lvcmdq, vintfRecord }: VcmdqPlace, active: boolean): void {
    const { cmdqv } = this.#regions;
    this.#bit(vintfRecord + vintfAt.lvcmdqErrMap, lvcmdq, active);
    this.#bit(cmdqv + at.cmdqErrMap, q, active);
    let any = 0;
    for (let i = 0; i < 4; i++) any |= this.#words.load(vintfRecord + vintfAt.lvcmdqErrMap + i * 4);
    this.#bit(cmdqv + at.vintfErrMap, vintf, any !== 0);
    const masked = this.#load(at.vintfIntMask + (vintf >>> 5) * 4) & (1 << (vintf & (BITS - 1)));
    if (active && masked === 0) this.#parts.interrupt();
  }

  #bit(map: number, n: number, on: boolean): void {
    const word = map + (n >>> 5) * 4;
    const mask = 1 << (n & (BITS - 1));
    if (on) this.#words.or(word, mask);
    else this.#words.and(word, ~mask);
  }

  #load(offset: number): number {
    return this.#words.load(this.#regions.cmdqv + offset);
  }
}
