/** The monitors' own look at one SMMU's state in memory, and what it would make of a stream if it looked at it anew. */
import { CONTEXT_BYTES, CONTEXT_COUNT, StreamContext } from '../../../hw/iotlb/unit-layout.js';
import { Bus } from '../../../hw/smmuv3/bus.js';
import type { Smmuv3Config } from '../../../hw/smmuv3/config.js';
import { ConfigCache } from '../../../hw/smmuv3/config-cache.js';
import { type Smmuv3Regions, smmuv3Regions } from '../../../hw/smmuv3/regions.js';
import { CR0 } from '../../../hw/smmuv3/registers.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import type { Machine, MachineIommu } from '../../../runtime/machine.js';
import { smmuConfigOf } from '../../../runtime/machine-hardware.js';

const ctx = StreamContext.at;

export class HardwareView {
  readonly iommu: MachineIommu;
  readonly regions: Smmuv3Regions;
  readonly hardware: Smmuv3Config;
  readonly #machine: Machine;
  #cache: ConfigCache | null = null;

  constructor(machine: Machine, iommu: MachineIommu) {
    this.iommu = iommu;
    this.#machine = machine;
    this.hardware = smmuConfigOf(machine.config, iommu.index);
    this.regions = smmuv3Regions(machine.memory, this.hardware);
  }

  /** A word of the SMMU's own region. */
  load(offset: number): number {
    return this.#machine.memory.u32[(this.regions.smmu + offset) >>> 2]!;
  }

  /** LOG2SIZE of a queue, as the SMMU takes it. */
  log2Of(base: 'eventqBase' | 'priqBase'): number {
    const { evtqLog2, priqLog2 } = this.hardware;
    return Math.min(this.load(Smmuv3Layout.at[base]) & 31, base === 'eventqBase' ? evtqLog2 : priqLog2);
  }

  get enabled(): boolean {
    return CR0.SMMUEN.get(this.load(Smmuv3Layout.at.cr0ack)) === 1;
  }

  /** Bases of the contexts that are cached. */
  cachedContexts(): number[] {
    const { u32 } = this.#machine.memory;
    const found: number[] = [];
    for (let i = 0; i < CONTEXT_COUNT; i++) {
      const base = this.regions.contexts + i * CONTEXT_BYTES;
      if (u32[(base + ctx.valid) >>> 2] === 1) found.push(base);
    }
    return found;
  }

  /**
   * What a stream's tables say now, by the SMMU's own reading of them, but not of its cache.
   * @returns words of a StreamContext, which stays cached; null when the stream faults
   */
  fresh(sid: number, ssid: number): Uint32Array | null {
    const { memory, kernel } = this.#machine;
    this.#cache ??= new ConfigCache(new Bus(memory), kernel, this.regions, this.hardware, () => undefined);
    this.#cache.invalidateCd(sid, ssid);
    const context = this.#cache.lookup(sid, ssid);
    if (context === 0) return null;
    return memory.u32.slice(context >>> 2, (context + CONTEXT_BYTES) >>> 2);
  }
}

const views = new WeakMap<Machine, HardwareView[]>();

/** Of each SMMU; made once a machine. */
export function viewsOf(machine: Machine): HardwareView[] {
  let known = views.get(machine);
  if (known === undefined) {
    known = machine.iommus.map((iommu) => new HardwareView(machine, iommu));
    views.set(machine, known);
  }
  return known;
}
