/**
 * What each command does, all but CMD_SYNC. [IHI0070] 4.2 to 4.5, 4.7. A command takes effect when it is executed;
 * it is executed once, and never half.
 *
 * Leaf and TTL hints are ignored (over-invalidation is allowed); no table pointers are cached across commands.
 * Always CERROR_ILL: what the IDRs report as absent, the Secure forms, SSec = 1, CFGI_VMS_PIDM, DPTI.
 */
import type { Kernel } from '../kernel/kernel.js';
import { ANY_SSID, ATC_INV_ALL, type AtcInvalidations } from './atc-invalidations.js';
import * as C from './command.js';
import type { Smmuv3Config } from './config.js';
import type { ConfigCache } from './config-cache.js';
import type { Log } from './mmio.js';
import { type Prefetch, ssidOf } from './prefetch.js';
import type { PageRequests } from './pri-queue.js';
import type { Smmuv3Regions } from './regions.js';
import { CERROR_ILL, CERROR_NONE, CR0, CR2 } from './registers.js';
import { Smmuv3Layout } from './smmuv3-layout.js';
import type { Stalls } from './stalls.js';

const at = Smmuv3Layout.at;

/** Input pages: bits 63:12. */
const PAGES = 2 ** 52;
/** IPA pages that a command can name: bits 51:12. */
const IPA_PAGES = 2 ** 40;
/** log2 of 4 KiB pages in a granule, by TG. */
const GRANULE_PAGES_LG2: readonly number[] = [0, 0, 2, 4];
const ANY_ASID = -1;

export interface ExecutorParts {
  readonly bus: { readonly memory: { readonly words: { load(offset: number): number } } };
  readonly kernel: Kernel;
  readonly regions: Smmuv3Regions;
  readonly config: Smmuv3Config;
  readonly configs: ConfigCache;
  readonly stalls: Stalls;
  readonly pages: PageRequests;
  readonly atc: AtcInvalidations;
  readonly prefetch: Prefetch;
  readonly log: Log;
  /** Whether translations wait to be made. */
  loaded(): boolean;
}

export class CommandExecutor {
  readonly #parts: ExecutorParts;
  readonly #config: Smmuv3Config;
  readonly #kernel: Kernel;
  readonly #configs: ConfigCache;
  readonly #unit: number;
  readonly #iotlb: number;
  readonly #skipTlbi: boolean;
  readonly #dropsUnderLoad: boolean;
  /** With that erratum, the command that was lost last. */
  #dropped = '';
  readonly #logged = new Set<number>();
  /** The command being executed. */
  #c: Uint32Array = new Uint32Array(C.COMMAND_WORDS);

  constructor(parts: ExecutorParts) {
    this.#parts = parts;
    this.#config = parts.config;
    this.#kernel = parts.kernel;
    this.#configs = parts.configs;
    this.#unit = parts.regions.unit;
    this.#iotlb = parts.regions.iotlb;
    this.#skipTlbi = parts.config.bugs.skipTlbi === true;
    this.#dropsUnderLoad = parts.config.bugs.dropsUnderLoad === true;
  }

  /** @returns CERROR_NONE or CERROR_ILL */
  execute(command: Uint32Array, opcode: number): number {
    this.#c = command;
    const config = this.#config;
    if (this.#dropsUnderLoad && this.#isDropped(opcode)) return CERROR_NONE;
    switch (opcode) {
      case C.CMD_TLBI_NH_ALL:
      case C.CMD_TLBI_NH_ASID:
      case C.CMD_TLBI_NH_VA:
      case C.CMD_TLBI_NH_VAA:
        return config.stages === 's2' ? this.#refuse(opcode) : this.#stage1(opcode);
      case C.CMD_TLBI_S12_VMALL:
      case C.CMD_TLBI_S2_IPA:
        return config.stages === 's1' ? this.#refuse(opcode) : this.#stage2(opcode);
      case C.CMD_TLBI_NSNH_ALL:
        if (!this.#skipTlbi) this.#kernel.iotlbInvalidateAll(this.#unit, this.#iotlb);
        return CERROR_NONE;
      case C.CMD_TLBI_EL2_ALL:
      case C.CMD_TLBI_EL2_ASID:
      case C.CMD_TLBI_EL2_VA:
      case C.CMD_TLBI_EL2_VAA:
        return config.hyp ? this.#el2(opcode) : this.#refuse(opcode);
      case C.CMD_CFGI_STE:
      case C.CMD_CFGI_STE_RANGE:
        return this.#configuration(opcode);
      case C.CMD_CFGI_CD:
      case C.CMD_CFGI_CD_ALL:
        return config.stages === 's2' ? this.#refuse(opcode) : this.#configuration(opcode);
      case C.CMD_ATC_INV:
        return config.ats ? this.#atcInvalidate() : this.#refuse(opcode);
      case C.CMD_PRI_RESP:
        return config.pri ? this.#pageResponse() : this.#refuse(opcode);
      case C.CMD_RESUME:
      case C.CMD_STALL_TERM:
        return config.stalls === 'none' ? this.#refuse(opcode) : this.#resume(opcode);
      case C.CMD_PREFETCH_CONFIG:
      case C.CMD_PREFETCH_ADDR:
        return this.#prefetch(opcode);
      default:
        return this.#refuse(opcode);
    }
  }

  /** The Tegra264 erratum: an invalidation that meets translations under way is lost; the same once more is not. */
  #isDropped(opcode: number): boolean {
    const tlbi = opcode >= C.CMD_TLBI_NH_ALL && opcode <= C.CMD_TLBI_NSNH_ALL;
    const cfgi = opcode >= C.CMD_CFGI_STE && opcode <= C.CMD_CFGI_CD_ALL;
    if (!tlbi && !cfgi) return false;
    const command = this.#c.join();
    const lost = command !== this.#dropped && this.#parts.loaded();
    this.#dropped = lost ? command : '';
    return lost;
  }

  /** What the SMMU does not have is named, once. */
  #refuse(opcode: number): number {
    if (!this.#logged.has(opcode)) {
      this.#logged.add(opcode);
      const name = C.COMMAND_NAMES[opcode] ?? `command 0x${opcode.toString(16)}`;
      this.#parts.log(`smmuv3: ${name} is not implemented: CERROR_ILL`);
    }
    return CERROR_ILL;
  }

  #register(offset: number): number {
    return this.#parts.bus.memory.words.load(this.#parts.regions.smmu + offset);
  }

  /** 4.1.6. */
  #secure(): boolean {
    return C.CMD.SSec.get(this.#c) === 1;
  }

  // ---- configuration ----

  #configuration(opcode: number): number {
    const c = this.#c;
    if (this.#secure()) return CERROR_ILL;
    const sid = C.CMD_CFGI.StreamID.get(c);
    if (opcode === C.CMD_CFGI_STE_RANGE) {
      const range = C.CMD_CFGI_RANGE.Range.get(c);
      if (range === 31) this.#configs.invalidateAll();
      else this.#configs.invalidateRange(sid, range);
    } else if (opcode === C.CMD_CFGI_CD) {
      this.#configs.invalidateCd(sid, C.CMD_CFGI.SubstreamID.get(c));
    } else if (opcode === C.CMD_CFGI_CD_ALL) {
      this.#configs.invalidateCds(sid);
    } else {
      this.#configs.invalidate(sid);
    }
    return CERROR_NONE;
  }

  #prefetch(opcode: number): number {
    const c = this.#c;
    if (this.#secure()) return CERROR_ILL;
    const sid = C.CMD_PREFETCH.StreamID.get(c);
    // 4.2: without substreams, SSV is taken as 0.
    const ssv = this.#config.ssidBits === 0 ? 0 : C.CMD_PREFETCH.SSV.get(c);
    const ssid = ssidOf(ssv, C.CMD_PREFETCH.SubstreamID.get(c));
    if (opcode === C.CMD_PREFETCH_CONFIG) {
      this.#parts.prefetch.config(sid, ssid);
      return CERROR_NONE;
    }
    const size = C.CMD_PREFETCH.Size.get(c);
    this.#parts.prefetch.addresses(sid, ssid, C.CMD_PREFETCH.Page.get(c), size, C.CMD_PREFETCH.Stride.get(c));
    return CERROR_NONE;
  }

  // ---- TLB ----

  #stage1(opcode: number): number {
    const c = this.#c;
    const vmid = this.#vmid();
    const asid = this.#asid();
    if (opcode === C.CMD_TLBI_NH_ALL) {
      if (!this.#skipTlbi) this.#kernel.iotlbInvalidateVmid(this.#iotlb, vmid, true);
      return CERROR_NONE;
    }
    if (opcode === C.CMD_TLBI_NH_ASID) {
      if (!this.#skipTlbi) this.#kernel.iotlbInvalidateAsid(this.#iotlb, vmid, asid);
      return CERROR_NONE;
    }
    const pages = this.#pages();
    if (pages < 0) return CERROR_ILL;
    if (this.#skipTlbi) return CERROR_NONE;
    const page = C.CMD_TLBI.Page.get(c);
    const match = opcode === C.CMD_TLBI_NH_VAA ? ANY_ASID : asid;
    const count = Math.min(pages, PAGES - page);
    this.#kernel.iotlbInvalidateVa(this.#unit, this.#iotlb, vmid, match, page, count);
    return CERROR_NONE;
  }

  #stage2(opcode: number): number {
    const vmid = this.#vmid();
    if (opcode === C.CMD_TLBI_S12_VMALL) {
      if (!this.#skipTlbi) this.#kernel.iotlbInvalidateVmid(this.#iotlb, vmid, false);
      return CERROR_NONE;
    }
    const pages = this.#pages();
    if (pages < 0) return CERROR_ILL;
    if (this.#skipTlbi) return CERROR_NONE;
    const page = C.CMD_TLBI.Page.get(this.#c) % IPA_PAGES;
    const count = Math.min(pages, IPA_PAGES - page);
    this.#kernel.iotlbInvalidateIpa(this.#unit, this.#iotlb, vmid, page, count);
    return CERROR_NONE;
  }

  /** 4.4.2.7 to 4.4.2.10. CR2.E2H says whether the regime has ASIDs; entries of the other may go as well. */
  #el2(opcode: number): number {
    if (opcode === C.CMD_TLBI_EL2_ALL) {
      if (!this.#skipTlbi) this.#kernel.iotlbInvalidateEl2All(this.#iotlb);
      return CERROR_NONE;
    }
    if (opcode === C.CMD_TLBI_EL2_ASID) {
      if (!this.#skipTlbi) this.#kernel.iotlbInvalidateEl2Asid(this.#iotlb, this.#asid());
      return CERROR_NONE;
    }
    const pages = this.#pages();
    if (pages < 0) return CERROR_ILL;
    if (this.#skipTlbi) return CERROR_NONE;
    const page = C.CMD_TLBI.Page.get(this.#c);
    const tagged = opcode === C.CMD_TLBI_EL2_VA && CR2.E2H.get(this.#register(at.cr2)) === 1;
    const match = tagged ? this.#asid() : ANY_ASID;
    const count = Math.min(pages, PAGES - page);
    this.#kernel.iotlbInvalidateEl2Va(this.#unit, this.#iotlb, match, page, count);
    return CERROR_NONE;
  }

  /** Without stage 2, everything is tagged VMID 0. */
  #vmid(): number {
    if (this.#config.stages === 's1') return 0;
    return C.CMD_TLBI.VMID.get(this.#c) & (this.#config.vmidBits === 8 ? 0xff : 0xffff);
  }

  #asid(): number {
    return C.CMD_TLBI.ASID.get(this.#c) & (this.#config.asidBits === 8 ? 0xff : 0xffff);
  }

  /** 4.4.1.1. @returns 4 KiB pages that an address-based TLBI covers, or -1 for a reserved encoding */
  #pages(): number {
    const c = this.#c;
    const tg = C.CMD_TLBI.TG.get(c);
    if (tg === C.TG_ANY) return 1;
    const num = C.CMD_TLBI.NUM.get(c);
    const scale = C.CMD_TLBI.SCALE.get(c);
    let ttl = C.CMD_TLBI.TTL.get(c);
    // IDR5.DS = 0: there is no level-1 leaf of 16 KiB granule.
    if (tg === C.TG_16K && ttl === 1) ttl = 0;
    if (num === 0 && scale === 0 && ttl === 0) return -1;
    return (num + 1) * 2 ** (scale + GRANULE_PAGES_LG2[tg]!);
  }

  // ---- ATS, PRI, stalls ----

  #enabled(): boolean {
    return CR0.SMMUEN.get(this.#register(at.smmuenActive)) === 1;
  }

  #atcInvalidate(): number {
    const c = this.#c;
    const size = C.CMD_ATC.Size.get(c);
    if (this.#secure() || size > ATC_INV_ALL) return CERROR_ILL;
    if (!this.#enabled() || this.#config.bugs.skipAtcInv === true) return CERROR_NONE;
    // Without a PASID the Invalidate Request is for entries of every PASID and of none.
    const one = C.CMD_ATC.SSV.get(c) === 1 && C.CMD_ATC.Global.get(c) === 0;
    const ssid = one ? C.CMD_ATC.SubstreamID.get(c) : ANY_SSID;
    this.#parts.atc.invalidate(C.CMD_ATC.StreamID.get(c), ssid, C.CMD_ATC.Page.get(c), size);
    return CERROR_NONE;
  }

  #pageResponse(): number {
    const c = this.#c;
    const response = C.CMD_PRI.Resp.get(c);
    if (this.#secure() || response > C.PRI_RESP_SUCCESS) return CERROR_ILL;
    if (!this.#enabled()) return CERROR_NONE;
    const ssid = ssidOf(C.CMD_PRI.SSV.get(c), C.CMD_PRI.SubstreamID.get(c));
    this.#parts.pages.respond(C.CMD_PRI.StreamID.get(c), ssid, C.CMD_PRI.PRGIndex.get(c), response);
    return CERROR_NONE;
  }

  #resume(opcode: number): number {
    const c = this.#c;
    if (this.#secure()) return CERROR_ILL;
    const sid = C.CMD_STALL.StreamID.get(c);
    if (opcode === C.CMD_STALL_TERM) this.#parts.stalls.terminateStream(sid);
    else {
      const retry = C.CMD_STALL.Ac.get(c) === 1;
      this.#parts.stalls.resume(sid, C.CMD_STALL.STAG.get(c), retry, C.CMD_STALL.Ab.get(c) === 1);
    }
    return CERROR_NONE;
  }
}
