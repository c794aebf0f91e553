/**
 * From StreamID and SubstreamID to configuration: Stream table, STE, CD, through the `contexts` region, which
 * caches the two as one decoded entry and which devices probe as well. [IHI0070] 3.3, 3.21, 5.1.
 *
 *   StreamID -> (level-1 descriptor) -> STE -> CD at a PA, or at an IPA through stage 2 when nested
 *
 * A configuration that faults is never cached. Not modelled: two-level CD tables, substreams.
 */
import { NO_SSID, XLAT_FAULT_CLASS_SHIFT, XLAT_FAULT_S2, XLAT_OK, Xlat } from '../iotlb/port-layout.js';
import {
  CONTEXT_ABORT,
  CONTEXT_BYTES,
  CONTEXT_COUNT,
  CONTEXT_FLAG_S2_RECORD,
  CONTEXT_NESTED,
  CONTEXT_S1,
  contextIndex,
  StreamContext,
} from '../iotlb/unit-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Words } from '../sync/words.js';
import type { Bus } from './bus.js';
import { CD_BYTES } from './cd.js';
import type { Smmuv3Config } from './config.js';
import {
  C_BAD_STREAMID,
  C_BAD_SUBSTREAMID,
  type EventRecord,
  F_CD_FETCH,
  F_STE_FETCH,
  F_WALK_EABT,
} from './event.js';
import type { Log } from './mmio.js';
import type { Smmuv3Regions } from './regions.js';
import { CR2, STRTAB_BASE, STRTAB_BASE_CFG, STRTAB_FMT_2LVL } from './registers.js';
import { Smmuv3Layout } from './smmuv3-layout.js';
import { L1STD, L1STD_BYTES, STE_BYTES } from './ste.js';
import { decodeCd, decodeSte, StreamConfig } from './stream-config.js';

const at = Smmuv3Layout.at;
const ctx = StreamContext.at;
/** Fields of a StreamContext after seq, sid and valid, as 32-bit words. */
const FIRST_WORD = ctx.kind >> 2;
const LAST_WORD = ctx.ssid >> 2;

/** Why a lookup failed: what the event record says besides the transaction itself. */
export type ConfigFault = Partial<EventRecord> & { readonly id: number };

export class ConfigCache {
  /** Of the last lookup that returned 0. */
  fault: ConfigFault = { id: 0 };
  /** Whether that fault is to be recorded. */
  recordFault = true;
  /** The last lookup found CD.EPD0: stage 1 faults whatever the address; context flags are in the draft. */
  s1Disabled = false;

  readonly #words: Words;
  readonly #bus: Bus;
  readonly #kernel: Kernel;
  readonly #base: number;
  readonly #contexts: number;
  readonly #config: Smmuv3Config;
  readonly #log: Log;
  readonly #logged = new Set<string>();
  readonly #stream = new StreamConfig();
  readonly #ste = new Uint32Array(STE_BYTES / 4);
  readonly #cd = new Uint32Array(CD_BYTES / 4);
  readonly #l1 = new Uint32Array(L1STD_BYTES / 4);

  constructor(bus: Bus, kernel: Kernel, regions: Smmuv3Regions, config: Smmuv3Config, log: Log) {
    this.#words = bus.memory.words;
    this.#bus = bus;
    this.#kernel = kernel;
    this.#base = regions.smmu;
    this.#contexts = regions.contexts;
    this.#config = config;
    this.#log = log;
  }

  /**
   * The configuration of a stream or substream, from the cache or from memory.
   * @param ssid  SubstreamID, or NO_SSID
   * @returns base of its StreamContext; 0 on a fault, described by `fault` and `recordFault`. With `s1Disabled`
   *          set the context is the draft, and not cached.
   */
  lookup(sid: number, ssid: number): number {
    this.s1Disabled = false;
    const entry = this.#slot(sid, ssid);
    if (this.#holds(entry, sid, ssid)) return entry;
    this.#words.add(this.#base + at.configFetches, 1);
    this.recordFault = true;
    if (!this.#fetchSte(sid)) return 0;
    const stream = this.#stream;
    const bad = decodeSte(this.#ste, this.#config, stream);
    if (bad !== 0) return this.#refused({ id: bad });
    if (ssid !== NO_SSID && stream.kind !== CONTEXT_ABORT) return this.#refused({ id: C_BAD_SUBSTREAMID });
    const draft = this.#base + at.draft;
    if (stream.kind === CONTEXT_S1 || stream.kind === CONTEXT_NESTED) {
      this.#write(draft, sid, ssid);
      if (!this.#fetchCd(draft)) return 0;
      const badCd = decodeCd(this.#cd, this.#config, stream);
      if (badCd !== 0) return this.#refused({ id: badCd });
      if (stream.s1Disabled) {
        this.#write(draft, sid, ssid);
        this.s1Disabled = true;
        return draft;
      }
    }
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

  // ---- fetches ----

  #fetchSte(sid: number): boolean {
    const words = this.#words;
    const base = Number(STRTAB_BASE.ADDR.get(words.load64(this.#base + at.strtabBase)));
    const cfg = words.load(this.#base + at.strtabBaseCfg);
    const log2 = Math.min(STRTAB_BASE_CFG.LOG2SIZE.get(cfg), this.#config.sidBits);
    if (sid >= 2 ** log2) return this.#badStreamId();
    if (STRTAB_BASE_CFG.FMT.get(cfg) !== STRTAB_FMT_2LVL) {
      // 6.3.24: the table is aligned to its size, low bits of ADDR are zero.
      const size = 2 ** log2 * STE_BYTES;
      return this.#readSte(Math.floor(base / size) * size + sid * STE_BYTES);
    }
    const asked = STRTAB_BASE_CFG.SPLIT.get(cfg);
    // Reserved values behave as 6.
    const split = asked === 8 || asked === 10 ? asked : 6;
    const l1Size = Math.max(64, 2 ** Math.max(0, log2 - split) * L1STD_BYTES);
    const l1 = Math.floor(base / l1Size) * l1Size + Math.floor(sid / 2 ** split) * L1STD_BYTES;
    if (!this.#bus.readQuads(l1, 1, this.#l1)) return this.#fetchFault(F_STE_FETCH, l1);
    const span = L1STD.Span.get(this.#l1);
    const index = sid % 2 ** split;
    if (span === 0 || span > split + 1 || index >= 2 ** (span - 1)) return this.#badStreamId();
    const size = 2 ** (span - 1) * STE_BYTES;
    return this.#readSte(Math.floor(L1STD.L2Ptr.get(this.#l1) / size) * size + index * STE_BYTES);
  }

  #readSte(pa: number): boolean {
    return this.#bus.readQuads(pa, STE_BYTES / 8, this.#ste) || this.#fetchFault(F_STE_FETCH, pa);
  }

  /** @param draft  context that holds stage 2, for a CD that lies at an IPA */
  #fetchCd(draft: number): boolean {
    const u32 = this.#bus.memory.u32;
    const xlat = this.#base + at.fetch;
    const x = xlat >> 2;
    let pa = this.#stream.contextPtr;
    if (this.#stream.kind === CONTEXT_NESTED) {
      u32[x + (Xlat.at.iova >> 2)] = pa % 2 ** 32;
      u32[x + (Xlat.at.iova >> 2) + 1] = Math.floor(pa / 2 ** 32);
      u32[x + (Xlat.at.flags >> 2)] = 0;
      const status = this.#kernel.translateIpa(draft, xlat);
      const translated = word52(u32, x + (Xlat.at.pa >> 2));
      if (status !== XLAT_OK) {
        const detail = u32[x + (Xlat.at.fault >> 2)]!;
        this.recordFault = status === F_WALK_EABT || (this.#stream.flags & CONTEXT_FLAG_S2_RECORD) !== 0;
        this.fault = {
          id: status,
          s2: (detail & XLAT_FAULT_S2) !== 0,
          class: (detail >> XLAT_FAULT_CLASS_SHIFT) & 3,
          ipa: Math.floor(pa / 4096) * 4096,
          ttrnw: true,
          fetchAddr: status === F_WALK_EABT ? Math.floor(translated / 8) * 8 : 0,
        };
        return false;
      }
      pa = translated;
    }
    return this.#bus.readQuads(pa, CD_BYTES / 8, this.#cd) || this.#fetchFault(F_CD_FETCH, pa);
  }

  #badStreamId(): boolean {
    // 6.3.12: the transaction is aborted in any case, and recorded only on request.
    this.recordFault = CR2.RECINVSID.get(this.#words.load(this.#base + at.cr2)) === 1;
    this.fault = { id: C_BAD_STREAMID };
    return false;
  }

  #fetchFault(id: number, pa: number): boolean {
    this.fault = { id, fetchAddr: pa };
    return false;
  }

  #refused(fault: ConfigFault): number {
    const feature = this.#stream.refused;
    if (feature !== '' && !this.#logged.has(feature)) {
      this.#logged.add(feature);
      this.#log(`smmuv3: ${feature} is not implemented: refused`);
    }
    this.fault = fault;
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
    put(ctx.s1GranuleLg2, 12);
    put(ctx.s2GranuleLg2, 12);
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

/** The low 52 bits of the 64-bit word at index `i`. */
export function word52(u32: Uint32Array, i: number): number {
  return u32[i]! + (u32[i + 1]! & 0xfffff) * 2 ** 32;
}
