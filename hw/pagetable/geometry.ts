/**
 * Sizes and levels of AArch64 tables for each granule, stage 1 and 2. [DDI0487] D8.2, D8.3.
 *
 *   granule   bits a level   level 3   2        1        0          contiguous hint
 *   4 KiB     9              4 KiB     2 MiB    1 GiB    (512 GiB)  16 x 4 KiB, 16 x 2 MiB
 *   16 KiB    11             16 KiB    32 MiB   (64 GiB) (128 TiB)  128 x 16 KiB, 32 x 32 MiB
 *   64 KiB    13             64 KiB    512 MiB  4 TiB *             32 x 64 KiB, 32 x 512 MiB
 *
 * In parentheses: no leaf can stand there. * only with 52-bit addresses. The root may hold less than a table; in
 * stage 2 it may hold up to 16 tables side by side (concatenated), which saves a level.
 *
 * Not modelled: 52-bit addresses with the 4 and 16 KiB granules (LPA2), the hint at level 1.
 */

/** Log2 of the bytes of a granule. */
export type GranuleLg2 = 12 | 14 | 16;

/** Addresses of tables with a granule: 52 bits take 64 KiB. */
export const maxAddressBits = (granuleLg2: GranuleLg2): number => (granuleLg2 === 16 ? 52 : 48);

const bitsPerLevel = (granuleLg2: GranuleLg2): number => granuleLg2 - 3;

/** Log2 of the bytes that one entry at a level spans. */
export const levelShift = (level: number, granuleLg2: GranuleLg2): number =>
  granuleLg2 + bitsPerLevel(granuleLg2) * (3 - level);

/** Log2 of the entries of the root, concatenated tables included. */
const rootIndexBits = (inputBits: number, startLevel: number, granuleLg2: GranuleLg2): number =>
  inputBits - levelShift(startLevel, granuleLg2);

/** Bytes of a root, concatenation included, and its alignment: at least a 4 KiB frame. */
export function rootBytes(inputBits: number, startLevel: number, granuleLg2: GranuleLg2 = 12): number {
  return 8 * 2 ** Math.max(rootIndexBits(inputBits, startLevel, granuleLg2), 9);
}

/** Level at which a walk of this many bits begins when no tables are concatenated. */
export function firstLevel(inputBits: number, granuleLg2: GranuleLg2): number {
  return 4 - Math.ceil((inputBits - granuleLg2) / bitsPerLevel(granuleLg2));
}

/** Whether a walk of this many bits can begin at a level. */
export function canStart(
  stage: 1 | 2,
  inputBits: number,
  startLevel: number,
  granuleLg2: GranuleLg2,
): boolean {
  const lowest = granuleLg2 === 16 ? 1 : 0;
  const most = bitsPerLevel(granuleLg2) + (stage === 2 ? MAX_CONCATENATED_LG2 : 0);
  const bits = rootIndexBits(inputBits, startLevel, granuleLg2);
  return startLevel >= lowest && startLevel <= 3 && bits >= 1 && bits <= most;
}

/** Log2 of the tables that stage 2 looks up side by side in place of one more level. [DDI0487] D8.2.2 */
const MAX_CONCATENATED_LG2 = 4;

/**
 * Level at which stage 2 begins. The architecture demands concatenation in four cases, and only in those is it
 * used: 16 KiB and 48 bits (level 1, two tables), 40 bits (level 2, 16 tables); 4 KiB and 40 or 42 bits (level 1,
 * two or eight tables). [DDI0487] R_DXBSH, R_SRKBC
 * @source drivers/iommu/io-pgtable-arm.c arm_lpae_concat_mandatory
 */
export function stage2StartLevel(inputBits: number, outputBits: number, granuleLg2: GranuleLg2): number {
  const level = firstLevel(inputBits, granuleLg2);
  const mandatory =
    granuleLg2 === 14
      ? (level === 0 && (outputBits === 48 || inputBits === 48)) || (level === 1 && outputBits === 40)
      : granuleLg2 === 12 && level === 0 && (outputBits === 40 || outputBits === 42);
  return mandatory ? level + 1 : level;
}

/** Log2 of each leaf size, ascending. */
export function leafSizesLg2(granuleLg2: GranuleLg2, outputBits: number): readonly number[] {
  if (granuleLg2 === 12) return [12, 21, 30];
  if (granuleLg2 === 14) return [14, 25];
  return outputBits > 48 ? [16, 29, 42] : [16, 29];
}

/** Log2 of how many neighbours the contiguous hint joins at a level; 0 where this model has no hint. */
export function contiguousLg2(level: number, granuleLg2: GranuleLg2): number {
  if (level < 2) return 0;
  if (granuleLg2 === 12) return 4;
  return granuleLg2 === 14 && level === 3 ? 7 : 5;
}
