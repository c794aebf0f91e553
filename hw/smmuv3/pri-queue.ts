/**
 * Page requests: from the devices' ports into the PRI queue, and the answers back. [IHI0070] 8, 4.5.2.
 *
 *   device --ppr ring--> PageRequests --record--> PRI queue (RAM) --> software
 *   device <--groups---- answer: CMD_PRI_RESP, or the SMMU itself
 *
 * The SMMU answers itself: Response Failure to everything while the queue is disabled or aborting (8.2); Success to
 * the last request of a group that finds an overflow, of which the others vanish (8.1). The PASID of a request is
 * in the answer of an overflow (IDR3.PPS = 1, so STE.PPAR is not looked at), and in no other of the SMMU's own.
 */
import {
  NO_SSID,
  PortLayout,
  PPR_BYTES,
  PPR_EXECUTE,
  PPR_LAST,
  PPR_PRIVILEGED,
  PPR_READ,
  PPR_RING,
  PPR_WRITE,
  Ppr,
  PRG_ANSWERED,
  PRG_CODE_SHIFT,
  PRG_FAILURE,
  PRG_INDEX_MASK,
  PRG_INDEX_SHIFT,
  PRG_INVALID,
  PRG_PASID,
  PRG_SLOTS,
  PRG_STATE_MASK,
  PRG_SUCCESS,
  PRG_WAITING,
} from '../iotlb/port-layout.js';
import { OP_LOAD, type Words } from '../sync/words.js';
import type { Bus } from './bus.js';
import type { Smmuv3Config } from './config.js';
import type { Interrupts } from './interrupts.js';
import { PAGE_REQUEST, PAGE_REQUEST_BYTES } from './page-request.js';
import type { Ports } from './ports.js';
import { QUEUE_OVERFLOW, queueAdvance, queueEmpty, queueFull, queueIndex, queuePointer } from './queue.js';
import { CR0, GERROR, PRIQ_BASE, PRIQ_IRQ_CFG2 } from './registers.js';
import { Smmuv3Layout } from './smmuv3-layout.js';
import { wakeDevice } from './stalls.js';

const at = Smmuv3Layout.at;
const port_ = PortLayout.at;

/** CMD_PRI_RESP.Resp to PRG Response code; 3 is reserved. */
const RESPONSE_CODES: readonly number[] = [PRG_FAILURE, PRG_INVALID, PRG_SUCCESS];

export class PageRequests {
  readonly #words: Words;
  readonly #bus: Bus;
  readonly #base: number;
  readonly #config: Smmuv3Config;
  readonly #interrupts: Interrupts;
  readonly #ports: Ports;
  readonly #record = new Uint32Array(PAGE_REQUEST_BYTES / 4);

  constructor(parts: { bus: Bus; smmu: number; config: Smmuv3Config; interrupts: Interrupts; ports: Ports }) {
    this.#words = parts.bus.memory.words;
    this.#bus = parts.bus;
    this.#base = parts.smmu;
    this.#config = parts.config;
    this.#interrupts = parts.interrupts;
    this.#ports = parts.ports;
  }

  pending(port: number): boolean {
    if (!this.#capable(port)) return false;
    return this.#words.load(port + port_.pprProd) !== this.#words.load(port + port_.pprCons);
  }

  /** Takes what a device has asked for. @returns whether there was anything */
  take(port: number): boolean {
    if (!this.#capable(port)) return false;
    const words = this.#words;
    const cons = words.load(port + port_.pprCons);
    const prod = words.load(port + port_.pprProd);
    const filled = (prod - cons) >>> 0;
    if (filled === 0) return false;
    // Indexes that make no sense are an empty ring.
    const count = filled > PPR_RING ? 0 : filled;
    const { u32 } = this.#bus.memory;
    const copies = this.#base + at.pprs;
    for (let i = 0; i < count; i++) {
      const from = (port + port_.ppr + ((cons + i) & (PPR_RING - 1)) * PPR_BYTES) >>> 2;
      words.bytes(OP_LOAD, from * 4);
      u32.copyWithin((copies + i * PPR_BYTES) >>> 2, from, from + PPR_BYTES / 4);
    }
    words.store(port + port_.pprCons, prod);
    for (let i = 0; i < count; i++) this.#request(port, (copies + i * PPR_BYTES) >>> 2);
    return true;
  }

  /** @param response  CMD_PRI_RESP.Resp, not 3 */
  respond(sid: number, ssid: number, group: number, response: number): void {
    this.#ports.ofStream(sid, (port) => {
      this.#answer(port, group, RESPONSE_CODES[response]!, ssid !== NO_SSID);
    });
  }

  /** A plain read, of what never changes: most devices make no page requests, and are looked at in every step. */
  #capable(port: number): boolean {
    return this.#bus.memory.u32[(port + port_.pri) >>> 2] !== 0;
  }

  #request(port: number, ppr: number): void {
    const { u32 } = this.#bus.memory;
    const words = this.#words;
    const flags = u32[ppr + (Ppr.at.flags >> 2)]!;
    const ssid = u32[ppr + (Ppr.at.ssid >> 2)]!;
    const group = u32[ppr + (Ppr.at.group >> 2)]! & PRG_INDEX_MASK;
    const pasid = ssid !== NO_SSID;
    const last = (flags & PPR_LAST) !== 0;
    // A Stop Marker is L = 1, W = R = 0 with a PASID; nobody answers one.
    const stop = pasid && last && (flags & (PPR_READ | PPR_WRITE)) === 0;
    if (!this.#open()) {
      words.add(this.#base + at.pageRequestsLost, 1);
      if (!stop) this.#answer(port, group, PRG_FAILURE, false);
      return;
    }
    const queue = words.load64(this.#base + at.priqBase);
    const log2 = Math.min(Number(PRIQ_BASE.LOG2SIZE.get(queue)), this.#config.priqLog2);
    const prod = words.load(this.#base + at.priqProd);
    const cons = words.load(this.#base + at.priqCons);
    const overflown = ((prod ^ cons) & QUEUE_OVERFLOW) !== 0;
    if (overflown || queueFull(prod, cons, log2)) {
      words.add(this.#base + at.pageRequestsLost, 1);
      if (!overflown) this.#overflow(prod, log2);
      if (last && !stop) this.#answer(port, group, PRG_SUCCESS, pasid);
      return;
    }
    const size = PAGE_REQUEST_BYTES * 2 ** log2;
    const start = Math.floor(Number(PRIQ_BASE.ADDR.get(queue)) / size) * size;
    const to = this.#bus.memory.linearOf(
      start + queueIndex(prod, log2) * PAGE_REQUEST_BYTES,
      PAGE_REQUEST_BYTES,
    );
    if (to < 0) {
      words.add(this.#base + at.pageRequestsLost, 1);
      this.#interrupts.error(GERROR.PRIQ_ABT_ERR.mask);
      if (!stop) this.#answer(port, group, PRG_FAILURE, false);
      return;
    }
    const low = u32[ppr + (Ppr.at.iova >> 2)]!;
    const high = u32[ppr + (Ppr.at.iova >> 2) + 1]!;
    const r = this.#record;
    r.fill(0);
    PAGE_REQUEST.StreamID.put(r, words.load(port + port_.sid) >>> 0);
    if (pasid) {
      PAGE_REQUEST.SSV.put(r, 1);
      PAGE_REQUEST.SubstreamID.put(r, ssid & 0xfffff);
      PAGE_REQUEST.Priv.put(r, (flags & PPR_PRIVILEGED) !== 0 ? 1 : 0);
      PAGE_REQUEST.X.put(r, (flags & PPR_EXECUTE) !== 0 ? 1 : 0);
    }
    PAGE_REQUEST.R.put(r, (flags & PPR_READ) !== 0 ? 1 : 0);
    PAGE_REQUEST.W.put(r, (flags & PPR_WRITE) !== 0 ? 1 : 0);
    PAGE_REQUEST.Last.put(r, last ? 1 : 0);
    PAGE_REQUEST.PRGIndex.put(r, group);
    PAGE_REQUEST.Page.put(r, high * 2 ** 20 + (low >>> 12));
    // Plain stores: the slot is the SMMU's until PROD, stored atomically, passes it.
    words.writeUnsigned(to, r, 0, r.length);
    words.store(this.#base + at.priqProd, queueAdvance(prod, log2));
    words.add(this.#base + at.pageRequests, 1);
    const onLast = PRIQ_IRQ_CFG2.LO.get(words.load(this.#base + at.priqIrqCfg2)) === 1;
    const wasEmpty = queuePointer(words.load(this.#base + at.priqCons), log2) === queuePointer(prod, log2);
    if (onLast ? last : wasEmpty) this.#interrupts.priq();
  }

  /**
   * CONS is read after PROD is written, as software writes CONS and then reads PROD: when it has emptied the queue
   * meanwhile it may not have seen the overflow, and until it acknowledges it no record would bring an interrupt.
   */
  #overflow(prod: number, log2: number): void {
    this.#words.store(this.#base + at.priqProd, prod ^ QUEUE_OVERFLOW);
    if (queueEmpty(prod, this.#words.load(this.#base + at.priqCons), log2)) this.#interrupts.priq();
  }

  /** 8.2: PRIQEN, which SMMUEN = 0 implies to be 0, and no abort unacknowledged. */
  #open(): boolean {
    return (
      this.#config.pri &&
      CR0.PRIQEN.get(this.#words.load(this.#base + at.cr0ack)) === 1 &&
      this.#words.load(this.#base + at.smmuenActive) !== 0 &&
      !this.#interrupts.active(GERROR.PRIQ_ABT_ERR.mask)
    );
  }

  /** An answer to a group that the device does not wait for goes nowhere. */
  #answer(port: number, group: number, code: number, pasid: boolean): void {
    const words = this.#words;
    for (let i = 0; i < PRG_SLOTS; i++) {
      const slot = port + port_.groups + i * 4;
      const word = words.load(slot);
      const waiting = (word & PRG_STATE_MASK) === PRG_WAITING;
      if (!waiting || ((word >>> PRG_INDEX_SHIFT) & PRG_INDEX_MASK) !== group) continue;
      const answered =
        PRG_ANSWERED | (group << PRG_INDEX_SHIFT) | (code << PRG_CODE_SHIFT) | (pasid ? PRG_PASID : 0);
      // The device may have given the slot up meanwhile.
      if (words.compareExchange(slot, word, answered) !== word) continue;
      wakeDevice(this.#bus.memory, port);
      return;
    }
  }
}
