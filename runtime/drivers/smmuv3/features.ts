/**
 * What an SMMU can do, read from its identification registers. [IHI0070] 6.3.1 to 6.3.8.
 *
 * Refused: embedded implementations (preset tables or queues), AArch32-only tables, big-endian tables, no
 * granule at all, a command queue that cannot hold a batch. Read and left alone, as Linux 7.0 does: broadcast TLB
 * maintenance (BTM), and substreams and 52-bit input addresses, of which GET_HW_INFO tells.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_device_hw_probe
 */
import { type GranuleLg2, maxAddressBits } from '../../../hw/pagetable/geometry.js';
import {
  AIDR,
  IDR0,
  IDR1,
  IDR2,
  IDR3,
  IDR4,
  IDR5,
  IIDR,
  TTENDIAN_LITTLE,
  TTF_AARCH64,
} from '../../../hw/smmuv3/registers.js';
import { ADDRESS_BITS } from '../../../hw/smmuv3/ste.js';
import { ENXIO } from '../../../uapi/abi/errno.js';

export interface SmmuFeatures {
  readonly stage1: boolean;
  readonly stage2: boolean;
  readonly twoLevelStreamTable: boolean;
  readonly twoLevelCdTable: boolean;
  /** Range invalidation. */
  readonly ranged: boolean;
  readonly s2fwb: boolean;
  readonly attrTypesOvr: boolean;
  /** Coherent table walks and queue accesses. */
  readonly coherent: boolean;
  readonly msi: boolean;
  readonly sev: boolean;
  readonly ats: boolean;
  readonly pri: boolean;
  /** Transactions can stall; with `stallForce` every fault does that can. */
  readonly stalls: boolean;
  readonly stallForce: boolean;
  /** IDR5.STALL_MAX: stalls that may be outstanding. */
  readonly stallMax: number;
  /** Hardware update of the Access flag, and of dirty state. */
  readonly httuAccess: boolean;
  readonly httuDirty: boolean;
  /** EL2 exists, and the host runs there with the Virtualization Host Extensions: its stage 1 is EL2-E2H. */
  readonly hyp: boolean;
  readonly e2h: boolean;
  readonly btm: boolean;
  /** IDR3.BBML: 2 allows to change the size of a leaf in place. */
  readonly bbml: number;
  /** 52-bit input addresses (IDR5.VAX). */
  readonly vax: boolean;
  /** log2 of the translation granules, ascending: tables use the first, which is 4 KiB where there is a choice. */
  readonly granulesLg2: readonly GranuleLg2[];
  readonly asidBits: number;
  readonly vmidBits: number;
  readonly sidBits: number;
  readonly ssidBits: number;
  /** Encoded as in IDR5.OAS, and in bits. */
  readonly oas: number;
  readonly oasBits: number;
  readonly cmdqLg2: number;
  readonly evtqLg2: number;
  readonly priqLg2: number;
  /** As GET_HW_INFO reports them. */
  readonly idr: readonly number[];
  readonly iidr: number;
  readonly aidr: number;
}

/** log2 of BATCH_ENTRIES: a queue must be larger. */
const MIN_CMDQ_LG2 = 6;
const STRTAB_SPLIT = 8;
/** IDR0.STALL_MODEL: faults always stall. 0 leaves it to STE and CD. */
const STALL_MODEL_FORCE = 2;
const STALL_MODEL_OPTIONAL = 0;
/** IDR0.HTTU. */
const HTTU_ACCESS = 1;
const HTTU_ACCESS_DIRTY = 2;
const VAX_52_BIT = 1;

/**
 * @param vhe  whether the host's kernel runs at EL2 (ARM64_HAS_VIRT_HOST_EXTN)
 * @returns features, or -ENXIO when this driver cannot drive the SMMU
 */
export function probeFeatures(
  registers: { read32(offset: number): number },
  vhe = true,
): SmmuFeatures | number {
  const idr = [IDR0, IDR1, IDR2, IDR3, IDR4, IDR5].map((reg) => registers.read32(reg.offset));
  const [idr0, idr1, , idr3, , idr5] = idr as [number, number, number, number, number, number];

  const mixed = 0;
  const endian = IDR0.TTENDIAN.get(idr0);
  if (endian !== TTENDIAN_LITTLE && endian !== mixed) return -ENXIO;
  if (IDR0.S1P.get(idr0) === 0 && IDR0.S2P.get(idr0) === 0) return -ENXIO;
  if ((IDR0.TTF.get(idr0) & TTF_AARCH64) === 0) return -ENXIO;
  if (IDR1.TABLES_PRESET.get(idr1) || IDR1.QUEUES_PRESET.get(idr1) || IDR1.REL.get(idr1)) return -ENXIO;
  if (IDR1.CMDQS.get(idr1) <= MIN_CMDQ_LG2) return -ENXIO;
  const granulesLg2: GranuleLg2[] = [
    ...(IDR5.GRAN4K.get(idr5) ? ([12] as const) : []),
    ...(IDR5.GRAN16K.get(idr5) ? ([14] as const) : []),
    ...(IDR5.GRAN64K.get(idr5) ? ([16] as const) : []),
  ];
  if (granulesLg2.length === 0) return -ENXIO;

  const stallModel = IDR0.STALL_MODEL.get(idr0);
  const httu = IDR0.HTTU.get(idr0);
  const hyp = IDR0.Hyp.get(idr0) === 1;
  const sidBits = IDR1.SIDSIZE.get(idr1);
  // Encodings from 6 on mean 52 bits or more, which only tables with the 64 KiB granule reach (there is no LPA2
  // here): those of an SMMU without a smaller one, as the smallest is the one that is used.
  const oas = Math.min(IDR5.OAS.get(idr5), ADDRESS_BITS.indexOf(maxAddressBits(granulesLg2[0]!)));
  return {
    stage1: IDR0.S1P.get(idr0) === 1,
    stage2: IDR0.S2P.get(idr0) === 1,
    twoLevelStreamTable: IDR0.ST_LEVEL.get(idr0) === 1 && sidBits > STRTAB_SPLIT,
    twoLevelCdTable: IDR0.CD2L.get(idr0) === 1,
    ranged: IDR3.RIL.get(idr3) === 1,
    s2fwb: IDR3.FWB.get(idr3) === 1,
    attrTypesOvr: IDR1.ATTR_TYPES_OVR.get(idr1) === 1,
    coherent: IDR0.COHACC.get(idr0) === 1,
    msi: IDR0.MSI.get(idr0) === 1,
    sev: IDR0.SEV.get(idr0) === 1,
    ats: IDR0.ATS.get(idr0) === 1,
    pri: IDR0.PRI.get(idr0) === 1,
    stalls: stallModel === STALL_MODEL_OPTIONAL || stallModel === STALL_MODEL_FORCE,
    stallForce: stallModel === STALL_MODEL_FORCE,
    stallMax: IDR5.STALL_MAX.get(idr5),
    httuAccess: httu === HTTU_ACCESS || httu === HTTU_ACCESS_DIRTY,
    httuDirty: httu === HTTU_ACCESS_DIRTY,
    hyp,
    e2h: hyp && vhe,
    btm: IDR0.BTM.get(idr0) === 1,
    bbml: IDR3.BBML.get(idr3),
    vax: IDR5.VAX.get(idr5) === VAX_52_BIT,
    granulesLg2,
    asidBits: IDR0.ASID16.get(idr0) === 1 ? 16 : 8,
    vmidBits: IDR0.VMID16.get(idr0) === 1 ? 16 : 8,
    sidBits,
    ssidBits: IDR1.SSIDSIZE.get(idr1),
    oas,
    oasBits: ADDRESS_BITS[oas]!,
    cmdqLg2: IDR1.CMDQS.get(idr1),
    evtqLg2: IDR1.EVENTQS.get(idr1),
    priqLg2: IDR1.PRIQS.get(idr1),
    idr,
    iidr: registers.read32(IIDR.offset),
    aidr: registers.read32(AIDR.offset),
  };
}

/** Both stages: what nesting takes. */
export const canNest = (features: SmmuFeatures): boolean => features.stage1 && features.stage2;
