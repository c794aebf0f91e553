/**
 * What the SMMUv3 driver keeps in shared memory, so that any thread can put commands on a queue and
 * invalidate on behalf of a guest without asking the core.
 *
 *   smmuv3-driver:N   one per SMMU: the shadow of its command queue (Linux: struct arm_smmu_cmdq)
 *   viommus           one record a vIOMMU: its SMMU, its VMID, and its vSID -> pSID table
 *
 *      llq   31 | 30 .......... 16 | 15    | 14 .......... 0
 *             0 | cons (idx, wrap) | OWNED | prod (idx, wrap)      hence at most 2^14 commands a queue
 */
import { array, i32, type Layout, layout, line, raw, u32 } from '../../../hw/memory/layout.js';
import { rwLockField } from '../../../hw/sync/rw-lock.js';

/** Largest command queue: index and wrap bit of prod must leave room for OWNED in 16 bits. */
export const CMDQ_LG2_MAX = 14;

export const DriverLayout = layout('smmuv3-driver', 2, {
  /** prod | OWNED | cons << 16. Any producer, by compare-and-exchange. */
  llq: line(u32()),
  /** prod up to which the hardware knows. Writer: the owner of the moment. */
  ownerProd: line(u32()),
  /** Who may publish cons: n > 0 waiters for a SYNC share it; CMDQ_EXCLUSIVE marks its one exclusive holder. */
  lock: line(i32()),
  /** Bumped after any change that a parked producer may wait for, when `waiters` is not 0. */
  activity: line(u32()),
  /** Producers parked on `activity`, or about to be. */
  waiters: line(u32()),
  /** Not 0 while a thread serves GERROR: whoever notices the error first; 2 once others have noticed one too. */
  errorLock: line(u32()),
  /** Commands that were replaced because the SMMU refused them. Writer: holder of errorLock. */
  skipped: u32(),
  /** SYNCs that gave up on an ATC invalidation, modulo 2^32. Writer: holder of errorLock. */
  atcTimeouts: u32(),
  /** GERROR bits acknowledged and not yet reported. Holder of errorLock ors, the core exchanges with 0. */
  errorsSeen: u32(),
  /** Linear offset and LOG2SIZE of the queue. Writer: the core, at reset. */
  queueLinear: line(u32()),
  queueLg2: u32(),
  /** CMDQ_FLAG_*. Writer: the core, at reset. */
  flags: u32(),
  /** One bit a slot, flipped when the slot has been written: valid means the inverse of its wrap parity. */
  valid: line(array(u32(), 2 ** CMDQ_LG2_MAX / 32)),
});

/** Bit of `llq`: somebody is collecting commands for the next write of CMDQ_PROD. */
export const CMDQ_OWNED = 1 << 15;
/** Value of `lock` while held exclusively, whatever else is added to it. */
export const CMDQ_EXCLUSIVE = -0x8000_0000;
/** A SYNC tells its waiter by writing 0 over its own first word. */
export const CMDQ_FLAG_MSI = 1 << 0;

/** What the core knows this driver by. */
export const DRIVER_NAME = 'smmuv3';

export const driverKey = (index: number): string => `smmuv3-driver:${index}`;

/** vDEVICEs a vIOMMU may have. */
export const VDEVICE_SLOTS = 256;
export const VDEVICE_BYTES = 16;

/** One entry of the vSID table: open addressing from `vsid` mod VDEVICE_SLOTS. Writer: the core, under vdevRw. */
export const VdeviceEntry = {
  /** VDEVICE_* */
  state: 0,
  vsid: 4,
  psid: 8,
  /** Index of the device. */
  device: 12,
} as const;
export const VDEVICE_EMPTY = 0;
export const VDEVICE_USED = 1;
/** Was used: a search goes on past it. */
export const VDEVICE_DELETED = 2;

/** Writer of all of it: the core. Readers: any thread that invalidates for the guest. */
export const ViommuRecord = layout('viommu-record', 1, {
  /** VIOMMU_*. */
  state: u32(),
  /** Index of its SMMU. */
  iommu: u32(),
  vmid: u32(),
  /** Counts the lives of this slot. */
  generation: u32(),
  /** Guards the vSID table: the core writes; a reader holds it until its commands are on the queue. */
  vdevRw: line(rwLockField()),
  /** Changes of the vSID table so far, for a checker that compares commands with the table's history. */
  vdevSeq: u32(),
  vdevs: raw(VDEVICE_BYTES * VDEVICE_SLOTS),
});
export const VIOMMU_FREE = 0;
export const VIOMMU_LIVE = 1;
export const VIOMMU_RECORD_BYTES = ViommuRecord.size;

export const VIOMMUS_KEY = 'viommus';

/** @param slots vIOMMUs that can be alive at once, over all SMMUs */
export const viommusLayout = (slots: number): Layout<{ records: ReturnType<typeof raw> }> =>
  layout('viommus', 1, { records: raw(VIOMMU_RECORD_BYTES * slots) });
