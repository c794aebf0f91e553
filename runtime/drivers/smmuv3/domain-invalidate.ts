/**
 * After entries of a domain's table were cleared: invalidating them on every SMMU that may hold them, then in
 * every ATC that may. All SMMUs get their commands first and are then waited for one by one, so that they work
 * at the same time.
 *
 *   TLBI ... SYNC on each SMMU, all waited for -> ATC_INV ... SYNC on each SMMU, all waited for
 *
 * Two deliberate defects (RuntimeBugs, and of the zoo) break this on one SMMU: no ATC_INV at all, or ATC_INV and its SYNC first.
 *
 * An ATC invalidation that times out is acknowledged as Linux does (gerror.ts), and its SYNC then completes. Linux
 * goes on as if the ATC were clean; here the round ends in -ETIMEDOUT, so that the caller can tell.
 *
 * Linux waits once more between the stage-2 invalidations and the clearing of nested stage-1 entries, because
 * TLBIs before a SYNC may complete in any order; here one SYNC covers both, as this SMMU executes TLBIs in
 * the order of the queue.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c __arm_smmu_domain_inv_range
 */

import type { GranuleLg2 } from '../../../hw/pagetable/geometry.js';
import {
  CMD_ATC_INV,
  CMD_TLBI_EL2_ASID,
  CMD_TLBI_EL2_VA,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_S2_IPA,
  CMD_TLBI_S12_VMALL,
  COMMAND_NAMES,
  encodeAtcInv,
  encodeTlbi,
  encodeTlbiAddress,
  type TlbiRange,
} from '../../../hw/smmuv3/command.js';
import { ETIMEDOUT } from '../../../uapi/abi/errno.js';
import type { InvalidationNote } from '../contract.js';
import { ANY_SSID, ATC_INV_ALL, atcSpan } from './atc.js';
import { ATS_FULL, type Inv, isAts, S1_ASID, S2_VMID_VSMMU } from './invs.js';
import { eachRange, tooBig } from './range.js';
import type { SmmuDevice } from './smmu-device.js';

export interface PageRange {
  readonly firstPage: number;
  readonly pages: number;
  /** Only last-level entries changed. */
  readonly leaf: boolean;
  /** Of the table: addresses and lengths are whole granules. 4 KiB when absent. */
  readonly granuleLg2?: GranuleLg2;
}

/** The commands of one SMMU on their way. */
interface Trip {
  readonly smmu: SmmuDevice;
  /** Of its SYNC, or -errno when the commands did not even fit. */
  readonly ticket: number;
  readonly tickIssued: number;
  readonly issuedNs: number;
  /** Timeouts of ATC invalidations of this SMMU before it. */
  readonly atcTimeouts: number;
  /** Range of the invs it covers. */
  readonly first: number;
  readonly end: number;
}

/**
 * @param notes  one is added for each tag, when given
 * @param tick   machine-wide logical time
 * @returns 0 | -ETIMEDOUT when an SMMU did not answer; the others are done all the same
 */
export function invalidateRange(
  invs: readonly Inv<SmmuDevice>[],
  range: PageRange,
  notes: InvalidationNote[] | null,
  tick: () => number,
): number {
  // One tag and nobody to explain it to: by far the commonest.
  if (invs.length === 1 && notes === null && !isAts(invs[0]!.type)) {
    const { smmu } = invs[0]!;
    addCommands(invs[0]!, range);
    const ticket = smmu.batch.submit();
    return ticket < 0 ? ticket : smmu.queue.wait(ticket);
  }
  if (!invs.some(({ type }) => isAts(type))) return round(invs, range, notes, tick, ofTlb);
  const early = round(invs, range, notes, tick, ofAtcTooEarly);
  const tlb = round(invs, range, notes, tick, ofTlb);
  const atc = round(invs, range, notes, tick, ofAtc);
  return early < 0 ? early : tlb < 0 ? tlb : atc;
}

const ofTlb = ({ type }: Inv<SmmuDevice>): boolean => !isAts(type);
const ofAtc = ({ type, smmu }: Inv<SmmuDevice>): boolean =>
  isAts(type) && !smmu.skipAtcInv && !smmu.atcBeforeTlbi;
const ofAtcTooEarly = ({ type, smmu }: Inv<SmmuDevice>): boolean =>
  isAts(type) && !smmu.skipAtcInv && smmu.atcBeforeTlbi;

/** @param wanted  which of the invs it is about: of one SMMU, those about ATCs or those about its own caches */
function round(
  invs: readonly Inv<SmmuDevice>[],
  range: PageRange,
  notes: InvalidationNote[] | null,
  tick: () => number,
  wanted: (inv: Inv<SmmuDevice>) => boolean,
): number {
  const trips: Trip[] = [];
  let status = 0;
  for (let first = 0; first < invs.length; ) {
    const { smmu, type } = invs[first]!;
    if (!wanted(invs[first]!)) {
      first++;
      continue;
    }
    const atcTimeouts = isAts(type) ? smmu.queue.atcTimeouts : 0;
    const tickIssued = notes === null ? 0 : tick();
    const issuedNs = notes === null ? 0 : smmu.queue.nowNs();
    const onlyFirst = !isAts(type) && smmu.bugs['s2-unmap-skips-a-vmid'];
    let end = first;
    for (; end < invs.length && invs[end]!.smmu === smmu && wanted(invs[end]!); end++)
      if (end === first || !onlyFirst) addCommands(invs[end]!, range);
    trips.push({ smmu, ticket: smmu.batch.submit(), tickIssued, issuedNs, atcTimeouts, first, end });
    first = end;
  }
  for (const { smmu, ticket, tickIssued, issuedNs, atcTimeouts, first, end } of trips) {
    let waited = ticket < 0 ? ticket : smmu.queue.wait(ticket);
    // Which ATC_INV it was nobody says: with several outstanding, all of them count as failed.
    const counts = isAts(invs[first]!.type) && !smmu.bugs['device-never-answers-atc-inv'];
    if (counts && waited === 0 && smmu.queue.atcTimeouts !== atcTimeouts) waited = -ETIMEDOUT;
    if (waited < 0) status = waited;
    if (notes === null) continue;
    const tickDone = tick();
    const durationNs = smmu.queue.nowNs() - issuedNs;
    for (const inv of invs.slice(first, end)) {
      const whole = inv.type === ATS_FULL;
      notes.push({
        iommu: smmu.index,
        tag: inv.id,
        command: COMMAND_NAMES[opcodeFor(inv, range)]!,
        firstPage: whole ? 0 : range.firstPage,
        pages: whole ? 2 ** ATC_INV_ALL : range.pages,
        syncIndex: ticket,
        tickIssued,
        tickDone,
        durationNs,
        failed: waited < 0,
      });
    }
  }
  return status;
}

function opcodeFor({ type, smmu }: Inv<SmmuDevice>, { pages, granuleLg2 }: PageRange): number {
  if (isAts(type)) return CMD_ATC_INV;
  const { ranged, e2h } = smmu.features;
  if (tooBig(pages, ranged, granuleLg2))
    return type !== S1_ASID ? CMD_TLBI_S12_VMALL : e2h ? CMD_TLBI_EL2_ASID : CMD_TLBI_NH_ASID;
  return type !== S1_ASID ? CMD_TLBI_S2_IPA : e2h ? CMD_TLBI_EL2_VA : CMD_TLBI_NH_VA;
}

function addCommands(inv: Inv<SmmuDevice>, range: PageRange): void {
  const { smmu, type, id } = inv;
  if (isAts(type)) {
    const whole = type === ATS_FULL;
    const { page, sizeLg2 } = whole
      ? { page: 0, sizeLg2: ATC_INV_ALL }
      : atcSpan(range.firstPage, range.pages);
    const ssid = whole ? ANY_SSID : (inv.ssid ?? ANY_SSID);
    smmu.batch.add((words, at) => encodeAtcInv(words, at, id, ssid, page, sizeLg2));
    return;
  }
  const opcode = opcodeFor(inv, range);
  const swap = smmu.wrongVmid ? 1 : 0;
  const vmid = (type === S1_ASID ? 0 : id) ^ swap;
  const asid = type === S1_ASID ? id : 0;
  const { batch } = smmu;
  if (opcode === CMD_TLBI_NH_ASID || opcode === CMD_TLBI_EL2_ASID || opcode === CMD_TLBI_S12_VMALL) {
    batch.add((words, at) => encodeTlbi(words, at, opcode, vmid, asid));
    return;
  }
  const { firstPage, pages, leaf, granuleLg2 } = range;
  const emit = (page: number, tlbi: TlbiRange | undefined): void =>
    batch.add((words, at) => encodeTlbiAddress(words, at, opcode, vmid, asid, page, leaf, tlbi));
  eachRange(firstPage, pages, leaf, smmu.features.ranged, emit, granuleLg2);
  if (type === S2_VMID_VSMMU) batch.add((words, at) => encodeTlbi(words, at, CMD_TLBI_NH_ALL, vmid, 0));
}
