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
    invariant: 'deadlock',
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
    invariant: 'deadlock',
  },
  'doorbell-parked-after-look': {
    where: 'hw/sync/doorbell.ts',
    origin: 'the order of notify_me in QEMU (aio_notify, util/async.c; hangs of July 2015), turned round',
    invariant: 'deadlock',
  },
  'epoch-enter-without-recheck': {
    where: 'hw/sync/epoch.ts',
    origin:
      'the barrier of walk_shadow_page_lockless_begin (Linux, arch/x86/kvm/mmu/mmu.c: smp_store_mb of vcpu->mode), left out',
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
  'vdevice-published-before-init': {
    where: 'runtime/drivers/smmuv3/viommu-record.ts',
    origin:
      'iommufd_vdevice_alloc_ioctl, 7.0: the vDEVICE is in vdevs before vdevice_init() was called; July 2026',
    invariant: 'R8',
  },
  'vsid-used-after-reuse': {
    where: 'runtime/drivers/smmuv3/invalidate.ts',
    origin: 'R8: the vSID is looked up, and its vDEVICE let go before the command is on the queue',
    invariant: 'R8',
  },
  'invalidate-reports-unissued': {
    where: 'runtime/drivers/smmuv3/invalidate.ts',
    origin: 'arm_vsmmu_cache_invalidate, 7.0: entries before a refused one are reported, not issued (2026)',
    invariant: 'R8',
  },
  'destroy-does-not-wait': {
    where: 'runtime/core/ctx.ts',
    origin:
      'R15: a destroy frees while iommufd_put_object() is not through (2023; since then wait_cnt is waited for)',
    invariant: 'R15',
  },
  'id-reused-before-reference-dropped': {
    where: 'runtime/core/object-table.ts',
    origin: 'R15: a reference is taken without seeing that it is still the same object (ABA)',
    invariant: 'R15',
  },
  'fault-answered-twice': {
    where: 'runtime/objects/fault.ts',
    origin: 'R10: the group that a detach answers stays in the response list (as CVE-2024-35843, UAF)',
    invariant: 'R10',
  },
  'fault-never-answered': {
    where: 'runtime/objects/fault.ts',
    origin: 'R10: a detach drops the groups that nobody has read; the device waits for ever',
    invariant: 'deadlock',
  },
  'veventq-overflow-loses-marker': {
    where: 'runtime/objects/veventq.ts',
    origin: 'R11: an event that finds the queue full goes without a word',
    invariant: 'R11',
  },
  'veventq-lost-count-unbalanced': {
    where: 'runtime/objects/veventq.ts',
    origin: 'R11: num_events counts the LOST_EVENTS header on one side only (NV-Kernels #78)',
    invariant: 'R11',
  },
  'vevent-after-destroy': {
    where: 'runtime/drivers/smmuv3/viommu.ts',
    origin: 'R9: arm-smmu-v3 7.0 forgets a vSID at the next attach, not when its vDEVICE goes',
    invariant: 'R9',
  },
  'unmap-eats-concurrent-map': {
    where: 'runtime/iova/io-pagetable.ts',
    origin: '8602018b1f17 (Sina Hassani, Apr 2026): what is mapped behind the cursor is unmapped as well',
    invariant: 'R13',
  },
  'access-unmap-without-wait': {
    where: 'runtime/objects/access.ts',
    origin: 'R14: an access is told of the unmap, and what it has not let go of is unpinned (c44d711)',
    invariant: 'R14',
  },
  'revoked-dmabuf-still-mapped': {
    where: 'runtime/iova/io-pagetable.ts',
    origin: 'f2d70dbd3dce and "Wait for dma-buf invalidation": a revoke returns before its invalidation',
    invariant: 'R26',
  },
  'hw-queue-freed-before-sync': {
    where: 'runtime/drivers/tegra241/vcmdq.ts',
    origin: '9ff145a25c5c: the memory of a VCMDQ goes before the hardware is done with it',
    invariant: 'R23',
  },
  'mailbox-answer-before-result': {
    where: 'workers/protocol/mailbox-server.ts',
    origin: 'R21: a call is DONE before its result is there (as CVE-2026-43220, AMD completion wait)',
    invariant: 'R21',
  },
  'mailbox-serves-abandoned-ticket': {
    where: 'workers/protocol/mailbox-server.ts',
    origin:
      'R15: a request that is given up meanwhile is served all the same (as CVE-2025-39966, use after abort)',
    invariant: 'R15',
  },
  'tlbi-dropped-under-load': {
    where: 'hw/smmuv3/command-executor.ts',
    origin:
      'NVIDIA Tegra264 erratum: a TLBI or CFGI is lost while translations wait; to be issued twice, each with a SYNC',
    invariant: 'R1',
  },
  'tlbi-skipped': {
    where: 'hw/smmuv3/command-executor.ts',
    origin: 'CVE-2025-71202: what is gone from the tables is not taken out of the IOTLB (SVA)',
    invariant: 'R1',
  },
  'sync-completes-early': {
    where: 'hw/smmuv3/command-queue.ts',
    origin:
      '[IHI0070] 4.6.3: a SYNC completes after every transaction that could have used what was invalidated',
    invariant: 'R1',
  },
  'frame-freed-before-sync': {
    where: 'runtime/iova/domain-fill.ts, io-pagetable.ts',
    origin:
      'Robin Murphy, Dec 2021: a flush queue that lets go of pages before their invalidation is complete',
    invariant: 'R1',
  },
  'tlbi-nh-va-without-vmid': {
    where: 'runtime/drivers/smmuv3/invalidate.ts',
    origin: 'Shameer Kolothum, Nov 2019: the VMID is missing in TLBI_NH_VA, here of a guest',
    invariant: 'R1',
  },
  'tlbi-wrong-vmid': {
    where: 'runtime/drivers/smmuv3/domain-invalidate.ts',
    origin: 'VT-d: a nested stage 2 that changes is flushed under another domain (deepin PR 1934)',
    invariant: 'R7',
  },
  's2-unmap-skips-a-vmid': {
    where: 'runtime/drivers/smmuv3/domain-invalidate.ts',
    origin: 'R7: a stage 2 under several VMIDs, of which an unmap reaches the first of each SMMU',
    invariant: 'R7',
  },
  'atc-inv-before-tlbi-sync': {
    where: 'runtime/drivers/smmuv3/domain-invalidate.ts',
    origin: 'Will Deacon, 21 Aug 2019: ATC_INV ahead of the SYNC that the TLBIs need',
    invariant: 'R2',
  },
  'atc-inv-skipped': {
    where: 'runtime/drivers/smmuv3/domain-invalidate.ts',
    origin: 'Will Deacon, 21 Aug 2019: nr_ats_masters is read as 0 and no ATC_INV goes out',
    invariant: 'R2',
  },
  'device-never-answers-atc-inv': {
    where: 'runtime/drivers/smmuv3/domain-invalidate.ts',
    origin: 'CVE-2026-43130, -43161; arm-smmu-v3 quarantine v6: an ATC timeout is taken for a completion',
    invariant: 'R22',
  },
  'vmid-freed-before-flush': {
    where: 'runtime/drivers/smmuv3/smmu-device.ts',
    origin: 'R6: the VMID is anybody’s again while its flush is under way',
    invariant: 'R6',
  },
  'asid-freed-before-flush': {
    where: 'runtime/drivers/smmuv3/smmu-device.ts',
    origin: 'R6: the ASID is anybody’s again while its flush is under way',
    invariant: 'R6',
  },
  'dirty-cleared-without-flush': {
    where: 'runtime/drivers/smmuv3/dirty.ts',
    origin: 'R16: the mark goes from the table, and a cached translation that is dirty already stays',
    invariant: 'R16',
  },
  'sync-waits-on-wrong-index': {
    where: 'runtime/drivers/smmuv3/cmdq.ts',
    origin:
      'arm_smmu_cmdq_issue_cmdlist, step 5: prod is advanced by n before the wait; without that it is the first command that is waited for',
    invariant: 'R17',
  },
  'cmdq-published-before-valid': {
    where: 'runtime/drivers/smmuv3/cmdq.ts',
    origin: 'the same, step 4c left out: CMDQ_PROD passes slots that a follower has reserved and not written',
    invariant: 'R17',
  },
  'cmdq-valid-before-written': {
    where: 'runtime/drivers/smmuv3/cmdq.ts',
    origin: 'the same, step 3 without its dma_wmb(): the valid bits show before the commands',
    invariant: 'R17',
  },
  'cmdq-full-taken-for-empty': {
    where: 'runtime/drivers/smmuv3/cmdq.ts',
    origin: 'bao hypervisor #382: the space of a queue worked out without the wrap bits',
    invariant: 'R18',
  },
  'cmdq-owner-does-not-wait': {
    where: 'runtime/drivers/smmuv3/cmdq.ts',
    origin:
      'arm_smmu_cmdq_issue_cmdlist, step 4a left out: two owners at once, and CMDQ_PROD moves backwards',
    invariant: 'R17',
  },
  'cmdq-cons-published-early': {
    where: 'runtime/drivers/smmuv3/cmdq.ts',
    origin:
      'the same, step 2: a SYNC that does not share the lock on cons, so that the queue wraps past its waiter',
    invariant: 'R17',
  },
  'cmdq-unlock-drops-sharers': {
    where: 'runtime/drivers/smmuv3/cmdq.ts',
    origin:
      'arm-smmu-v3 before "Improve CMDQ lock fairness and efficiency": the exclusive unlock stored 0 over the sharers counted meanwhile',
    invariant: 'R17',
  },
  'sync-sequence-taken-early': {
    where: 'runtime/drivers/smmuv3/cmdq.ts',
    origin:
      'CVE-2026-43220 (AMD, 9e249c484128) and arm-smmu-v3 before 0f02477d1698: the sequence of a SYNC taken before its place in the queue',
    invariant: 'R21',
  },
  'msi-waiter-sleeps-on-cons': {
    where: 'runtime/drivers/smmuv3/cmdq.ts',
    origin:
      '__arm_smmu_cmdq_poll_until_msi: "the MSI won\'t generate an event", so nobody may sleep for one until it is written',
    invariant: 'deadlock',
  },
  'evtq-consumer-advanced-early': {
    where: 'runtime/drivers/smmuv3/events.ts',
    origin:
      'arm-smmu-v3, "Drain in-flight fault handlers" (May 2026): EVENTQ_CONS moves before the record is taken',
    invariant: 'R10',
  },
  'priq-overflow-never-acknowledged': {
    where: 'runtime/drivers/smmuv3/priq.ts',
    origin: 'AMD, Oct 2021: an event log that has overflowed is never started again; here the PRI queue',
    invariant: 'R20',
  },
  'cerror-skips-next-command': {
    where: 'runtime/drivers/smmuv3/gerror.ts',
    origin: '__arm_smmu_cmdq_skip_err replaces the command at CMDQ_CONS; here the good one behind it',
    invariant: 'R19',
  },
  'gerror-served-twice': {
    where: 'runtime/drivers/smmuv3/gerror.ts',
    origin: "arm_smmu_gerror_handler is one interrupt's; here any waiter serves, and two at once",
    invariant: 'R19',
  },
  'gerror-acknowledged-early': {
    where: 'runtime/drivers/smmuv3/gerror.ts',
    origin: 'arm_smmu_gerror_handler replaces the command, then writes GERRORN; here the other way round',
    invariant: 'R19',
  },
  'concurrent-first-attach': {
    where: 'runtime/vmm/vm.ts',
    origin: 'R27: two first attaches behind one SMMU, each of which finds no vIOMMU of its own there',
    invariant: 'R27',
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
