/**
 * From StreamID and SubstreamID to configuration, through the `contexts` region, which caches STE and CD as one
 * decoded entry and which devices probe as well. [IHI0070] 3.3, 3.21, 4.3.
 *
 *   lookup: entry, or else fetch and decode the STE, select and fetch and decode the CD, publish the entry
 *
 * A configuration that faults is never cached. An entry is dropped by every command that names its STE or its CD:
 * a command on one substream leaves the others alone.
 */
import { NO_SSID } from '../iotlb/port-layout.js';
import {
  CONTEXT_BYTES,
  CONTEXT_COUNT,
  CONTEXT_FLAG_ATS_S1CHK,
  contextIndex,
  StreamContext,
} from '../iotlb/unit-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Words } from '../sync/words.js';
import type { Bus } from './bus.js';
import type { Smmuv3Config } from './config.js';
import { type ConfigFault, ConfigFetch } from './config-fetch.js';
import type { Log } from './mmio.js';
import type { Smmuv3Regions } from './regions.js';
import { CR0, CR2 } from './registers.js';
import { Smmuv3Layout } from './smmuv3-layout.js';
import { decodeCd, decodeSte, StreamConfig, selectCd } from './stream-config.js';

const at = Smmuv3Layout.at;
const ctx = StreamContext.at;
/** Fields of a StreamContext after seq, sid and valid, as 32-bit words. */
const FIRST_WORD = ctx.kind >> 2;
const LAST_WORD = ctx.ssid >> 2;

export class ConfigCache {
  /** Of the last lookup that returned 0. */
  fault: ConfigFault = { id: 0 };
  /** Whether that fault is to be recorded. */
  recordFault = true;
  /** Whether that fault stalls the transaction (it is then recorded in any case). */
  stallFault = false;

  readonly #words: Words;
  readonly #bus: Bus;
  readonly #base: number;
  readonly #contexts: number;
  readonly #config: Smmuv3Config;
  readonly #log: Log;
  readonly #logged = new Set<string>();
  readonly #fetch: ConfigFetch;
  readonly #stream = new StreamConfig();

  constructor(bus: Bus, kernel: Kernel, regions: Smmuv3Regions, config: Smmuv3Config, log: Log) {
    this.#words = bus.memory.words;
    this.#bus = bus;
    this.#base = regions.smmu;
    this.#contexts = regions.contexts;
    this.#config = config;
    this.#log = log;
    this.#fetch = new ConfigFetch(bus, kernel, regions.smmu, config);
  }

  /**
   * The configuration of a stream or substream, from the cache or from memory.
   * @param ssid  SubstreamID, or NO_SSID
   * @returns base of its StreamContext; 0 on a fault, described by `fault`, `recordFault` and `stallFault`
   */
  lookup(sid: number, ssid: number): number {
    const entry = this.#slot(sid, ssid);
    if (this.#holds(entry, sid, ssid)) return entry;
    const words = this.#words;
    words.add(this.#base + at.configFetches, 1);
    const stream = this.#stream;
    if (!this.#fetch.fetchSte(sid)) return this.#failed();
    const controls = {
      e2h: CR2.E2H.get(words.load(this.#base + at.cr2)) === 1,
      atsChk: CR0.ATSCHK.get(words.load(this.#base + at.cr0ack)) === 1,
    };
    const bad =
      decodeSte(this.#fetch.ste, this.#config, controls, stream) ||
      selectCd(ssid === NO_SSID ? -1 : ssid, this.#config, stream);
    if (bad !== 0) return this.#refused(bad);
    if (stream.cdIndex >= 0) {
      const draft = this.#base + at.draft;
      this.#write(draft, sid, ssid);
      if (!this.#fetch.fetchCd(stream, draft)) return this.#failed();
      const badCd = decodeCd(this.#fetch.cd, this.#config, stream);
      if (badCd !== 0) return this.#refused(badCd);
    }
    // 13.6.3 wants the permissions of both stages in the answer.
    if ((stream.flags & CONTEXT_FLAG_ATS_S1CHK) !== 0)
      this.#tell('split-stage ATS (STE.EATS) answers with the permissions of stage 1 alone');
    this.#publish(entry, sid, ssid);
    return entry;
  }

  /** CMD_CFGI_STE: the stream, and what was fetched through its STE. */
  invalidate(sid: number): void {
    const entry = this.#slot(sid, NO_SSID);
    if (this.#holds(entry, sid, NO_SSID)) this.#drop(entry);
    this.#dropSubstreams(sid, 1);
  }

  /** CMD_CFGI_STE_RANGE: the aligned 2^(range+1) streams around `sid`. */
  invalidateRange(sid: number, range: number): void {
    const span = 2 ** (range + 1);
    this.#dropStreams(Math.floor(sid / span) * span, span);
  }

  /** CMD_CFGI_CD of one substream; NO_SSID's configuration may come from the CD of substream 0. */
  invalidateCd(sid: number, ssid: number): void {
    const entry = this.#slot(sid, ssid);
    if (this.#holds(entry, sid, ssid)) this.#drop(entry);
    if (ssid !== 0) return;
    const untagged = this.#slot(sid, NO_SSID);
    if (this.#holds(untagged, sid, NO_SSID)) this.#drop(untagged);
  }

  /** CMD_CFGI_CD_ALL. */
  invalidateCds(sid: number): void {
    this.invalidate(sid);
  }

  invalidateAll(): void {
    for (let i = 0; i < CONTEXT_COUNT; i++) this.#drop(this.#contexts + i * CONTEXT_BYTES);
  }

  /** The fault of a fetch. */
  #failed(): number {
    this.fault = this.#fetch.fault;
    this.recordFault = this.#fetch.recordFault;
    this.stallFault = this.#fetch.stallFault;
    return 0;
  }

  /** Logs something once. */
  #tell(what: string): void {
    if (this.#logged.has(what)) return;
    this.#logged.add(what);
    this.#log(`smmuv3: ${what}`);
  }

  /** A fault of the configuration itself. */
  #refused(id: number): number {
    const feature = this.#stream.refused;
    if (feature !== '') this.#tell(`${feature} is not implemented: refused`);
    this.fault = { id };
    this.recordFault = true;
    this.stallFault = false;
    return 0;
  }

  // ---- entries ----

  #slot(sid: number, ssid: number): number {
    return this.#contexts + contextIndex(sid, ssid) * CONTEXT_BYTES;
  }

  /** Plain reads: this thread is the only writer. */
  #holds(entry: number, sid: number, ssid: number): boolean {
    const { u32 } = this.#bus.memory;
    return (
      u32[(entry + ctx.valid) >> 2] === 1 &&
      u32[(entry + ctx.sid) >> 2] === sid &&
      u32[(entry + ctx.ssid) >> 2] === ssid
    );
  }

  /** Drops what is cached of `count` streams from `first` on. */
  #dropStreams(first: number, count: number): void {
    const { u32 } = this.#bus.memory;
    for (let i = 0; i < CONTEXT_COUNT; i++) {
      const entry = this.#contexts + i * CONTEXT_BYTES;
      const cached = u32[(entry + ctx.sid) >> 2]!;
      if (cached >= first && cached - first < count) this.#drop(entry);
    }
  }

  /** The same, when no more than their substreams are left. */
  #dropSubstreams(first: number, count: number): void {
    // Their slots are scattered: the search is skipped while nobody uses substreams.
    if (this.#words.load(this.#base + at.ssidContexts) !== 0) this.#dropStreams(first, count);
  }

  /** Keeps count of the substreams cached. `change` is +1 or -1, `ssid` whose entry came or went. */
  #count(ssid: number, change: number): void {
    if (ssid !== NO_SSID) this.#words.add(this.#base + at.ssidContexts, change);
  }

  /** Fills a context that no other thread looks at. */
  #write(context: number, sid: number, ssid: number): void {
    const s = this.#stream;
    const u32 = this.#bus.memory.u32;
    const put = (field: number, value: number): void => {
      u32[(context + field) >> 2] = value;
    };
    const put64 = (field: number, value: number): void => {
      put(field, value % 2 ** 32);
      put(field + 4, Math.floor(value / 2 ** 32));
    };
    put(ctx.sid, sid);
    put(ctx.kind, s.kind);
    put(ctx.tag, s.vmid | (s.asid << 16));
    put(ctx.flags, s.flags);
    put64(ctx.s1Root, s.s1Root);
    put(ctx.s1InputBits, s.s1InputBits);
    put(ctx.s1OutputBits, s.s1OutputBits);
    put64(ctx.s2Root, s.s2Root);
    put(ctx.s2InputBits, s.s2InputBits);
    put(ctx.s2OutputBits, s.s2OutputBits);
    put(ctx.s2StartLevel, s.s2StartLevel);
    put(ctx.s1StartLevel, s.s1StartLevel);
    put(ctx.s1GranuleLg2, s.s1GranuleLg2);
    put(ctx.s2GranuleLg2, s.s2GranuleLg2);
    put(ctx.ssid, ssid);
  }

  /** Puts the stream's configuration in its entry, under the entry's sequence. */
  #publish(entry: number, sid: number, ssid: number): void {
    const draft = this.#base + at.draft;
    this.#write(draft, sid, ssid);
    const words = this.#words;
    const u32 = this.#bus.memory.u32;
    if (u32[(entry + ctx.valid) >> 2] === 1) this.#count(u32[(entry + ctx.ssid) >> 2]!, -1);
    this.#count(ssid, 1);
    words.add(entry + ctx.seq, 1);
    words.store(entry + ctx.sid, sid);
    // Atomic stores: a plain one could be seen before the sequence is odd.
    for (let i = FIRST_WORD; i <= LAST_WORD; i++) words.store(entry + i * 4, u32[(draft >> 2) + i]!);
    words.store(entry + ctx.valid, 1);
    words.add(entry + ctx.seq, 1);
  }

  #drop(entry: number): void {
    const words = this.#words;
    if (words.load(entry + ctx.valid) === 0) return;
    this.#count(words.load(entry + ctx.ssid) >>> 0, -1);
    words.add(entry + ctx.seq, 1);
    words.store(entry + ctx.valid, 0);
    words.add(entry + ctx.seq, 1);
  }
}
