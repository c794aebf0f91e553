/**
 * Splitting a page range into TLBI commands. With range invalidation (IDR3.RIL) one command covers
 * (NUM + 1) << SCALE granules, so a range takes one command for every five bits of its granule count that are in
 * use; without, it takes one a granule. [IHI0070] 4.4.1.
 *
 *   granules = 0b1_00011_0000000   ->   NUM 2 SCALE 7, then NUM 0 SCALE 12
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_cmdq_batch_add_range
 */
import type { GranuleLg2 } from '../../../hw/pagetable/geometry.js';
import { TG_4K, TG_16K, TG_64K, type TlbiRange } from '../../../hw/smmuv3/command.js';

const TG: Readonly<Record<GranuleLg2, number>> = { 12: TG_4K, 14: TG_16K, 16: TG_64K };
/** 2^31 granules are 8 TiB and more; SCALE has five bits and the count is kept well inside them. */
const MAX_RANGE_GRANULES = 2 ** 31;
const NUM_BITS = 5;
const PAGE_LG2 = 12;
const LEAF_LEVEL = 3;

/** Entries of a table, and granules that a level-2 block spans. */
const tableEntries = (granuleLg2: GranuleLg2): number => 1 << (granuleLg2 - 3);

const granulesIn = (pages: number, granuleLg2: GranuleLg2): number =>
  Math.ceil(pages / (1 << (granuleLg2 - PAGE_LG2)));

/** Whether to invalidate everything under the tag instead: without RIL, from a table's worth of entries on. */
export const tooBig = (pages: number, ranged: boolean, granuleLg2: GranuleLg2 = 12): boolean =>
  granulesIn(pages, granuleLg2) >= (ranged ? MAX_RANGE_GRANULES : tableEntries(granuleLg2));

/**
 * Calls `emit` for each command of [firstPage, firstPage + pages), both in 4 KiB and whole granules.
 * @param leaf  only last-level entries changed: no table was unlinked
 */
export function eachRange(
  firstPage: number,
  pages: number,
  leaf: boolean,
  ranged: boolean,
  emit: (page: number, range: TlbiRange | undefined) => void,
  granuleLg2: GranuleLg2 = 12,
): void {
  const granulePages = 2 ** (granuleLg2 - PAGE_LG2);
  let left = granulesIn(pages, granuleLg2);
  if (!ranged) {
    for (let i = 0; i < left; i++) emit(firstPage + i * granulePages, undefined);
    return;
  }
  // A range shorter than a level-2 block can only have held level-3 leaves.
  const ttl = leaf && left < tableEntries(granuleLg2) ? LEAF_LEVEL : 0;
  // TTL, NUM and SCALE all 0 is reserved: cover one granule more instead.
  if (ttl === 0 && (left & 31) === 1) left++;
  for (let page = firstPage; left > 0; ) {
    const scale = 31 - Math.clz32(left & -left);
    const num = (left >>> scale) & (2 ** NUM_BITS - 1);
    emit(page, { num: num - 1, scale, tg: TG[granuleLg2], ttl });
    const covered = num * 2 ** scale;
    page += covered * granulePages;
    left -= covered;
  }
}
