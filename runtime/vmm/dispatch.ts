/**
 * The two ways to show a guest several physical SMMUs (seed: one vIOMMU object per physical SMMU, always).
 *
 *   'one'        guest sees ------- SMMU ------           'per-psmmu'   SMMU 0   SMMU 1   SMMU 2
 *                                /    |    \                              |        |        |
 *                        vIOMMU 0  vIOMMU 1  vIOMMU 2                 vIOMMU 0  vIOMMU 1  vIOMMU 2
 *
 * With one, the VMM sends commands that carry a vSID to the owner and repeats every TLBI on all vIOMMUs; all
 * vSIDs are of one space. With one each, the guest itself knows which SMMU a device is behind and sends every
 * command once; each SMMU has a StreamID space of its own, and ASIDs need to be unique in each only.
 */
import type { GuestRam } from './guest-ram.js';
import type { VmmTransport } from './transport.js';
import { VirtualSmmu } from './virtual-smmu.js';
import type { VmViommu } from './vm-viommu.js';

export type VsmmuStrategy = 'one' | 'per-psmmu';

export interface VsmmuDispatch {
  /** The virtual SMMU that a vIOMMU's devices appear behind. */
  smmuFor(viommu: VmViommu): VirtualSmmu;
  /** Every virtual SMMU the guest sees, in order of appearance. */
  readonly smmus: readonly VirtualSmmu[];
}

export class OneVsmmu implements VsmmuDispatch {
  readonly smmus: readonly VirtualSmmu[];

  constructor(transport: VmmTransport, ram: GuestRam) {
    this.smmus = [new VirtualSmmu(transport, ram, 'vsmmu')];
  }

  smmuFor(): VirtualSmmu {
    return this.smmus[0]!;
  }
}

export class PerPsmmu implements VsmmuDispatch {
  readonly #transport: VmmTransport;
  readonly #ram: GuestRam;
  readonly #byViommu = new Map<VmViommu, VirtualSmmu>();

  constructor(transport: VmmTransport, ram: GuestRam) {
    this.#transport = transport;
    this.#ram = ram;
  }

  get smmus(): readonly VirtualSmmu[] {
    return [...this.#byViommu.values()];
  }

  smmuFor(viommu: VmViommu): VirtualSmmu {
    const known = this.#byViommu.get(viommu);
    if (known !== undefined) return known;
    const made = new VirtualSmmu(this.#transport, this.#ram, `vsmmu${this.#byViommu.size}`);
    this.#byViommu.set(viommu, made);
    return made;
  }
}

export function createDispatch(
  strategy: VsmmuStrategy,
  transport: VmmTransport,
  ram: GuestRam,
): VsmmuDispatch {
  return strategy === 'one' ? new OneVsmmu(transport, ram) : new PerPsmmu(transport, ram);
}
