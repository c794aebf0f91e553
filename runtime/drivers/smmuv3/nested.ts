/**
 * Nested domains: the guest's stage-1 half of an STE, checked when it is handed in and turned into a physical
 * STE when a device is attached. The guest can ask for abort, bypass (the host's stage 2 alone) or stage 1.
 *
 * EATS = 1 says that the guest will invalidate the ATC of the device, so that ATS may be on. For a device without
 * ATS it has no effect. Without it ATS is off while the guest's stage 1 is in force: the host would not hear of
 * changes to the guest's tables.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3-iommufd.c arm_smmu_validate_vste
 */
import {
  CONFIG_ABORT,
  CONFIG_BYPASS,
  CONFIG_S1_TRANS,
  EATS_ABORT,
  EATS_TRANS,
  STE,
} from '../../../hw/smmuv3/ste.js';
import { EIO } from '../../../uapi/abi/errno.js';
import type { DriverViommu, HostDevice, NestedDomain } from '../contract.js';
import type { Smmuv3PagingDomain } from './domain.js';
import { DRIVER_NAME } from './driver-layout.js';
import { type Entry, maskOf } from './entry-writer.js';
import type { SmmuDevice } from './smmu-device.js';
import { abortSte, nestedSte, type SteFeatures, type StreamTraits, stage2Ste } from './ste.js';

const ALLOWED = maskOf(
  STE.V,
  STE.Config,
  STE.S1Fmt,
  STE.S1ContextPtr,
  STE.S1CDMax,
  STE.S1DSS,
  STE.S1CIR,
  STE.S1COR,
  STE.S1CSH,
  STE.S1STALLD,
  STE.EATS,
);
const EATS = maskOf(STE.EATS);

export interface VirtualSte {
  /** EATS cleared; all zero when V = 0. */
  readonly words: readonly [bigint, bigint];
  /** EATS was 1, with Config = S1 translate. */
  readonly ats: boolean;
}

/** @returns what the guest asks for; -EIO when it may not */
export function validateVste(word0: bigint, word1: bigint): VirtualSte | number {
  if ((word0 & 1n) === 0n) return { words: [0n, 0n], ats: false };
  if ((word0 & ~ALLOWED[0]!) !== 0n || (word1 & ~ALLOWED[1]!) !== 0n) return -EIO;
  const config = vsteConfig([word0, word1]);
  if (config !== CONFIG_ABORT && config !== CONFIG_BYPASS && config !== CONFIG_S1_TRANS) return -EIO;
  const eats = Number((word1 & EATS[1]!) >> BigInt(STE.EATS.lo & 63));
  if (eats !== EATS_ABORT && eats !== EATS_TRANS) return -EIO;
  const ats = config === CONFIG_S1_TRANS && eats === EATS_TRANS;
  return { words: [word0, word1 & ~EATS[1]!], ats };
}

/** STE.Config of a guest's STE; an invalid one aborts. */
const vsteConfig = (vste: readonly [bigint, bigint]): number =>
  (vste[0] & 1n) === 0n ? CONFIG_ABORT : Number((vste[0] >> BigInt(STE.Config.lo)) & 7n);

/** A nested domain's vIOMMU: the stage 2 and VMID under its own stage 1, and the guest's names. struct arm_vsmmu. */
export interface Vsmmu extends DriverViommu {
  readonly smmu: SmmuDevice;
  readonly parent: Smmuv3PagingDomain;
  readonly vmid: number;
  /** @returns the device's virtual StreamID, as much of its ID as an event can carry | -ENOENT no vDEVICE */
  vsidOf(device: HostDevice): number;
}

export class Smmuv3NestedDomain implements NestedDomain {
  readonly kind = 'nested';
  readonly driver = DRIVER_NAME;
  readonly viommu: Vsmmu;
  readonly vste: VirtualSte['words'];
  /** The guest invalidates the device's ATC. */
  readonly guestAts: boolean;

  constructor(viommu: Vsmmu, vste: VirtualSte) {
    this.viommu = viommu;
    this.vste = vste.words;
    this.guestAts = vste.ats;
  }

  get config(): number {
    return vsteConfig(this.vste);
  }

  /** ATS may be on: nobody but the host changes what is translated, or the guest says that it invalidates. */
  get mayAts(): boolean {
    return this.config !== CONFIG_S1_TRANS || this.guestAts;
  }

  /** The STE of a device that is attached to it. */
  image(features: SteFeatures, traits: StreamTraits): Entry {
    const { parent, smmu, vmid } = this.viommu;
    const s2 = parent.stage2Config(smmu, vmid);
    switch (this.config) {
      case CONFIG_S1_TRANS:
        return nestedSte(s2, features, this.vste, traits);
      case CONFIG_BYPASS:
        return stage2Ste(s2, features, traits);
      default:
        return abortSte();
    }
  }

  free(): void {
    // It owns nothing: the vIOMMU holds the stage 2.
  }
}
