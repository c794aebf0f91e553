/**
 * The data path's slow half: takes the requests that missed in the devices' caches, finds each stream's
 * configuration, lets the compiled kernel walk and fill, and answers. [IHI0070] 3.3. Faults are faults.ts's, ATS
 * is ats-requests.ts's, and page requests, which come by the same ports, are pri-queue.ts's.
 */
import {
  PortLayout,
  XLAT_ABORT,
  XLAT_BYTES,
  XLAT_FROM_BYPASS,
  XLAT_FROM_WALK,
  XLAT_OK,
  Xlat,
} from '../iotlb/port-layout.js';
import { StreamContext } from '../iotlb/unit-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import { ATS_KINDS, AtsRequests } from './ats-requests.js';
import type { Smmuv3Config } from './config.js';
import type { ConfigCache } from './config-cache.js';
import type { EventQueue } from './event-queue.js';
import { ExternalWalks } from './external-walks.js';
import { Faults } from './faults.js';
import type { Ports } from './ports.js';
import type { PageRequests } from './pri-queue.js';
import type { Smmuv3Regions } from './regions.js';
import { GBPA } from './registers.js';
import { SERVE_BATCH, Smmuv3Layout } from './smmuv3-layout.js';
import type { Stalls } from './stalls.js';
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
  readonly #stalls: Stalls;
  readonly #faults: Faults;
  readonly #ats: AtsRequests;
  readonly #ports: Ports;
  readonly #pages: PageRequests;
  readonly #trace: Trace;
  readonly #external: ExternalWalks;
  readonly #batch: number;

  constructor(parts: {
    memory: MachineMemory;
    kernel: Kernel;
    regions: Smmuv3Regions;
    config: Smmuv3Config;
    configs: ConfigCache;
    events: EventQueue;
    stalls: Stalls;
    ports: Ports;
    pages: PageRequests;
    trace: Trace;
    log: (message: string) => void;
  }) {
    this.#memory = parts.memory;
    this.#kernel = parts.kernel;
    this.#regions = parts.regions;
    this.#config = parts.config;
    this.#configs = parts.configs;
    this.#events = parts.events;
    this.#stalls = parts.stalls;
    this.#ports = parts.ports;
    this.#pages = parts.pages;
    this.#trace = parts.trace;
    this.#faults = new Faults(parts.memory, parts.events, parts.stalls, parts.config.oasBits);
    this.#ats = new AtsRequests({ ...parts, smmu: parts.regions.smmu, faults: this.#faults });
    this.#external = new ExternalWalks(parts.memory, parts.kernel, parts.regions.smmu, parts.log);
    this.#batch = parts.regions.smmu + at.batch;
  }

  /** Whether a device waits for a translation. */
  get loaded(): boolean {
    const { words } = this.#memory;
    for (let i = this.#ports.count - 1; i >= 0; i--) {
      const port = this.#ports.base(i);
      if (port === 0) continue;
      if (words.load(port + PortLayout.at.reqProd) !== words.load(port + PortLayout.at.reqCons)) return true;
    }
    return false;
  }

  hasWork(): boolean {
    if (this.loaded) return true;
    for (let i = this.#ports.count - 1; i >= 0; i--) {
      const port = this.#ports.base(i);
      if (port !== 0 && this.#pages.pending(port)) return true;
    }
    return this.#stalls.unrecorded !== 0 && this.#events.space() > 0;
  }

  /** One batch of each port, so that a busy one does not starve the others. @returns whether there was any request */
  step(): boolean {
    const count = this.#ports.count;
    let served = 0;
    let worked = this.#recordStalls();
    for (let i = 0; i < count; i++) {
      const port = this.#ports.base(i);
      if (port === 0) continue;
      if (this.#pages.take(port)) worked = true;
      const n = this.#kernel.takeRequests(port, this.#batch, SERVE_BATCH);
      if (n <= 0) continue;
      this.#serve(port, n);
      this.#kernel.answer(port, this.#batch, n);
      served += n;
    }
    if (served > 0) this.#memory.words.add(this.#regions.smmu + at.requestsServed, served);
    return worked || served > 0;
  }

  /** 7.2.1: stalls that found the Event queue unwritable arrive anew when it is writable. */
  #recordStalls(): boolean {
    if (this.#stalls.unrecorded === 0 || this.#events.space() === 0) return false;
    this.#stalls.retryUnrecorded();
    return true;
  }

  /** Answers batch slots 0..n-1 in place. */
  #serve(port: number, n: number): void {
    const { words, u32 } = this.#memory;
    const first = this.#batch >>> 2;
    if (words.load(this.#regions.smmu + at.smmuenActive) === 0) {
      for (let i = 0; i < n; i++) {
        const xlat = this.#batch + i * XLAT_BYTES;
        if ((u32[(xlat >>> 2) + FLAGS]! & ATS_KINDS) !== 0) this.#ats.disabled(xlat);
        else this.#globalBypass(xlat);
      }
      return;
    }
    for (let i = 0; i < n; ) {
      const sid = u32[first + i * XLAT_WORDS + SID]!;
      const ssid = u32[first + i * XLAT_WORDS + SSID]!;
      if ((u32[first + i * XLAT_WORDS + FLAGS]! & ATS_KINDS) !== 0) {
        this.#serveAts(port, sid, ssid, this.#batch + i * XLAT_BYTES);
        i++;
        continue;
      }
      let end = i + 1;
      while (
        end < n &&
        u32[first + end * XLAT_WORDS + SID] === sid &&
        u32[first + end * XLAT_WORDS + SSID] === ssid &&
        (u32[first + end * XLAT_WORDS + FLAGS]! & ATS_KINDS) === 0
      )
        end++;
      this.#serveStream(port, sid, ssid, this.#batch + i * XLAT_BYTES, end - i);
      i = end;
    }
  }

  /** `n` consecutive ordinary requests of one stream and substream. */
  #serveStream(port: number, sid: number, ssid: number, xlats: number, n: number): void {
    const u32 = this.#memory.u32;
    let context = 0;
    // A faulty configuration is not cached: every transaction fetches anew, and may find it mended.
    for (; n > 0; xlats += XLAT_BYTES, n--) {
      context = this.#configs.lookup(sid, ssid);
      if (context !== 0) break;
      this.#faults.unconfigured(port, xlats, this.#configs);
    }
    if (n === 0) return;
    const kind = u32[(context + StreamContext.at.kind) >> 2]!;
    const flags = u32[(context + StreamContext.at.flags) >> 2]!;
    const began = this.#trace.nowNs();
    const { unit, iotlb } = this.#regions;
    let faults = this.#kernel.translateBatch(unit, context, iotlb, xlats, n);
    if (faults > 0) faults -= this.#resolve(context, xlats, n);
    if (faults === 0 && !this.#trace.enabled) return;
    const tick = this.#trace.tick(n);
    let walks = 0;
    for (let i = 0; i < n; i++) {
      const xlat = xlats + i * XLAT_BYTES;
      const status = u32[(xlat >>> 2) + STATUS]!;
      if (status === XLAT_OK) walks += this.#traced(xlat, tick + i, began, context);
      else if (status !== XLAT_ABORT) this.#faults.walked(port, xlat, flags, kind);
    }
    if (began !== 0) this.#trace.served(began, n, walks, faults, sid);
  }

  /** Walks that met external memory. @returns how many of them came through */
  #resolve(context: number, xlats: number, n: number): number {
    const { u32, external } = this.#memory;
    if (external === null) return 0;
    const { unit, iotlb } = this.#regions;
    let resolved = 0;
    for (let xlat = xlats; xlat < xlats + n * XLAT_BYTES; xlat += XLAT_BYTES) {
      const status = u32[(xlat >>> 2) + STATUS]!;
      if (status === XLAT_OK) continue;
      const walk = () => this.#kernel.translate(unit, context, iotlb, xlat);
      if (this.#external.resolve(status, xlat, walk) === XLAT_OK) resolved++;
    }
    return resolved;
  }

  /** A Translation Request, or a transaction whose address one was answered with. */
  #serveAts(port: number, sid: number, ssid: number, xlat: number): void {
    const context = this.#ats.admit(xlat, sid, ssid);
    if (context === 0) return;
    const { unit, iotlb } = this.#regions;
    const began = this.#trace.nowNs();
    let walks = 0;
    const walk = () => this.#kernel.translate(unit, context, iotlb, xlat);
    const ok = this.#external.resolve(walk(), xlat, walk) === XLAT_OK;
    if (ok) walks = this.#traced(xlat, this.#trace.tick(), began, context);
    else {
      const { u32 } = this.#memory;
      const kind = u32[(context + StreamContext.at.kind) >> 2]!;
      this.#ats.failed(port, xlat, u32[(context + StreamContext.at.flags) >> 2]!, kind);
    }
    if (began !== 0) this.#trace.served(began, 1, walks, ok ? 0 : 1, sid);
  }

  /** @returns how many walks were told with their time: 1 or 0 */
  #traced(xlat: number, tick: number, beganNs: number, context: number): number {
    if (this.#memory.u32[(xlat >>> 2) + SOURCE] !== XLAT_FROM_WALK) return 0;
    this.#trace.walk(xlat, tick);
    if (beganNs === 0) return 0;
    this.#trace.walkAt(beganNs, xlat, context);
    return 1;
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
}
