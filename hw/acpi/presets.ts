/**
 * Machine descriptions that come with the package, so that the main job needs no file.
 *
 * - `cix-p1`: the CIX P1, an Armv9 board, described by us; reading its firmware's IORT gives the same.
 *   One SMMUv3 for PCI, one for display, NPU and camera; a region that display streams use from boot on.
 * - `server-4`: an Arm server of our making: four sockets' worth of SMMUv3 and PCI segment each, ATS on every other.
 */
import type { MachineDescription, NamedComponentDescription } from './description.js';

/** The platform devices of the CIX P1 sit behind its second SMMU and drive 40 bits of address. */
function cixDevice(path: string, ...streamIds: number[]): NamedComponentDescription {
  return {
    kind: 'named-component',
    path,
    memoryAddressSize: 40,
    idMappings: streamIds.map((outputBase, inputBase) => ({
      inputBase,
      count: 1,
      outputBase,
      iommu: 'smmu1',
      single: true,
    })),
  };
}

const CIX_P1: MachineDescription = {
  iommus: [
    {
      name: 'smmu0',
      model: 'smmuv3',
      base: 0x0b01_0000,
      coherent: true,
      interrupts: { event: 107, pri: 116, gerror: 112, sync: 108 },
    },
    {
      name: 'smmu1',
      model: 'smmuv3',
      base: 0x0b1b_0000,
      coherent: true,
      interrupts: { event: 141, pri: 150, gerror: 146, sync: 142 },
    },
  ],
  masters: [
    {
      kind: 'pci-root-complex',
      segment: 0,
      ats: true,
      memoryAddressSize: 64,
      idMappings: [{ inputBase: 0, count: 0x1_0000, outputBase: 0, iommu: 'smmu0' }],
    },
    cixDevice('\\_SB_.DPU0', 0, 1, 3, 4, 5),
    cixDevice('\\_SB_.AEU0', 2),
    cixDevice('\\_SB_.DPU1', 6, 7, 9, 10, 11),
    cixDevice('\\_SB_.AEU1', 8),
    cixDevice('\\_SB_.DPU2', 12, 13, 15, 16, 17),
    cixDevice('\\_SB_.AEU2', 14),
    cixDevice('\\_SB_.DPU3', 18, 19, 21, 22, 23),
    cixDevice('\\_SB_.AEU3', 20),
    cixDevice('\\_SB_.DPU4', 24, 25, 27, 28, 29),
    cixDevice('\\_SB_.AEU4', 26),
    cixDevice('\\_SB_.NPU0', 30),
    cixDevice('\\_SB_.ISPM', 31),
    cixDevice('\\_SB_.CBD0', 33),
    cixDevice('\\_SB_.CBD2', 34),
  ],
  reserved: [
    {
      iommu: 'smmu1',
      streamIds: [0, 1, 6, 7, 12, 13, 18, 19, 24, 25].map((base) => ({ base, count: 1 })),
      start: 0x8480_0000,
      length: 0x80_0000,
      flags: { remapPermitted: true, privileged: false, attributes: 4 },
    },
  ],
  unsupported: [],
  notes: [{ name: 'ITS group', count: 1, text: 'translates interrupts, not DMA' }],
};

const SERVER_4: MachineDescription = {
  iommus: [
    {
      name: 'smmu0',
      model: 'smmuv3',
      base: 0x1_0000_0000,
      coherent: true,
      interrupts: { event: 64, pri: 65, gerror: 66, sync: 67 },
      proximityDomain: 0,
    },
    {
      name: 'smmu1',
      model: 'smmuv3',
      base: 0x2_0000_0000,
      coherent: true,
      interrupts: { event: 72, pri: 73, gerror: 74, sync: 75 },
      proximityDomain: 1,
    },
    {
      name: 'smmu2',
      model: 'smmuv3',
      base: 0x3_0000_0000,
      coherent: true,
      interrupts: { event: 80, pri: 81, gerror: 82, sync: 83 },
      proximityDomain: 2,
    },
    {
      name: 'smmu3',
      model: 'smmuv3',
      base: 0x4_0000_0000,
      coherent: true,
      interrupts: { event: 88, pri: 89, gerror: 90, sync: 91 },
      proximityDomain: 3,
    },
  ],
  masters: [0, 1, 2, 3].map((segment) => ({
    kind: 'pci-root-complex',
    segment,
    ats: segment % 2 === 1,
    memoryAddressSize: 64,
    idMappings: [{ inputBase: 0, count: 0x1_0000, outputBase: 0, iommu: `smmu${segment}` }],
  })),
  reserved: [],
  unsupported: [],
  notes: [{ name: 'ITS group', count: 4, text: 'translates interrupts, not DMA' }],
};

/** By the name that `--topology` takes. Look names from outside up with `Object.hasOwn`. */
export const PRESETS: Record<string, MachineDescription> = {
  'cix-p1': CIX_P1,
  'server-4': SERVER_4,
};
