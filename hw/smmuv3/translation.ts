/**
 * The data path's slow half: takes the requests that missed in the devices' caches, finds each stream's
 * configuration, lets the compiled kernel walk and fill, answers, and turns faults into event records.
 * [IHI0070] 3.3 and 7.3.
 *
 * Not modelled: stalls (every fault terminates), ATS and page requests.
 */
import {
  NO_SSID,
  PortLayout,
  XLAT_ABORT,
  XLAT_BYTES,
  XLAT_FAULT_CLASS_SHIFT,
  XLAT_FAULT_S2,
  XLAT_FAULT_TABLE_WRITE,
  XLAT_FLAG_INSTRUCTION,
  XLAT_FLAG_PRIVILEGED,
  XLAT_FLAG_WRITE,
  XLAT_FROM_BYPASS,
  XLAT_FROM_WALK,
  XLAT_OK,
  Xlat,
} from '../iotlb/port-layout.js';
import {
  CONTEXT_BYPASS,
  CONTEXT_FLAG_MEV,
  CONTEXT_FLAG_S1_RECORD,
  CONTEXT_FLAG_S2_RECORD,
  MAX_PORTS,
  StreamContext,
  UnitLayout,
} from '../iotlb/unit-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import type { Smmuv3Config } from './config.js';
import type { ConfigCache } from './config-cache.js';
import { type ConfigFault, word52 } from './config-fetch.js';
import { EVENT_CLASS_IN, F_ADDR_SIZE, F_PERMISSION, F_WALK_EABT } from './event.js';
import type { EventQueue } from './event-queue.js';
import type { Smmuv3Regions } from './regions.js';
import { GBPA } from './registers.js';
import { SERVE_BATCH, Smmuv3Layout } from './smmuv3-layout.js';
import type { Trace } from './trace.js';

const at = Smmuv3Layout.at;
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
const XLAT_WORDS = XLAT_BYTES >> 2;

/** Size reported for an address that nothing translated, as the kernel does for bypassed streams. */
const BYPASS_LG2 = 52;

export class Translation {
  readonly #memory: MachineMemory;
  readonly #kernel: Kernel;
  readonly #regions: Smmuv3Regions;
  readonly #config: Smmuv3Config;
  readonly #configs: ConfigCache;
  readonly #events: EventQueue;
  readonly #trace: Trace;
  readonly #batch: number;

  constructor(parts: {
    memory: MachineMemory;
    kernel: Kernel;
    regions: Smmuv3Regions;
    config: Smmuv3Config;
    configs: ConfigCache;
    events: EventQueue;
    trace: Trace;
  }) {
    this.#memory = parts.memory;
    this.#kernel = parts.kernel;
    this.#regions = parts.regions;
    this.#config = parts.config;
    this.#configs = parts.configs;
    this.#events = parts.events;
    this.#trace = parts.trace;
    this.#batch = parts.regions.smmu + at.batch;
  }

  hasWork(): boolean {
    const { words } = this.#memory;
    for (let i = this.#portCount() - 1; i >= 0; i--) {
      const port = this.#port(i);
      if (port !== 0 && words.load(port + PortLayout.at.reqProd) !== words.load(port + PortLayout.at.reqCons))
        return true;
    }
    return false;
  }

  /** One batch of each port, so that a busy one does not starve the others. @returns whether there was any request */
  step(): boolean {
    const count = this.#portCount();
    let served = 0;
    for (let i = 0; i < count; i++) {
      const port = this.#port(i);
      if (port === 0) continue;
      const n = this.#kernel.takeRequests(port, this.#batch, SERVE_BATCH);
      if (n <= 0) continue;
      this.#serve(n);
      this.#kernel.answer(port, this.#batch, n);
      served += n;
    }
    if (served > 0) this.#memory.words.add(this.#regions.smmu + at.requestsServed, served);
    return served > 0;
  }

  #portCount(): number {
    return Math.min(this.#memory.words.load(this.#regions.unit + UnitLayout.at.portCount) >>> 0, MAX_PORTS);
  }

  #port(i: number): number {
    return this.#memory.words.load(this.#regions.unit + UnitLayout.at.ports + i * 4) >>> 0;
  }

  /** Answers batch slots 0..n-1 in place. */
  #serve(n: number): void {
    const { words, u32 } = this.#memory;
    if (words.load(this.#regions.smmu + at.smmuenActive) === 0) {
      for (let i = 0; i < n; i++) this.#globalBypass(this.#batch + i * XLAT_BYTES);
      return;
    }
    const first = this.#batch >>> 2;
    for (let i = 0; i < n; ) {
      const sid = u32[first + i * XLAT_WORDS + SID]!;
      const ssid = u32[first + i * XLAT_WORDS + SSID]!;
      let end = i + 1;
      while (
        end < n &&
        u32[first + end * XLAT_WORDS + SID] === sid &&
        u32[first + end * XLAT_WORDS + SSID] === ssid
      )
        end++;
      this.#serveStream(sid, ssid, this.#batch + i * XLAT_BYTES, end - i);
      i = end;
    }
  }

  /** `n` consecutive requests of one stream and substream. */
  #serveStream(sid: number, ssid: number, xlats: number, n: number): void {
    const { unit, iotlb } = this.#regions;
    const u32 = this.#memory.u32;
    let context = 0;
    // A faulty configuration is not cached: every transaction fetches anew, and may find it mended.
    for (; n > 0; xlats += XLAT_BYTES, n--) {
      context = this.#configs.lookup(sid, ssid);
      if (context !== 0) break;
      this.#refuse(xlats, this.#configs.fault, this.#configs.recordFault);
    }
    if (n === 0) return;
    const kind = u32[(context + StreamContext.at.kind) >> 2]!;
    const flags = u32[(context + StreamContext.at.flags) >> 2]!;
    const began = this.#trace.nowNs();
    const faults = this.#kernel.translateBatch(unit, context, iotlb, xlats, n);
    if (faults === 0 && !this.#trace.enabled) return;
    const tick = this.#trace.tick(n);
    let walks = 0;
    for (let i = 0; i < n; i++) {
      const xlat = xlats + i * XLAT_BYTES;
      const status = u32[(xlat >>> 2) + STATUS]!;
      if (status === XLAT_OK) {
        if (u32[(xlat >>> 2) + SOURCE] !== XLAT_FROM_WALK) continue;
        this.#trace.walk(xlat, tick + i);
        if (began === 0) continue;
        this.#trace.walkAt(began, xlat, context);
        walks++;
      } else if (status !== XLAT_ABORT) {
        this.#walkFault(xlat, status, flags, kind);
      }
    }
    if (began !== 0) this.#trace.served(began, n, walks, faults, sid);
  }

  /** 6.3.14: SMMUEN = 0. An address beyond the output size is aborted without a record. */
  #globalBypass(xlat: number): void {
    const { words, u32 } = this.#memory;
    const x = xlat >>> 2;
    const abort = GBPA.ABORT.get(words.load(this.#regions.smmu + at.gbpaActive)) === 1;
    const fits = u32[x + IOVA + 1]! < 2 ** (this.#config.oasBits - 32);
    const ok = !abort && fits;
    u32[x + PA] = ok ? u32[x + IOVA]! : 0;
    u32[x + PA + 1] = ok ? u32[x + IOVA + 1]! : 0;
    u32[x + IPA] = u32[x + IPA + 1] = 0;
    u32[x + SIZE_LG2] = ok ? BYPASS_LG2 : 0;
    u32[x + FILL_SEQ] = u32[x + FAULT] = u32[x + LEVEL] = 0;
    u32[x + SOURCE] = XLAT_FROM_BYPASS;
    u32[x + STATUS] = ok ? XLAT_OK : XLAT_ABORT;
  }

  /** Answers with a fault found before any walk, and records it. */
  #refuse(xlat: number, fault: ConfigFault, record: boolean): void {
    const u32 = this.#memory.u32;
    const x = xlat >>> 2;
    const ipa = fault.ipa ?? 0;
    u32[x + PA] = u32[x + PA + 1] = 0;
    u32[x + IPA] = ipa % 2 ** 32;
    u32[x + IPA + 1] = Math.floor(ipa / 2 ** 32);
    u32[x + SIZE_LG2] = u32[x + FILL_SEQ] = u32[x + SOURCE] = u32[x + LEVEL] = 0;
    u32[x + FAULT] = (fault.s2 ? XLAT_FAULT_S2 : 0) | ((fault.class ?? 0) << XLAT_FAULT_CLASS_SHIFT);
    u32[x + STATUS] = fault.id;
    if (record) this.#record(xlat, fault);
  }

  #walkFault(xlat: number, status: number, flags: number, kind: number): void {
    const u32 = this.#memory.u32;
    const x = xlat >>> 2;
    const detail = u32[x + FAULT]!;
    const s2 = (detail & XLAT_FAULT_S2) !== 0;
    // 5.2, 5.4: an external abort is recorded whatever CD.R and STE.S2R say, and so is a bypass out of range.
    const always = status === F_WALK_EABT || (status === F_ADDR_SIZE && kind === CONTEXT_BYPASS);
    const wanted = flags & (s2 ? CONTEXT_FLAG_S2_RECORD : CONTEXT_FLAG_S1_RECORD);
    if (!always && wanted === 0) return;
    this.#record(
      xlat,
      {
        id: status,
        s2,
        class: (detail >> XLAT_FAULT_CLASS_SHIFT) & 3,
        ipa: s2 ? Math.floor(word52(u32, x + IPA) / 4096) * 4096 : 0,
        // A table is read, but for a hardware update of a stage-1 descriptor.
        ttrnw:
          status === F_PERMISSION &&
          s2 &&
          ((detail >> XLAT_FAULT_CLASS_SHIFT) & 3) !== EVENT_CLASS_IN &&
          (detail & XLAT_FAULT_TABLE_WRITE) === 0,
        fetchAddr: status === F_WALK_EABT ? Math.floor(word52(u32, x + PA) / 8) * 8 : 0,
      },
      (flags & CONTEXT_FLAG_MEV) !== 0,
    );
  }

  #record(xlat: number, fault: ConfigFault, merge = false): void {
    const u32 = this.#memory.u32;
    const x = xlat >>> 2;
    const flags = u32[x + FLAGS]!;
    const write = (flags & XLAT_FLAG_WRITE) !== 0;
    const ssid = u32[x + SSID]!;
    this.#events.record(
      {
        ...fault,
        sid: u32[x + SID]!,
        ssv: ssid !== NO_SSID,
        ssid: ssid === NO_SSID ? 0 : ssid & 0xfffff,
        rnw: !write,
        ind: !write && (flags & XLAT_FLAG_INSTRUCTION) !== 0,
        pnu: (flags & XLAT_FLAG_PRIVILEGED) !== 0,
        inputAddr: (BigInt(u32[x + IOVA + 1]!) << 32n) | BigInt(u32[x + IOVA]!),
      },
      merge,
    );
  }
}
