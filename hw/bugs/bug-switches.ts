/**
 * The bug zoo's switches: races that real IOMMU code had, each to be put back at the place where it happened.
 * All off by default. A machine's configuration names those that are on (`bugs.zoo`), and every thread that attaches
 * finds them in its `SyncEnv.bugs`; the code at the place reads one boolean.
 *
 * `origin` cites where the bug was seen; `invariant` is what it breaks: R1 to R27, or a class of failure that an
 * explorer checks by itself (deadlock, lost wake-up, use after free).
 */
export interface BugOrigin {
  /** The file of this project that has the switch. */
  readonly where: string;
  /** Commit, CVE, mail, or erratum. */
  readonly origin: string;
  readonly invariant: string;
}

const table = {
  'mutex-wakes-before-release': {
    where: 'hw/sync/mutex.ts',
    origin: 'npm atomics-sync 1.x: a waiter is notified, or its count read, before the word is released',
    invariant: 'lost wake-up',
  },
  'ste-hitless-without-barrier': {
    where: 'runtime/drivers/smmuv3/entry-writer.ts',
    origin:
      'Linux before 6fabce53f6b9: no dma_wmb() in arm_smmu_write_entry, so an entry shows before what it leads to',
    invariant: 'R3',
  },
  'l1-before-l2-table': {
    where: 'runtime/drivers/smmuv3/stream-table.ts',
    origin: 'arm-smmu-v3, Aug 2026: the level-1 descriptor shows before the STEs it leads to are written',
    invariant: 'R3',
  },
  'ste-torn': {
    where: 'runtime/drivers/smmuv3/ste-writer.ts',
    origin:
      'CVE-2026-45944, -45894, -45945, -45862; AMD: memset of a DTE in use (Aug 2026). V=1 is kept all the while',
    invariant: 'R4',
  },
  'cd-torn': {
    where: 'runtime/drivers/smmuv3/cd.ts',
    origin: 'the same, in the entry of a PASID',
    invariant: 'R4',
  },
  'invs-after-ste': {
    where: 'runtime/drivers/smmuv3/streams.ts',
    origin: 'the order that arm_smmu_domain_inv_range relies on (arm-smmu-v3.c:2730), turned round on attach',
    invariant: 'R5',
  },
  'table-linked-before-filled': {
    where: 'hw/kernel/assembly/pagetable.ts, pagetable-replace.ts',
    origin:
      'AMD increase_address_space (May 2020; 1e56310b40fd, Sept 2025), settled by generic_pt 789a5913b29c',
    invariant: 'R24',
  },
  'dirty-cleared-without-cas': {
    where: 'hw/kernel/assembly/pagetable-dirty.ts',
    origin: 'R16: a dirty state that hardware sets between the read and the write is lost',
    invariant: 'R16',
  },
  'micro-tlb-survives-epoch': {
    where: 'hw/kernel/assembly/dma.ts',
    origin:
      'R1: a translation cached ahead of the TLB outlives the SYNC (as CVE-2025-71202, SVA stale IOTLB)',
    invariant: 'R1',
  },
  'iotlb-fill-unguarded': {
    where: 'hw/kernel/assembly/iotlb.ts, hits.ts',
    origin:
      'R1: an entry is used while it is refilled, half of either translation (as R4, torn DTE, CVE-2026-45944)',
    invariant: 'R1',
  },
  'epoch-entered-unchecked': {
    where: 'hw/kernel/assembly/dma.ts',
    origin:
      'the SYNC protocol without its second look: the store-load order that arm-smmu-v3.c:2730 has a fence for',
    invariant: 'R1',
  },
  'atc-fill-unguarded': {
    where: 'hw/kernel/assembly/atc.ts',
    origin:
      'R2: Will Deacon, 21 Aug 2019, nr_ats_masters without a barrier: an ATC fill passes the invalidation',
    invariant: 'R2',
  },
} as const satisfies Record<string, BugOrigin>;

export type BugName = keyof typeof table;
export type BugSwitches = Readonly<Record<BugName, boolean>>;

export const BUGS: Readonly<Record<BugName, BugOrigin>> = table;
export const BUG_NAMES = Object.keys(table) as BugName[];

/** @returns every switch, those named on */
export function bugSwitches(on: readonly BugName[]): BugSwitches {
  const switches = Object.fromEntries(BUG_NAMES.map((name) => [name, on.includes(name)]));
  return Object.freeze(switches) as BugSwitches;
}

export const NO_BUGS: BugSwitches = bugSwitches([]);
