/**
 * ATC_INV: which part of a device's ATC a change of tables takes away. [IHI0070] 4.5.1.
 *
 * A range is a power of two of 4 KiB pages, aligned to itself, whatever the granule of the tables. One command
 * covers any range, at worst far too much:
 *
 *   pages  8..11   ->   8..11  (Size 2)          pages 7..10   ->   0..15  (Size 4)
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_atc_inv_to_cmd
 */

/** In place of a SubstreamID: an ATC_INV of whatever was requested, with one or without. */
export const ANY_SSID = -1;

/** Size of an ATC_INV that covers every address. */
export const ATC_INV_ALL = 52;

/** Pages in 4 KiB, `pages` > 0. @returns the smallest aligned power of two of pages that covers them */
export function atcSpan(firstPage: number, pages: number): { page: number; sizeLg2: number } {
  const lastPage = firstPage + pages - 1;
  let sizeLg2 = 0;
  while (Math.floor(firstPage / 2 ** sizeLg2) !== Math.floor(lastPage / 2 ** sizeLg2)) sizeLg2++;
  return { page: Math.floor(firstPage / 2 ** sizeLg2) * 2 ** sizeLg2, sizeLg2 };
}
