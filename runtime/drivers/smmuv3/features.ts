/**
 * What an SMMU can do, read from its identification registers. [IHI0070] 6.3.1 to 6.3.8.
 *
 * Refused: embedded implementations (preset tables or queues), AArch32-only tables, big-endian tables, no 4 KiB
 * granule, a command queue that cannot hold a batch. Ignored though reported: ATS, PRI, stalls, HTTU,
 * substreams, broadcast TLB maintenance; this driver uses none of them.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_device_hw_probe
 */
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
  /** Range invalidation. */
  readonly ranged: boolean;
  readonly s2fwb: boolean;
  readonly attrTypesOvr: boolean;
  /** Coherent table walks and queue accesses. */
  readonly coherent: boolean;
  readonly msi: boolean;
  readonly asidBits: number;
  readonly vmidBits: number;
  readonly sidBits: number;
  /** Encoded as in IDR5.OAS, and in bits. */
  readonly oas: number;
  readonly oasBits: number;
  readonly cmdqLg2: number;
  readonly evtqLg2: number;
  /** As GET_HW_INFO reports them. */
  readonly idr: readonly number[];
  readonly iidr: number;
  readonly aidr: number;
}

/** log2 of BATCH_ENTRIES: a queue must be larger. */
const MIN_CMDQ_LG2 = 6;
const STRTAB_SPLIT = 8;

/** @returns features, or -ENXIO when this driver cannot drive the SMMU */
export function probeFeatures(registers: { read32(offset: number): number }): SmmuFeatures | number {
  const idr = [IDR0, IDR1, IDR2, IDR3, IDR4, IDR5].map((reg) => registers.read32(reg.offset));
  const [idr0, idr1, , idr3, , idr5] = idr as [number, number, number, number, number, number];

  const mixed = 0;
  const endian = IDR0.TTENDIAN.get(idr0);
  if (endian !== TTENDIAN_LITTLE && endian !== mixed) return -ENXIO;
  if (IDR0.S1P.get(idr0) === 0 && IDR0.S2P.get(idr0) === 0) return -ENXIO;
  if ((IDR0.TTF.get(idr0) & TTF_AARCH64) === 0) return -ENXIO;
  if (IDR1.TABLES_PRESET.get(idr1) || IDR1.QUEUES_PRESET.get(idr1) || IDR1.REL.get(idr1)) return -ENXIO;
  if (IDR1.CMDQS.get(idr1) <= MIN_CMDQ_LG2) return -ENXIO;
  if (IDR5.GRAN4K.get(idr5) === 0) return -ENXIO;

  const sidBits = IDR1.SIDSIZE.get(idr1);
  // Encodings from 6 on mean 52 bits or more, which tables with the 4 KiB granule reach only with LPA2.
  const oas = Math.min(IDR5.OAS.get(idr5), ADDRESS_BITS.indexOf(48));
  return {
    stage1: IDR0.S1P.get(idr0) === 1,
    stage2: IDR0.S2P.get(idr0) === 1,
    twoLevelStreamTable: IDR0.ST_LEVEL.get(idr0) === 1 && sidBits > STRTAB_SPLIT,
    ranged: IDR3.RIL.get(idr3) === 1,
    s2fwb: IDR3.FWB.get(idr3) === 1,
    attrTypesOvr: IDR1.ATTR_TYPES_OVR.get(idr1) === 1,
    coherent: IDR0.COHACC.get(idr0) === 1,
    msi: IDR0.MSI.get(idr0) === 1,
    asidBits: IDR0.ASID16.get(idr0) === 1 ? 16 : 8,
    vmidBits: IDR0.VMID16.get(idr0) === 1 ? 16 : 8,
    sidBits,
    oas,
    oasBits: ADDRESS_BITS[oas]!,
    cmdqLg2: IDR1.CMDQS.get(idr1),
    evtqLg2: IDR1.EVENTQS.get(idr1),
    idr,
    iidr: registers.read32(IIDR.offset),
    aidr: registers.read32(AIDR.offset),
  };
}

/** Both stages: what nesting takes. */
export const canNest = (features: SmmuFeatures): boolean => features.stage1 && features.stage2;
