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
    origin:
      'the order that counts of waiters rely on (Linux, kernel/futex/waitwake.c: the value, then the waiters), turned round',
    invariant: 'lost wake-up',
  },
  'condition-seq-read-after-unlock': {
    where: 'hw/sync/condition.ts',
    origin:
      'npm atomics-sync, Condition.wait: unlocks, then sleeps, and a signal in between is missed; SBCL before 1.0.37.34',
    invariant: 'lost wake-up',
  },
  'semaphore-wakes-only-from-zero': {
    where: 'hw/sync/semaphore.ts',
    origin: 'npm atomics-sync, Semaphore.post: wakes one when the count was 0, and nobody for the next unit',
    invariant: 'lost wake-up',
  },
  'barrier-generation-read-late': {
    where: 'hw/sync/barrier.ts',
    origin:
      'npm atomics-sync, Barrier.wait: arrives, and when it gets to sleep the others may have been released',
    invariant: 'lost wake-up',
  },
  'doorbell-parked-after-look': {
    where: 'hw/sync/doorbell.ts',
    origin: 'the order of notify_me in QEMU (aio_notify, util/async.c; hangs of July 2015), turned round',
    invariant: 'lost wake-up',
  },
  'epoch-enter-without-recheck': {
    where: 'hw/sync/epoch.ts',
    origin:
      'the barrier of walk_shadow_page_lockless_begin (Linux, kvm/mmu/mmu.c: smp_store_mb of vcpu->mode), left out',
    invariant: 'R1',
  },
  'ring-published-before-written': {
    where: 'hw/sync/spsc-ring.ts, mpsc-ring.ts',
    origin:
      'step 3 of arm_smmu_cmdq_issue_cmdlist (arm-smmu-v3.c: dma_wmb, then the valid bits), turned round',
    invariant: 'R17',
  },
  'ring-full-taken-for-empty': {
    where: 'hw/sync/spsc-ring.ts',
    origin: 'bao-hypervisor #382: full and empty by one comparison, without the wrap',
    invariant: 'R18',
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
