/**
 * What a domain has to invalidate when its table changes: an array of (SMMU, type, ID), sorted, with a count
 * of the devices that need each entry. An attach installs the new entry before the stream can use the table,
 * and takes the old one out only when it no longer does, so that an unmap in between reaches both.
 *
 *   type           who                                    a change of the table takes
 *   S1_ASID        device on a stage-1 domain             TLBI_NH_VA / NH_ASID
 *   S2_VMID        device on a stage-2 domain             TLBI_S2_IPA / S12_VMALL
 *   S2_VMID_VSMMU  vIOMMU over a stage-2 domain           the same, then TLBI_NH_ALL: the guest's stage-1
 *                                                         translations hold results of this stage 2
 *   ATS           device with ATS                         ATC_INV of the range
 *   ATS_FULL      the same over a nesting parent          ATC_INV of everything: its ATC is by guest address
 *
 * Types are in the order in which their commands have to be complete: a device may ask again for a translation
 * that its ATC just lost, and must not be answered from the IOTLB.
 *
 * The array is never changed in place: a reader keeps the one it took.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_invs_merge, arm_smmu_invs_unref
 */
import { bug } from '../../../hw/memory/bug.js';
import { ANY_SSID } from './atc.js';

export const S1_ASID = 0;
export const S2_VMID = 1;
export const S2_VMID_VSMMU = 2;
export const ATS = 3;
export const ATS_FULL = 4;
export type InvType = typeof S1_ASID | typeof S2_VMID | typeof S2_VMID_VSMMU | typeof ATS | typeof ATS_FULL;

/** An entry of a device's ATC rather than of the SMMU: `id` is a StreamID. */
export const isAts = (type: InvType): boolean => type >= ATS;

/** `smmu` is whatever can carry the commands out; entries are told apart by its index. */
export interface Inv<S extends { readonly index: number }> {
  readonly smmu: S;
  readonly type: InvType;
  readonly id: number;
  /** ATS: of what substream; ANY_SSID when left out. */
  readonly ssid?: number;
  readonly users: number;
}

type Key<S extends { readonly index: number }> = Omit<Inv<S>, 'users'>;

function compare<S extends { readonly index: number }>(a: Key<S>, b: Key<S>): number {
  return (
    a.smmu.index - b.smmu.index ||
    a.type - b.type ||
    a.id - b.id ||
    (isAts(a.type) ? (a.ssid ?? ANY_SSID) - (b.ssid ?? ANY_SSID) : 0)
  );
}

/** One more user of `key`. */
export function mergeInv<S extends { readonly index: number }>(
  invs: readonly Inv<S>[],
  key: Key<S>,
): readonly Inv<S>[] {
  const at = invs.findIndex((inv) => compare(inv, key) >= 0);
  const before = at < 0 ? invs : invs.slice(0, at);
  const found = invs[at];
  if (found !== undefined && compare(found, key) === 0)
    return [...before, { ...found, users: found.users + 1 }, ...invs.slice(at + 1)];
  return [...before, { ...key, users: 1 }, ...(at < 0 ? [] : invs.slice(at))];
}

/** One user less; `last` says that the entry is gone, so that its tag must be flushed. */
export function unrefInv<S extends { readonly index: number }>(
  invs: readonly Inv<S>[],
  key: Key<S>,
): { readonly invs: readonly Inv<S>[]; readonly last: boolean } {
  const found = invs.find((inv) => compare(key, inv) === 0);
  if (found === undefined) return bug(`no invalidation entry of type ${key.type} for ID ${key.id}`);
  const last = found.users === 1;
  return {
    invs: last
      ? invs.filter((inv) => inv !== found)
      : invs.map((inv) => (inv === found ? { ...inv, users: inv.users - 1 } : inv)),
    last,
  };
}
