/**
 * What the facts of an R2 story imply. A correct driver goes through
 *
 *   TLBI consumed < its SYNC completed < ATC_INV consumed < its SYNC completed < frame freed
 *
 * because a device may ask again for what its ATC just lost, and must not be answered from the IOTLB then.
 */
import { CMD_ATC, CMD_ATC_INV } from '../../../hw/smmuv3/command.js';
import { tlbiOf } from './consumed-command.js';
import type { InvalidationFacts } from './inference.js';
import type { CommandSeen } from './trace-reader.js';

export interface AtcFacts {
  readonly iommu: string;
  readonly sid: number;
  /** The invalidation of the SMMU's own caches, with its SYNC. */
  readonly tlbi: InvalidationFacts | null;
  /** That of the device's ATC. Null: the driver issued none. A guest's is one with the TLBI's. */
  readonly atc: InvalidationFacts | null;
  /** When the translation was walked. */
  readonly walkTick: number | null;
}

export function inferAtc({ iommu, sid, tlbi, atc, walkTick }: AtcFacts): string | null {
  if (tlbi === null) return null;
  const stream = `0x${sid.toString(16)}`;
  if (atc === null) return `no CMD_ATC_INV was issued for stream ${stream}`;
  const tlbis = tlbi.consumed.filter((command) => tlbiOf(command) !== null);
  const last = tlbis.at(-1);
  // Nothing left in the trace to judge by.
  if (last === undefined) return null;
  const taken = atc.consumed.filter((command) => names(command, sid)).at(-1);
  if (taken === undefined) return atc === tlbi ? `no CMD_ATC_INV was issued for stream ${stream}` : null;
  const done = atc === tlbi ? last.tick : (tlbi.syncCompleted ?? last.tick);
  if (taken.tick < done)
    return 'CMD_ATC_INV was consumed before the SYNC of the TLBI had completed: the device asked again, and was answered from the IOTLB';
  if (walkTick === null || walkTick > taken.tick) return null;
  return `${iommu} consumed CMD_ATC_INV after the TLBI, but the ATC has a translation that is older`;
}

function names({ opcode, words }: CommandSeen, sid: number): boolean {
  return opcode === CMD_ATC_INV && CMD_ATC.StreamID.get(Uint32Array.from(words)) >>> 0 === sid;
}
