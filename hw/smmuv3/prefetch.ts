/**
 * CMD_PREFETCH_CONFIG and CMD_PREFETCH_ADDR. [IHI0070] 4.2. What is prefetched is cached as a read by the stream
 * would cache it; whatever stands in the way ends the prefetch silently, and no event is recorded.
 */
import { NO_SSID, XLAT_FROM_WALK, XLAT_OK, Xlat } from '../iotlb/port-layout.js';
import { CONTEXT_BYPASS, StreamContext } from '../iotlb/unit-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import type { ConfigCache } from './config-cache.js';
import { ExternalWalks } from './external-walks.js';
import type { Smmuv3Regions } from './regions.js';
import { Smmuv3Layout } from './smmuv3-layout.js';
import type { Trace } from './trace.js';

/** Translations that one command prefetches at most, so that it ends in reasonable time. */
const MAX_PREFETCHES = 32;
const PAGE_LG2 = 12;

export class Prefetch {
  readonly #memory: MachineMemory;
  readonly #kernel: Kernel;
  readonly #regions: Smmuv3Regions;
  readonly #configs: ConfigCache;
  readonly #trace: Trace;
  readonly #external: ExternalWalks;

  constructor(parts: {
    memory: MachineMemory;
    kernel: Kernel;
    regions: Smmuv3Regions;
    configs: ConfigCache;
    trace: Trace;
    log: (message: string) => void;
  }) {
    this.#memory = parts.memory;
    this.#kernel = parts.kernel;
    this.#regions = parts.regions;
    this.#configs = parts.configs;
    this.#trace = parts.trace;
    this.#external = new ExternalWalks(parts.memory, parts.kernel, parts.regions.smmu, parts.log);
  }

  /** @returns base of the StreamContext, or 0 */
  config(sid: number, ssid: number): number {
    if (!this.#enabled()) return 0;
    return this.#configs.lookup(sid, ssid);
  }

  /**
   * @param page        input page, 4 KiB
   * @param countLg2    log2 of how many translations
   * @param strideLg2   log2 of the pages from one to the next
   */
  addresses(sid: number, ssid: number, page: number, countLg2: number, strideLg2: number): void {
    const context = this.config(sid, ssid);
    if (context === 0) return;
    const { u32 } = this.#memory;
    if (u32[(context + StreamContext.at.kind) >> 2]! <= CONTEXT_BYPASS) return;
    const xlat = this.#regions.smmu + Smmuv3Layout.at.prefetch;
    const x = xlat >>> 2;
    const count = Math.min(2 ** countLg2, MAX_PREFETCHES);
    for (let i = 0; i < count; i++) {
      const at = page + i * 2 ** strideLg2;
      if (at >= 2 ** (64 - PAGE_LG2)) return;
      u32[x + (Xlat.at.iova >> 2)] = (at % 2 ** 20) * 2 ** PAGE_LG2;
      u32[x + (Xlat.at.iova >> 2) + 1] = Math.floor(at / 2 ** 20);
      u32[x + (Xlat.at.flags >> 2)] = 0;
      u32[x + (Xlat.at.sid >> 2)] = sid;
      u32[x + (Xlat.at.ssid >> 2)] = ssid;
      const walk = () => this.#kernel.translate(this.#regions.unit, context, this.#regions.iotlb, xlat);
      const status = this.#external.resolve(walk(), xlat, walk);
      if (status === XLAT_OK && u32[x + (Xlat.at.source >> 2)] === XLAT_FROM_WALK)
        this.#trace.walk(xlat, this.#trace.tick());
    }
  }

  #enabled(): boolean {
    return this.#memory.words.load(this.#regions.smmu + Smmuv3Layout.at.smmuenActive) !== 0;
  }
}

/** SubstreamID of a command that has SSV. */
export const ssidOf = (valid: number, ssid: number): number => (valid === 1 ? ssid : NO_SSID);
