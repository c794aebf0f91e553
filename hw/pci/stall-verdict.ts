/**
 * The device's side of a stall: what the SMMU's software decided about the transaction that a STAG names.
 * [IHI0070] 3.12.2, hw/iotlb/port-layout.ts `verdicts`.
 */
import { STALL_TAGS, VERDICT_NONE, VERDICT_RAZ_WI, VERDICT_RETRY } from '../iotlb/port-layout.js';

const INDEX_BITS = Math.log2(STALL_TAGS);
const USES = 0xffff >>> INDEX_BITS;
const VERDICT_BITS = 8;

/**
 * @param word  of the port's `verdicts`, at the STAG's index
 * @returns VERDICT_*. A word of a later use of the same index means that this one was overwritten before anyone
 *          looked: to send the transaction again is then always right.
 */
export function verdictIn(word: number, stag: number): number {
  const verdict = word & (2 ** VERDICT_BITS - 1);
  const age = (((word >>> VERDICT_BITS) >>> INDEX_BITS) - (stag >>> INDEX_BITS)) & USES;
  if (verdict === VERDICT_NONE || age > USES >>> 1) return VERDICT_NONE;
  return age === 0 && verdict <= VERDICT_RAZ_WI ? verdict : VERDICT_RETRY;
}
