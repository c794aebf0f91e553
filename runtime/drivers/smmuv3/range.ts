/**
 * Splitting a page range into TLBI commands. With range invalidation (IDR3.RIL) one command covers
 * (NUM + 1) << SCALE pages, so a range takes one command for every five bits of its page count that are in
 * use; without, it takes one a page. [IHI0070] 4.4.1.
 *
 *   pages = 0b1_00011_0000000   ->   NUM 2 SCALE 7, then NUM 0 SCALE 12
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_cmdq_batch_add_range
 */
import { TG_4K, type TlbiRange } from '../../../hw/smmuv3/command.js';

/** From here on a range without RIL goes as one command for the whole tag. */
const MAX_SINGLE_COMMANDS = 512;
/** 2^31 pages are 8 TiB; SCALE has five bits and the page count is kept well inside them. */
const MAX_RANGE_PAGES = 2 ** 31;
const NUM_BITS = 5;
/** A range shorter than a level-2 block can only have held level-3 leaves. */
const BLOCK_PAGES = 512;
const LEAF_LEVEL = 3;

/** Whether to invalidate everything under the tag instead. */
export const tooBig = (pages: number, ranged: boolean): boolean =>
  pages >= (ranged ? MAX_RANGE_PAGES : MAX_SINGLE_COMMANDS);

/**
 * Calls `emit` for each command of [firstPage, firstPage + pages).
 * @param leaf  only last-level entries changed: no table was unlinked
 */
export function eachRange(
  firstPage: number,
  pages: number,
  leaf: boolean,
  ranged: boolean,
  emit: (page: number, range: TlbiRange | undefined) => void,
): void {
  if (!ranged) {
    for (let i = 0; i < pages; i++) emit(firstPage + i, undefined);
    return;
  }
  const ttl = leaf && pages < BLOCK_PAGES ? LEAF_LEVEL : 0;
  let left = pages;
  // TTL, NUM and SCALE all 0 is reserved: cover one page more instead.
  if (ttl === 0 && (left & 31) === 1) left++;
  for (let page = firstPage; left > 0; ) {
    const scale = 31 - Math.clz32(left & -left);
    const num = (left >>> scale) & (2 ** NUM_BITS - 1);
    emit(page, { num: num - 1, scale, tg: TG_4K, ttl });
    const covered = num * 2 ** scale;
    page += covered;
    left -= covered;
  }
}
