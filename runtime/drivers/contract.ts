/**
 * What the iommufd core and a host IOMMU driver ask of each other: Linux's `struct iommu_ops`,
 * `iommu_domain_ops` and `iommufd_viommu_ops` (include/linux/iommu.h, iommufd.h), in the shape this runtime
 * needs. The core never touches a register; a driver never touches an object or an ioctl struct.
 *
 * Page numbers are bytes / 4096 as exact Numbers; every function returns >= 0 or -errno and changes nothing
 * when it fails. All of it runs on the core's thread, except `cacheInvalidate`, which any thread may host.
 */
import type { UserData, UserDataArray } from './user-data.js';

export const IOMMU_READ = 1 << 0;
export const IOMMU_WRITE = 1 << 1;

/** The ATS capability of a PCI device, as its configuration space has it. */
export interface AtsCapability {
  /** The device may keep translations from here on; its ATC is empty. */
  enable(): void;
  /** Nothing is requested any more, and what the ATC holds is not used. */
  disable(): void;
}

/** A physical device as its IOMMU's driver knows it. */
export interface HostDevice {
  /** Index in the machine; also the number of its port. */
  readonly index: number;
  readonly name: string;
  readonly iommu: IommuInstance;
  readonly streamId: number;
  /** Devices that the IOMMU cannot tell apart share a group. */
  readonly groupId: number;
  /** It has an ATC, and the root complex lets it use it (pci_ats_supported, IOMMU_FWSPEC_PCI_RC_ATS). */
  readonly ats?: AtsCapability | undefined;
  /** Firmware says that its transactions may wait (`dma-can-stall`). */
  readonly canStall?: boolean;
  /** Bound by the test ioctl through the iommufd itself, which a device must then not keep open. */
  readonly ownedByTest?: boolean;
  /** False: a platform device, whose VFIO file knows no PASIDs. Default true. */
  readonly pci?: boolean;
  /** Its PASID capability; absent without one. */
  readonly pasid?: PasidCapability | undefined;
}

/** The PASID capability of a PCI device, or what firmware says of another (`pasid-num-bits`). */
export interface PasidCapability {
  /** Max PASID Width, 1..20. */
  readonly bits: number;
  /** Execute permission and privileged mode are on; PCI only. */
  readonly execute: boolean;
  readonly privileged: boolean;
}

/** enum iommu_page_response_code. */
export const PAGE_RESP_SUCCESS = 0;
export const PAGE_RESP_INVALID = 1;
export const PAGE_RESP_FAILURE = 2;

/** A page fault of a device (struct iommu_fault_page_request): one of a group, which ends with its `last`. */
export interface PageFault {
  /** -1 when it came without one. */
  readonly pasid: number;
  readonly grpid: number;
  /** IOMMU_PGFAULT_PERM_*. */
  readonly perm: number;
  /** Bytes. */
  readonly addr: bigint;
  readonly last: boolean;
  /**
   * Answers the group (iommu_ops.page_response): called exactly once, of its last fault, or at once of a fault that
   * nobody handles.
   * @param code  PAGE_RESP_*
   */
  respond(code: number): void;
}

/** What the core keeps for faults of devices (Linux: io-pgfault.c). Attach handles decide who hears of them. */
export interface PageFaults {
  /** Faults of the device may be reported from here on (iopf_queue_add_device). @returns 0 | -EBUSY | -ENOMEM */
  addDevice(device: HostDevice): number;
  /** No more of them: what still waits is answered PAGE_RESP_INVALID (iopf_queue_remove_device). */
  removeDevice(device: HostDevice): void;
  /** iommu_report_device_fault. @returns 0 | -EINVAL nobody handles it: answered | -ENOMEM */
  report(device: HostDevice, fault: PageFault): number;
}

/** One TLBI + SYNC round that an unmap caused, for whoever explains it later. */
export interface InvalidationNote {
  readonly iommu: number;
  /** VMID or ASID whose entries were invalidated; StreamID of the ATC for CMD_ATC_INV. */
  readonly tag: number;
  /** Name of the first command, as the specification spells it. */
  readonly command: string;
  readonly firstPage: number;
  readonly pages: number;
  /** Command-queue index of the SYNC that completed it. */
  readonly syncIndex: number;
  /** Machine-wide logical time before the first command and after SYNC completed. */
  readonly tickIssued: number;
  readonly tickDone: number;
  /** Nanoseconds between the two, as the waiting thread saw it. */
  readonly durationNs: number;
  /** The SMMU, or a device's ATC, did not confirm in time: what was cached may still be in use. */
  readonly failed: boolean;
}

/** Collects what an unmap left to invalidate (Linux: struct iommu_iotlb_gather), in the domain's units. */
export interface Gather {
  firstUnit: number;
  /** Inclusive; below firstUnit when empty. */
  lastUnit: number;
  /** Unlinked table frames, released only after the SYNC. */
  readonly freedTables: number[];
  /** Filled by sync() when `wantNotes`. */
  readonly notes: InvalidationNote[];
  wantNotes: boolean;
}

/** Which pages devices have written to, as the hardware marks it in a table: struct iommu_dirty_ops. */
export interface DirtyTracking {
  /** Reading an area that is not in the table, because its dma-buf was revoked, is -EINVAL: Linux 7.0's ARM tables. */
  readonly holesFail?: boolean;
  /** @returns 0 | -errno, tracking is as it was */
  setTracking(enable: boolean): number;
  /**
   * Visits what is marked in a range, and with `clear` takes the marks away; a device marks a page anew only when
   * the translations in `gather` are invalidated.
   * @param report  called for each run of units found dirty
   * @returns 0 | -EINVAL tracking is off
   */
  readAndClear(
    iovaUnit: number,
    units: number,
    clear: boolean,
    report: (unit: number, units: number) => void,
    gather: Gather,
  ): number;
}

/**
 * One IO page table over an IOAS. Positions and lengths are in *units* of 2^unitLg2 bytes, as exact Numbers, so that
 * pages smaller than the CPU's can be mapped: see iova/area.ts.
 */
export interface PagingDomain {
  readonly kind: 'paging';
  readonly driver: string;
  readonly nestParent: boolean;
  /** Log2 of each leaf size, ascending. */
  readonly pageSizesLg2: readonly number[];
  /** 12, or log2 of the smallest leaf where that is less; 11 at least, as units of a 64-bit space must be exact. */
  readonly unitLg2: number;
  /** Inclusive. */
  readonly aperture: { readonly firstUnit: number; readonly lastUnit: number };
  /** @returns 0 | -ENOMEM | -EEXIST; on failure nothing stays mapped */
  map(iovaUnit: number, paUnit: number, units: number, prot: number): number;
  /** Clears entries; their translations may still be cached until sync(). @returns units unmapped */
  unmap(iovaUnit: number, units: number, gather: Gather): number;
  /** Invalidates on every IOMMU the domain is live on and waits for each SYNC. @returns 0 | -ETIMEDOUT */
  sync(gather: Gather): number;
  /** iova_to_phys. @returns physical unit or -1 */
  lookup(iovaUnit: number): number;
  /** When it was allocated with IOMMU_HWPT_ALLOC_DIRTY_TRACKING. */
  readonly dirty?: DirtyTracking | undefined;
  /** Last reference is gone: release tables and tags. */
  free(): void;
  /** Set by the core, once, before any attach: its faults have a handler (iommu_domain.iopf_handler). */
  handlesFaults?: boolean;
}

export interface NestedDomain {
  readonly kind: 'nested';
  readonly driver: string;
  /** As of a PagingDomain. */
  handlesFaults?: boolean;
  /** As of a DriverViommu: iommu_domain_ops.cache_invalidate_user. */
  cacheInvalidate?(array: UserDataArray): number;
  free(): void;
}

export type Domain = PagingDomain | NestedDomain;

/** A driver's vIOMMU: one slice of one physical IOMMU. struct iommufd_viommu_ops. */
export interface DriverViommu {
  readonly iommu: IommuInstance;
  /** Linear offset of the driver's shared record of it, what `cacheInvalidate` takes on any thread. */
  readonly sharedBase: number;
  /** @returns a nested domain | -EINVAL | -EIO | -EOPNOTSUPP | -EFAULT | -ENOMEM */
  allocNested(data: UserData, flags: number): NestedDomain | number;
  /**
   * User invalidations of a driver without a SharedInvalidator: no thread but the core's can host them.
   * @param array  `handled` := how many took effect, whatever the result
   * @returns 0 | -EINVAL | -EOPNOTSUPP | -EFAULT | -E2BIG | -ENOMEM
   */
  cacheInvalidate?(array: UserDataArray): number;
  /** Nobody else of this vIOMMU has the virtual ID, nor the device another. @returns 0 | -ENOSPC | -EINVAL */
  vdeviceInit(device: HostDevice, virtId: bigint): number;
  vdeviceDestroy(device: HostDevice, virtId: bigint): void;
  /** Absent: IOMMU_HW_QUEUE_ALLOC is -EOPNOTSUPP. */
  readonly hwQueues?: DriverHwQueues;
  destroy(): void;
}

/** The queues in guest memory that hardware reads by itself, by physical address. */
export interface DriverHwQueues {
  /** get_hw_queue_size. @param type IOMMU_HW_QUEUE_TYPE_* */
  supports(type: number): boolean;
  /**
   * hw_queue_init_phys. The queue's pages are pinned and contiguous.
   * @returns a queue | -EINVAL index, length, alignment | -EEXIST | -EIO | -ENOMEM
   */
  init(queue: HwQueuePlace): DriverHwQueue | number;
}

export interface HwQueuePlace {
  readonly type: number;
  /** Logical, per vIOMMU and type. */
  readonly index: number;
  readonly basePa: number;
  /** What the guest calls the base: an IOVA of the nest parent. */
  readonly iova: bigint;
  readonly lengthBytes: bigint;
}

export interface DriverHwQueue {
  /** One of the same vIOMMU that cannot be destroyed before this one (iommufd_hw_queue_depend). */
  readonly dependsOn: DriverHwQueue | null;
  destroy(): void;
}

/** What a driver may ask of the core's half of a vIOMMU. */
export interface ViommuOwner {
  /**
   * Lets user space map pages of hardware (iommufd_viommu_alloc_mmap).
   * @param linear  of the first page, page-aligned
   * @returns the offset for mmap() | -EINVAL | -ENOMEM
   */
  allocMmap(linear: number, bytes: number): number;
  freeMmap(offset: number): void;
  /** Whether an allocation is to fail (IommufdCore.allocFails). */
  allocFails(site: string): boolean;
}

/** A fault or other event the hardware recorded, already carrying virtual IDs. */
export interface ViommuEvent {
  readonly viommu: DriverViommu;
  readonly type: number;
  readonly data: Uint8Array;
}

/** One physical IOMMU as its driver presents it. */
export interface IommuInstance {
  readonly index: number;
  readonly name: string;
  /** Two instances can share a domain when their drivers are the same. */
  readonly driver: string;
  /** GET_HW_INFO: type, vendor data, IOMMU_HW_CAP_* bits; those about PASIDs are the core's to add. */
  hwInfo(device: HostDevice): { type: number; data: Uint8Array; capabilities: bigint };
  /** Vendor data of another IOMMU_HW_INFO_TYPE_* that it has as well; null when it has not. */
  otherHwInfo?(device: HostDevice, type: number): Uint8Array | null;
  /** Inclusive [firstPage, lastPage] windows no mapping may use (MSI, RMR). */
  reservedRegions(device: HostDevice): readonly { firstPage: number; lastPage: number }[];
  /**
   * @param flags  IOMMU_HWPT_ALLOC_*
   * @param data   null when the caller gave none
   * @returns a domain | -EOPNOTSUPP | -EINVAL | -EFAULT | -ENOMEM
   */
  allocPaging(device: HostDevice, flags: number, data?: UserData | null): PagingDomain | number;
  /** @returns a nested domain straight on a nest parent (no vIOMMU) | -EOPNOTSUPP | -EINVAL | -EFAULT | -ENOMEM */
  allocNested?(
    device: HostDevice,
    parent: PagingDomain,
    data: UserData,
    flags: number,
  ): NestedDomain | number;
  /**
   * Point a device at a domain (null: blocked), replacing what it had without a gap where the hardware can.
   * @returns 0 | -EINVAL incompatible, the core may try another domain | -EBUSY | -ENOENT no vDEVICE | -ENOMEM
   */
  attach(device: HostDevice, domain: Domain | null): number;
  /**
   * Point one PASID of a device at a domain, or block it, replacing what it had. Asked only of devices with PASIDs
   * (maxPasids > 0), for 0 < pasid < maxPasids. Absent: the driver has none (iommu_domain_ops.set_dev_pasid).
   * @returns 0, always for null | -EINVAL incompatible | -EBUSY | -ENOMEM
   */
  attachPasid?(device: HostDevice, pasid: number, domain: Domain | null): number;
  /** A nested domain may be a PASID's as well; else attachPasid() gets none. */
  readonly nestsPasids?: boolean;
  /** PASIDs that the device may use behind this IOMMU; 0 or absent: none. */
  maxPasids?(device: HostDevice): number;
  /** The page tables of this device can keep non-coherent DMA out (IOMMU_CAP_ENFORCE_CACHE_COHERENCY). */
  enforcesCacheCoherency?(device: HostDevice): boolean;
  /** A guest owns the table of PASIDs: faults of each are those of the nested domain of the RID. */
  readonly userPasidTable?: boolean;
  /** Set by the core once, as onEvent. A driver without stalls or page requests does not have it. */
  faults?: PageFaults | null;
  /** get_viommu_size. @param type IOMMU_VIOMMU_TYPE_* */
  supportsViommu(device: HostDevice, type: number): boolean;
  /**
   * viommu_init, of a type that is supported.
   * @param data   null when the caller gave none; outputs go there as well
   * @returns a vIOMMU | -EINVAL parent of another IOMMU, data | -EFAULT | -ENOSPC | -ENOMEM
   */
  allocViommu(
    device: HostDevice,
    parent: PagingDomain,
    type: number,
    data: UserData | null,
    owner: ViommuOwner,
  ): DriverViommu | number;
  /** Serve what the hardware raised (events, errors). @returns whether there was anything */
  poll(): boolean;
  /** Where events for a vIOMMU go; the core sets it once. */
  onEvent: ((event: ViommuEvent) => void) | null;
}

/**
 * The part of a driver that any thread can host, living wholly in shared memory: user invalidations.
 * @source struct iommufd_viommu_ops.cache_invalidate
 */
export interface SharedInvalidator {
  /** The one IOMMU_*_INVALIDATE_DATA_* that it takes. */
  readonly dataType: number;
  /** Of one entry. */
  readonly entryBytes: number;
  /**
   * @param entries  `count` commands in the user's format, `stride` bytes apart
   * @param handled  handled[0] := how many were really issued, always written
   * @returns 0 | -EIO illegal command or unknown virtual ID | -ETIMEDOUT
   */
  cacheInvalidate(
    viommuBase: number,
    entries: Uint8Array,
    stride: number,
    count: number,
    handled: Uint32Array,
  ): number;
}

/** Watches an address space from inside the core; the stress checker is one. */
export interface IoasObserver {
  /** Before the first entry is written. */
  mapping(ioasId: number, iovaPage: number, pfn: number, pages: number): void;
  /** After every SYNC, before the frames may be reused. */
  unmapped(
    ioasId: number,
    iovaPage: number,
    pfn: number,
    pages: number,
    notes: readonly InvalidationNote[],
  ): void;
}

/** Deliberate defects, all off by default: the proof that the checker fires. */
export interface RuntimeBugs {
  /** Driver: range and VMID invalidations carry another VMID. */
  readonly wrongVmid?: boolean;
  /** Driver: ATCs are not invalidated. */
  readonly skipAtcInv?: boolean;
  /** Driver: ATC_INV and its SYNC come before the invalidations of the SMMU's own caches. */
  readonly atcBeforeTlbi?: boolean;
  /** Core: frames are released before the SYNC. */
  readonly earlyFree?: boolean;
}
