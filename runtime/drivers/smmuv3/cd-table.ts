/**
 * The table of Context Descriptors of one device: one CD for each SubstreamID it may use, 0 for what comes without.
 * [IHI0070] 3.3.2, 5.3. Linear up to 1024 CDs, or where the SMMU has no two-level tables; else
 *
 *   L1 table, 2^(bits - 10) descriptors --> 64 KiB of 1024 CDs, made when one of them is wanted
 *
 * Nothing of it is given back while the machine lives: the device may come again.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_alloc_cd_tables, arm_smmu_alloc_cd_ptr
 */
import type { FrameAllocator } from '../../../hw/memory/frame-allocator.js';
import { FRAME_BYTES, FRAME_LG2 } from '../../../hw/memory/frames-layout.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { getQuad } from '../../../hw/smmuv3/bitfield.js';
import { CD_BYTES, L1CD, L1CD_BYTES } from '../../../hw/smmuv3/cd.js';
import { S1FMT_64K_L2, S1FMT_LINEAR } from '../../../hw/smmuv3/ste.js';
import { ENOMEM } from '../../../uapi/abi/errno.js';

/** log2 of the CDs in a leaf; without two levels there are no more (CTXDESC_LINEAR_CDMAX). */
export const LEAF_CDS_LG2 = 10;
const LEAF_BYTES = CD_BYTES * 2 ** LEAF_CDS_LG2;

/** What an STE says of the table. */
export interface CdTableShape {
  /** PA, bytes. */
  readonly base: number;
  readonly s1Fmt: number;
  readonly s1CdMax: number;
}

export interface CdTableResources {
  readonly memory: MachineMemory;
  readonly frames: FrameAllocator;
}

export class CdTable implements CdTableShape {
  readonly base: number;
  readonly s1Fmt: number;
  readonly s1CdMax: number;
  readonly #resources: CdTableResources;
  /** PA of each leaf that is there, by index in the L1 table. */
  readonly #leaves = new Map<number, number>();

  private constructor(resources: CdTableResources, ssidBits: number, base: number, twoLevel: boolean) {
    this.#resources = resources;
    this.base = base;
    this.s1CdMax = ssidBits;
    this.s1Fmt = twoLevel ? S1FMT_64K_L2 : S1FMT_LINEAR;
  }

  /** @param ssidBits  0 is a table of one CD. @returns a table without a valid CD | -ENOMEM */
  static create(resources: CdTableResources, ssidBits: number): CdTable | number {
    const twoLevel = ssidBits > LEAF_CDS_LG2;
    const bytes = twoLevel ? L1CD_BYTES * 2 ** (ssidBits - LEAF_CDS_LG2) : CD_BYTES * 2 ** ssidBits;
    const base = allocZeroed(resources, bytes);
    return base < 0 ? base : new CdTable(resources, ssidBits, base, twoLevel);
  }

  /**
   * Linear offset of a CD, making its leaf.
   * @param ssid      < 2^s1CdMax
   * @param tellSmmu  an L1 descriptor that was not valid may be cached
   * @returns offset | -ENOMEM
   */
  ensure(ssid: number, tellSmmu: () => void): number {
    const found = this.at(ssid);
    if (found >= 0) return found;
    const leaf = allocZeroed(this.#resources, LEAF_BYTES);
    if (leaf < 0) return leaf;
    const index = ssid >> LEAF_CDS_LG2;
    const descriptor = new Uint32Array(2);
    L1CD.V.put(descriptor, 1);
    L1CD.L2Ptr.put(descriptor, leaf);
    const { memory } = this.#resources;
    // No CD is valid before the descriptor, a single 64-bit store, lets the SMMU see them.
    memory.words.dmaWmb();
    memory.words.store64(memory.linearOf(this.base + index * L1CD_BYTES, L1CD_BYTES), getQuad(descriptor, 0));
    this.#leaves.set(index, leaf);
    tellSmmu();
    return this.at(ssid);
  }

  /** Linear offset of a CD, -1 when its leaf is not there. */
  at(ssid: number): number {
    const { memory } = this.#resources;
    if (this.s1Fmt === S1FMT_LINEAR) return memory.linearOf(this.base + ssid * CD_BYTES, CD_BYTES);
    const leaf = this.#leaves.get(ssid >> LEAF_CDS_LG2);
    if (leaf === undefined) return -1;
    return memory.linearOf(leaf + (ssid % 2 ** LEAF_CDS_LG2) * CD_BYTES, CD_BYTES);
  }
}

/** @returns byte PA, aligned to its size | -ENOMEM */
function allocZeroed({ frames }: CdTableResources, bytes: number): number {
  const lg2 = Math.max(FRAME_LG2, Math.ceil(Math.log2(bytes)));
  const pfn = frames.alloc(lg2);
  if (pfn < 0) return -ENOMEM;
  frames.zero(pfn, 2 ** (lg2 - FRAME_LG2));
  return pfn * FRAME_BYTES;
}
