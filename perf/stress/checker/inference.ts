/**
 * The last line of a story: what its facts imply about the cause, if they do. Ticks are machine-wide logical
 * time. A correct machine goes through
 *
 *   TLBI consumed < SYNC fetched < every DMA that began before has ended < SYNC completed < frame freed
 *
 * and each inference is one of these that the facts show to be broken. Where a fact is missing nothing is said.
 */
import { COMMAND_NAMES } from '../../../hw/smmuv3/command.js';
import { covers, type EntryTag, overlaps, tlbiOf } from './consumed-command.js';
import type { CommandSeen } from './trace-reader.js';

/** One use of a translation. */
export interface UseTicks {
  /** The device had not begun to translate before. */
  readonly began: number;
  /** Every tick from this one on came when the device had its address already. */
  readonly translated: number;
  /** The address was still in use. */
  readonly judged: number;
}

/** The invalidation of one SMMU, with its SYNC. */
export interface InvalidationFacts {
  readonly tickIssued: number;
  readonly tickDone: number;
  /** When the SMMU fetched the SYNC, and when it completed it; null when the trace does not say. */
  readonly syncFetched: number | null;
  readonly syncCompleted: number | null;
  /** Of a host invalidation: its first command and range. Null for a guest's. */
  readonly sent: { readonly command: string; readonly firstPage: number; readonly pages: number } | null;
  /** What the SMMU consumed from tickIssued to tickDone. */
  readonly consumed: readonly CommandSeen[];
}

export interface Facts {
  readonly iommu: string;
  readonly invalidation: InvalidationFacts | null;
  /** The IOTLB entry the translation came from. */
  readonly entry: EntryTag | null;
  /** When that entry was made. */
  readonly walkTick: number | null;
  /** When the frame was given up. */
  readonly freedTick: number | null;
  /** The DMA; null when the story has none. */
  readonly use: UseTicks | null;
  /** The entry was seen in the IOTLB after this tick. */
  readonly seenTick: number | null;
}

export function infer(facts: Facts): string | null {
  const { invalidation } = facts;
  if (invalidation === null) return null;
  if (freedEarly(invalidation, facts.freedTick)) return 'the frame was freed before the SYNC had completed';
  return ofEntry(facts, invalidation) ?? ofSync(invalidation, facts.use);
}

function freedEarly({ syncCompleted, tickIssued }: InvalidationFacts, freed: number | null): boolean {
  return freed !== null && freed < (syncCompleted ?? tickIssued);
}

/** The entry outlived its invalidation: because that named another tag, or although it named this one. */
function ofEntry(facts: Facts, invalidation: InvalidationFacts): string | null {
  const { entry, walkTick, iommu } = facts;
  if (entry === null) return null;
  const { consumed, sent } = invalidation;
  const tlbis = consumed.flatMap((command) => {
    const tlbi = tlbiOf(command);
    return tlbi === null ? [] : [{ tlbi, tick: command.tick }];
  });
  const covering = tlbis.findLast(({ tlbi }) => covers(tlbi, entry));
  if (covering === undefined) {
    const other = tlbis.find(
      ({ tlbi }) =>
        sent !== null &&
        COMMAND_NAMES[tlbi.opcode] === sent.command &&
        overlaps(tlbi, sent.firstPage, sent.pages),
    )?.tlbi;
    if (other === undefined) return null;
    if (other.vmid !== null && other.vmid !== entry.vmid)
      return `the invalidation named VMID ${other.vmid}, the translation carries VMID ${entry.vmid}`;
    if (other.asid !== null && other.asid !== entry.asid && !entry.global)
      return `the invalidation named ASID ${other.asid}, the translation carries ASID ${entry.asid}`;
    return null;
  }
  // Made again after the invalidation: that one is not to blame.
  if (walkTick === null || walkTick > covering.tick) return null;
  const { syncFetched, syncCompleted, tickDone } = invalidation;
  // What comes after the TLBI in the queue was fetched when the TLBI had been executed.
  const executed = syncFetched ?? syncCompleted ?? tickDone;
  if (facts.use !== null && facts.use.began > executed)
    return `${iommu} consumed the invalidation but went on using the entry`;
  if (facts.seenTick !== null && facts.seenTick > executed)
    return `${iommu} consumed the invalidation but kept the entry`;
  return null;
}

/** The SYNC did not wait for a DMA that was under way. */
function ofSync(invalidation: InvalidationFacts, use: UseTicks | null): string | null {
  if (use === null) return null;
  const { syncFetched, syncCompleted, tickIssued, tickDone } = invalidation;
  const completed = syncCompleted ?? tickDone;
  // One that began after the SYNC was fetched need not be waited for; without a trace, after it was issued.
  const held = syncFetched === null ? use.translated <= tickIssued : use.began < syncFetched;
  return held && completed < use.judged ? 'the SYNC completed while this DMA was under way' : null;
}
