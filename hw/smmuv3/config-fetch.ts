/**
 * Reads the structures that configure a stream: Stream table (linear or two levels), CD table (one CD, linear or
 * two levels). [IHI0070] 3.3.2, 3.4.3, 5.1 to 5.4. What a nested stream's CD pointers name are IPAs, which stage 2
 * translates: its faults are of class CD.
 *
 *   StreamID    -> (L1STD) -> STE
 *   SubstreamID -> (L1CD)  -> CD
 *
 * No first-level descriptor is cached, so CFGI commands need not tell leaf from table.
 */
import { XLAT_FAULT_CLASS_SHIFT, XLAT_FAULT_S2, XLAT_OK, Xlat } from '../iotlb/port-layout.js';
import { CONTEXT_FLAG_S2_RECORD, CONTEXT_FLAG_S2_STALL, CONTEXT_NESTED } from '../iotlb/unit-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Words } from '../sync/words.js';
import type { Bus } from './bus.js';
import { CD_BYTES, L1CD, L1CD_BYTES } from './cd.js';
import type { Smmuv3Config } from './config.js';
import {
  C_BAD_STREAMID,
  C_BAD_SUBSTREAMID,
  type EventRecord,
  F_CD_FETCH,
  F_STE_FETCH,
  F_WALK_EABT,
} from './event.js';
import { CR2, STRTAB_BASE, STRTAB_BASE_CFG, STRTAB_FMT_2LVL } from './registers.js';
import { Smmuv3Layout } from './smmuv3-layout.js';
import { L1STD, L1STD_BYTES, S1FMT_64K_L2, S1FMT_LINEAR, STE_BYTES } from './ste.js';
import type { StreamConfig } from './stream-config.js';

const at = Smmuv3Layout.at;

/** Why a lookup failed: what the event record says besides the transaction itself. */
export type ConfigFault = Partial<EventRecord> & { readonly id: number };

export class ConfigFetch {
  readonly ste = new Uint32Array(STE_BYTES / 4);
  readonly cd = new Uint32Array(CD_BYTES / 4);
  /** Of the last fetch that failed. */
  fault: ConfigFault = { id: 0 };
  /** Whether that fault is to be recorded. */
  recordFault = true;
  /** Whether that fault stalls the transaction: stage 2 refused the CD's address, and STE.S2S is set. */
  stallFault = false;

  readonly #words: Words;
  readonly #bus: Bus;
  readonly #kernel: Kernel;
  readonly #base: number;
  readonly #config: Smmuv3Config;
  readonly #l1 = new Uint32Array(Math.max(L1STD_BYTES, L1CD_BYTES) / 4);

  /** @param base  linear base of the unit's smmuv3 region */
  constructor(bus: Bus, kernel: Kernel, base: number, config: Smmuv3Config) {
    this.#words = bus.memory.words;
    this.#bus = bus;
    this.#kernel = kernel;
    this.#base = base;
    this.#config = config;
  }

  /** @returns whether `ste` holds the stream's STE */
  fetchSte(sid: number): boolean {
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
    if (!this.#bus.readQuads(l1, 1, this.#l1)) return this.#failed({ id: F_STE_FETCH, fetchAddr: l1 });
    const span = L1STD.Span.get(this.#l1);
    const index = sid % 2 ** split;
    if (span === 0 || span > split + 1 || index >= 2 ** (span - 1)) return this.#badStreamId();
    const size = 2 ** (span - 1) * STE_BYTES;
    return this.#readSte(Math.floor(L1STD.L2Ptr.get(this.#l1) / size) * size + index * STE_BYTES);
  }

  /**
   * @param stream  says which CD, and where their table lies
   * @param draft   context that holds stage 2, for pointers that are IPAs
   * @returns whether `cd` holds the CD
   */
  fetchCd(stream: StreamConfig, draft: number): boolean {
    const index = stream.cdIndex;
    if (stream.s1Fmt === S1FMT_LINEAR) {
      // The table is aligned to its size; s1CdMax is 0 for a single CD.
      const size = 2 ** stream.s1CdMax * CD_BYTES;
      const table = Math.floor(stream.contextPtr / size) * size;
      return this.#read(stream, draft, table + index * CD_BYTES, CD_BYTES, this.cd);
    }
    const split = stream.s1Fmt === S1FMT_64K_L2 ? 10 : 6;
    const l1Size = Math.max(64, 2 ** Math.max(0, stream.s1CdMax - split) * L1CD_BYTES);
    const l1 = Math.floor(stream.contextPtr / l1Size) * l1Size + Math.floor(index / 2 ** split) * L1CD_BYTES;
    if (!this.#read(stream, draft, l1, L1CD_BYTES, this.#l1)) return false;
    const l2Size = 2 ** split * CD_BYTES;
    const l2 = Math.floor(L1CD.L2Ptr.get(this.#l1) / l2Size) * l2Size;
    // 3.4.3: a pointer beyond the output size is as none; one that is an IPA is for stage 2 to judge.
    const outOfRange = stream.kind !== CONTEXT_NESTED && l2 >= 2 ** this.#config.oasBits;
    // Without a SubstreamID the record names substream 0.
    if (L1CD.V.get(this.#l1) === 0 || outOfRange) return this.#failed({ id: C_BAD_SUBSTREAMID });
    return this.#read(stream, draft, l2 + (index % 2 ** split) * CD_BYTES, CD_BYTES, this.cd);
  }

  /** Reads a CD or an L1CD: neither crosses a page. */
  #read(stream: StreamConfig, draft: number, address: number, bytes: number, out: Uint32Array): boolean {
    let pa = address;
    if (stream.kind === CONTEXT_NESTED) {
      const u32 = this.#bus.memory.u32;
      const xlat = this.#base + at.fetch;
      const x = xlat >> 2;
      u32[x + (Xlat.at.iova >> 2)] = address % 2 ** 32;
      u32[x + (Xlat.at.iova >> 2) + 1] = Math.floor(address / 2 ** 32);
      u32[x + (Xlat.at.flags >> 2)] = 0;
      const status = this.#kernel.translateIpa(draft, xlat);
      pa = word52(u32, x + (Xlat.at.pa >> 2));
      if (status !== XLAT_OK) {
        const detail = u32[x + (Xlat.at.fault >> 2)]!;
        const abort = status === F_WALK_EABT;
        const fault = {
          id: status,
          s2: (detail & XLAT_FAULT_S2) !== 0,
          class: (detail >> XLAT_FAULT_CLASS_SHIFT) & 3,
          ipa: Math.floor(address / 4096) * 4096,
          ttrnw: true,
          fetchAddr: abort ? Math.floor(pa / 8) * 8 : 0,
        };
        this.#failed(fault);
        this.recordFault = abort || (stream.flags & CONTEXT_FLAG_S2_RECORD) !== 0;
        this.stallFault = !abort && (stream.flags & CONTEXT_FLAG_S2_STALL) !== 0;
        return false;
      }
    }
    return this.#bus.readQuads(pa, bytes / 8, out) || this.#failed({ id: F_CD_FETCH, fetchAddr: pa });
  }

  #readSte(pa: number): boolean {
    return (
      this.#bus.readQuads(pa, STE_BYTES / 8, this.ste) || this.#failed({ id: F_STE_FETCH, fetchAddr: pa })
    );
  }

  #badStreamId(): boolean {
    this.#failed({ id: C_BAD_STREAMID });
    // 6.3.12: the transaction is aborted in any case, and recorded only on request.
    this.recordFault = CR2.RECINVSID.get(this.#words.load(this.#base + at.cr2)) === 1;
    return false;
  }

  #failed(fault: ConfigFault): boolean {
    this.fault = fault;
    this.recordFault = true;
    this.stallFault = false;
    return false;
  }
}

/** The low 52 bits of the 64-bit word at index `i`. */
export function word52(u32: Uint32Array, i: number): number {
  return (u32[i + 1]! & 0xf_ffff) * 2 ** 32 + u32[i]!;
}
