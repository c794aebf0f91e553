/**
 * After entries of a domain's table were cleared: invalidating them on every SMMU that may hold them. All
 * SMMUs get their commands first and are then waited for one by one, so that they work at the same time.
 *
 * Linux waits once more between the stage-2 invalidations and the clearing of nested stage-1 entries, because
 * TLBIs before a SYNC may complete in any order; here one SYNC covers both, as this SMMU executes TLBIs in
 * the order of the queue.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c __arm_smmu_domain_inv_range
 */
import {
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_S2_IPA,
  CMD_TLBI_S12_VMALL,
  COMMAND_NAMES,
  encodeTlbi,
  encodeTlbiAddress,
} from '../../../hw/smmuv3/command.js';
import type { InvalidationNote } from '../contract.js';
import { type Inv, S1_ASID, S2_VMID_VSMMU } from './invs.js';
import { eachRange, tooBig } from './range.js';
import type { SmmuDevice } from './smmu-device.js';

export interface PageRange {
  readonly firstPage: number;
  readonly pages: number;
  /** Only last-level entries changed. */
  readonly leaf: boolean;
}

/** The commands of one SMMU on their way. */
interface Trip {
  readonly smmu: SmmuDevice;
  /** Of its SYNC, or -errno when the commands did not even fit. */
  readonly ticket: number;
  readonly tickIssued: number;
  readonly issuedNs: number;
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
  const trips: Trip[] = [];
  let status = 0;
  for (let first = 0; first < invs.length; ) {
    const { smmu } = invs[first]!;
    const tickIssued = notes === null ? 0 : tick();
    const issuedNs = notes === null ? 0 : smmu.queue.nowNs();
    let end = first;
    for (; end < invs.length && invs[end]!.smmu === smmu; end++) addCommands(invs[end]!, range);
    trips.push({ smmu, ticket: smmu.batch.submit(), tickIssued, issuedNs, first, end });
    first = end;
  }
  for (const { smmu, ticket, tickIssued, issuedNs, first, end } of trips) {
    const waited = ticket < 0 ? ticket : smmu.queue.wait(ticket);
    if (waited < 0) status = waited;
    if (notes === null) continue;
    const tickDone = tick();
    const durationNs = smmu.queue.nowNs() - issuedNs;
    for (const inv of invs.slice(first, end))
      notes.push({
        iommu: smmu.index,
        tag: inv.id,
        command: COMMAND_NAMES[opcodeFor(inv, range)]!,
        firstPage: range.firstPage,
        pages: range.pages,
        syncIndex: ticket,
        tickIssued,
        tickDone,
        durationNs,
        failed: waited < 0,
      });
  }
  return status;
}

function opcodeFor({ type, smmu }: Inv<SmmuDevice>, { pages }: PageRange): number {
  if (tooBig(pages, smmu.features.ranged)) return type === S1_ASID ? CMD_TLBI_NH_ASID : CMD_TLBI_S12_VMALL;
  return type === S1_ASID ? CMD_TLBI_NH_VA : CMD_TLBI_S2_IPA;
}

function addCommands(inv: Inv<SmmuDevice>, range: PageRange): void {
  const { smmu, type, id } = inv;
  const opcode = opcodeFor(inv, range);
  const swap = smmu.wrongVmid ? 1 : 0;
  const vmid = (type === S1_ASID ? 0 : id) ^ swap;
  const asid = type === S1_ASID ? id : 0;
  const { batch } = smmu;
  if (opcode === CMD_TLBI_NH_ASID || opcode === CMD_TLBI_S12_VMALL) {
    batch.add((words, at) => encodeTlbi(words, at, opcode, vmid, asid));
    return;
  }
  eachRange(range.firstPage, range.pages, range.leaf, smmu.features.ranged, (page, tlbi) =>
    batch.add((words, at) => encodeTlbiAddress(words, at, opcode, vmid, asid, page, range.leaf, tlbi)),
  );
  if (type === S2_VMID_VSMMU) batch.add((words, at) => encodeTlbi(words, at, CMD_TLBI_NH_ALL, vmid, 0));
}
