/**
 * One SMMUv3 as the core sees it: probed, reset, and pointed at domains device by device.
 *
 * A transaction that stalled is a page fault of its device, aborted when nobody handles those; a group of page requests
 * is denied, as by Linux 7.0. What a device is attached to is streams.ts's.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_domain_alloc_paging_flags, arm_smmu_handle_event,
 *         arm_smmu_handle_ppr
 */
import { NO_BUGS } from '../../../hw/bugs/bug-switches.js';
import { bug } from '../../../hw/memory/bug.js';
import { FRAME_BYTES, FRAME_LG2 } from '../../../hw/memory/frames-layout.js';
import { COMMAND_BYTES, encodePriResp, PRI_RESP_FAILURE } from '../../../hw/smmuv3/command.js';
import { decodeEvent, EVENT_BYTES, EVENT_NAMES, type EventRecord } from '../../../hw/smmuv3/event.js';
import type { Log } from '../../../hw/smmuv3/mmio.js';
import { PAGE_REQUEST_BYTES } from '../../../hw/smmuv3/page-request.js';
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { EINVAL, ENOMEM, EOPNOTSUPP } from '../../../uapi/abi/errno.js';
import { HwInfoArmSmmuv3 } from '../../../uapi/drivers/smmuv3.js';
import {
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
} from '../../../uapi/iommufd/hw-info.js';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
} from '../../../uapi/iommufd/hwpt.js';
import { IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 } from '../../../uapi/iommufd/veventq.js';
import { IOMMU_VIOMMU_TYPE_ARM_SMMUV3 } from '../../../uapi/iommufd/viommu.js';
import {
  type Domain,
  type DriverViommu,
  type HostDevice,
  type IommuInstance,
  PAGE_RESP_INVALID,
  type PageFaults,
  type PagingDomain,
  type RuntimeBugs,
  type ViommuEvent,
  type ViommuOwner,
} from '../contract.js';
import type { UserData } from '../user-data.js';
import type { CommandQueueOptions } from './cmdq.js';
import { type DomainKind, type DomainResources, Smmuv3PagingDomain } from './domain.js';
import { CMDQ_LG2_MAX, DRIVER_NAME, DriverLayout, driverKey } from './driver-layout.js';
import { EventQueue, FORWARDED_EVENTS } from './events.js';
import { canNest, probeFeatures, type SmmuFeatures } from './features.js';
import { serveGerror, takeErrors } from './gerror.js';
import { gerrorTexts, type HostEvent } from './host-event.js';
import type { ImplProbe, SmmuImpl } from './impl.js';
import { type PageRequest, PriQueue } from './priq.js';
import { type SmmuAccess, smmuAccess } from './queue-host.js';
import { type QueuePlace, type ResetParts, resetSmmu } from './reset.js';
import { SmmuDevice } from './smmu-device.js';
import { stallFault } from './stall-fault.js';
import { StreamTable } from './stream-table.js';
import { type Master, Streams } from './streams.js';
import type { OnAllocateTag } from './tags.js';
import { Smmuv3Viommu, type ViommuParts } from './viommu.js';
import type { ViommuRecords } from './viommu-record.js';

export type { HostEvent };

/** Where Linux lets devices send MSIs: no mapping may use it. Inclusive page numbers. */
const MSI_WINDOW = { firstPage: 0x8000, lastPage: 0x80ff };
const DEFAULT_QUEUE_LG2 = 12;

export interface Smmuv3Options extends DomainResources {
  readonly env: SyncEnv;
  readonly records: ViommuRecords;
  readonly index: number;
  readonly name: string;
  /** log2 of entries, at most what the SMMU takes; default 12. */
  readonly cmdqLg2?: number;
  readonly evtqLg2?: number;
  readonly priqLg2?: number;
  /** The host's kernel runs at EL2 where there is one: Virtualization Host Extensions. Default true. */
  readonly vhe?: boolean;
  /** SYNCs report by MSI write-back instead of CMDQ_CONS. */
  readonly msiPolling?: boolean;
  readonly queue?: CommandQueueOptions;
  /** An implementer's extension beside the SMMU. */
  readonly impl?: ImplProbe | undefined;
  readonly bugs?: RuntimeBugs;
  /** Limits `bugs` to one SMMU. */
  readonly bugOnIommu?: number | undefined;
  readonly onAllocate?: OnAllocateTag | undefined;
  readonly onHostEvent?: ((event: HostEvent) => void) | undefined;
  readonly log?: Log;
}

export class Smmuv3Instance implements IommuInstance {
  readonly index: number;
  readonly name: string;
  readonly driver = DRIVER_NAME;
  readonly smmu: SmmuDevice;
  readonly userPasidTable = true;
  onEvent: ((event: ViommuEvent) => void) | null = null;
  faults: PageFaults | null = null;

  readonly #options: Smmuv3Options;
  readonly #access: SmmuAccess;
  readonly #impl: SmmuImpl | null;
  readonly #streams: Streams;
  readonly #reset: ResetParts;
  readonly #events: EventQueue;
  readonly #priq: PriQueue | null;
  readonly #driverBase: number;
  /** Counters of the driver's shared words as last reported. */
  readonly #seen = { skipped: 0, atcTimeouts: 0 };

  private constructor(
    options: Smmuv3Options,
    parts: { smmu: SmmuDevice; streamTable: StreamTable; reset: ResetParts; impl: SmmuImpl | null },
  ) {
    this.#options = options;
    this.index = options.index;
    this.name = options.name;
    this.smmu = parts.smmu;
    this.#impl = parts.impl;
    this.#reset = parts.reset;
    this.#streams = new Streams({
      memory: options.memory,
      frames: options.frames,
      smmu: parts.smmu,
      streamTable: parts.streamTable,
      allocFails: options.allocFails,
      faults: () => this.faults,
      serveEvents: () => this.#serveEvents(),
      timeout: (doing) => this.#report({ kind: 'timeout', doing }),
      bugs: options.env.bugs ?? NO_BUGS,
    });
    const { access, evtq, priq } = parts.reset;
    this.#access = access;
    const { memory, env } = options;
    const place = ({ pa }: QueuePlace, bytes: number): number => memory.linearOf(pa, bytes);
    this.#events = new EventQueue(env.words, access.registers, place(evtq, EVENT_BYTES), evtq.lg2, env.bugs);
    this.#priq =
      priq === null
        ? null
        : new PriQueue(env.words, access.registers, place(priq, PAGE_REQUEST_BYTES), priq.lg2, env.bugs);
    this.#driverBase = options.memory.region(DriverLayout, driverKey(options.index)).base;
  }

  /**
   * Probes and resets an SMMU; its model must be running (or be stepped by env.relax).
   * @returns an instance | -ENXIO hardware this driver cannot drive | -ENOMEM | -ETIMEDOUT
   */
  static probe(options: Smmuv3Options): Smmuv3Instance | number {
    const { memory, env, frames, index } = options;
    const access = smmuAccess(memory, env, index, options.log ?? (() => undefined));
    const features = probeFeatures(access.registers, options.vhe ?? true);
    if (typeof features === 'number') return features;

    const cmdqLg2 = Math.min(options.cmdqLg2 ?? DEFAULT_QUEUE_LG2, features.cmdqLg2, CMDQ_LG2_MAX);
    const evtqLg2 = Math.min(options.evtqLg2 ?? DEFAULT_QUEUE_LG2, features.evtqLg2);
    let smmu: SmmuDevice | undefined;
    const streamTable = StreamTable.create({
      memory,
      frames,
      sidBits: features.sidBits,
      twoLevel: features.twoLevelStreamTable,
      invalidate: (sid) => smmu?.invalidateSte(sid, false) ?? 0,
      bugs: env.bugs,
    });
    if (typeof streamTable === 'number') return streamTable;
    const cmdq = allocQueue(options, cmdqLg2, COMMAND_BYTES);
    const evtq = allocQueue(options, evtqLg2, EVENT_BYTES);
    const priqLg2 = Math.min(options.priqLg2 ?? DEFAULT_QUEUE_LG2, features.priqLg2);
    const priq = features.pri ? allocQueue(options, priqLg2, PAGE_REQUEST_BYTES) : 0;
    if (cmdq < 0 || evtq < 0 || priq < 0) return -ENOMEM;

    const reset: ResetParts = {
      memory,
      env,
      access,
      index,
      cmdq: { pa: cmdq, lg2: cmdqLg2 },
      evtq: { pa: evtq, lg2: evtqLg2 },
      priq: features.pri ? { pa: priq, lg2: priqLg2 } : null,
      features,
      streamTable,
      msi: (options.msiPolling ?? false) && features.msi && features.coherent,
      queueOptions: options.queue ?? {},
    };
    const queue = resetSmmu(reset);
    if (typeof queue === 'number') return queue;
    const buggy = options.bugOnIommu === undefined || options.bugOnIommu === index;
    const zoo = env.bugs ?? NO_BUGS;
    smmu = new SmmuDevice({
      index,
      name: options.name,
      features,
      queue,
      onAllocate: options.onAllocate,
      wrongVmid: (buggy && options.bugs?.wrongVmid === true) || zoo['tlbi-wrong-vmid'],
      skipAtcInv: (buggy && options.bugs?.skipAtcInv === true) || zoo['atc-inv-skipped'],
      atcBeforeTlbi: (buggy && options.bugs?.atcBeforeTlbi === true) || zoo['atc-inv-before-tlbi-sync'],
      bugs: zoo,
    });
    const impl = options.impl?.(smmu) ?? null;
    if (typeof impl === 'number')
      options.log?.(`${options.name}: its extension does not start (${impl}): going on without`);
    return new Smmuv3Instance(options, {
      smmu,
      streamTable,
      reset,
      impl: typeof impl === 'number' ? null : impl,
    });
  }

  /**
   * Programs the SMMU again after it lost its state. Stream table and tables are where they were, so every
   * attachment is in force when it is done; what was on its queues is gone, and every cache empty. ATS of the
   * devices stays as it is: their ATCs are emptied.
   * @returns 0 | -ETIMEDOUT
   */
  reset(): number {
    const queue = resetSmmu(this.#reset);
    if (typeof queue === 'number') return queue;
    this.#seen.skipped = 0;
    this.#seen.atcTimeouts = 0;
    this.#streams.emptyAtcs();
    return 0;
  }

  /** What its devices and their PASIDs are attached to, each as often as it is. */
  attached(): Domain[] {
    return [...this.#streams.masters].flatMap((master) =>
      [...master.attached.values()].map(({ domain }) => domain),
    );
  }

  get features(): SmmuFeatures {
    return this.smmu.features;
  }

  hwInfo(device: HostDevice) {
    const { idr, iidr, aidr } = this.features;
    return {
      type: IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
      data: HwInfoArmSmmuv3.toBytes({ idr, iidr, aidr }),
      capabilities: BigInt(
        (this.#tracksDirty ? IOMMU_HW_CAP_DIRTY_TRACKING : 0) |
          (this.#streams.canAts(device) ? 0 : IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED),
      ),
    };
  }

  reservedRegions(_device: HostDevice): readonly { firstPage: number; lastPage: number }[] {
    return [MSI_WINDOW];
  }

  maxPasids(device: HostDevice): number {
    return this.#streams.maxPasids(device);
  }

  /** Firmware says of every device here that write-back and snooping can be forced on it (CANWBS). */
  enforcesCacheCoherency(): boolean {
    return this.features.coherent;
  }

  /** @source arm_smmu_domain_alloc_paging_flags */
  allocPaging(_device: HostDevice, flags: number, data: UserData | null = null): PagingDomain | number {
    if (data !== null) return -EOPNOTSUPP;
    const { stage1 } = this.features;
    const dirty = (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0;
    switch (flags) {
      case 0:
        return this.#create({ stage: stage1 ? 1 : 2 });
      case IOMMU_HWPT_ALLOC_NEST_PARENT:
        return canNest(this.features) ? this.#create({ stage: 2, nestParent: true }) : -EOPNOTSUPP;
      case IOMMU_HWPT_ALLOC_DIRTY_TRACKING:
      case IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_PASID:
      case IOMMU_HWPT_ALLOC_PASID:
        if (!stage1 || (dirty && !this.#tracksDirty)) return -EOPNOTSUPP;
        return this.#create({ stage: 1, dirty });
      default:
        return -EOPNOTSUPP;
    }
  }

  #create(kind: DomainKind): PagingDomain | number {
    return Smmuv3PagingDomain.create(this.#options, this.smmu, kind);
  }

  /** arm_smmu_dbm_capable */
  get #tracksDirty(): boolean {
    return this.features.httuDirty && this.features.coherent;
  }

  otherHwInfo(device: HostDevice, type: number): Uint8Array | null {
    return this.#impl?.hwInfo(device, type) ?? null;
  }

  supportsViommu(_device: HostDevice, type: number): boolean {
    // Without either a guest could make its accesses non-coherent.
    if (!canNest(this.features) || !(this.features.s2fwb || this.enforcesCacheCoherency())) return false;
    return type === IOMMU_VIOMMU_TYPE_ARM_SMMUV3 || (this.#impl?.supportsViommu(type) ?? false);
  }

  allocViommu(
    device: HostDevice,
    parent: PagingDomain,
    type: number,
    data: UserData | null = null,
    owner: ViommuOwner | null = null,
  ): DriverViommu | number {
    if (!this.supportsViommu(device, type)) return -EOPNOTSUPP;
    if (!(parent instanceof Smmuv3PagingDomain)) return -EINVAL;
    const parts: ViommuParts = {
      iommu: this,
      smmu: this.smmu,
      parent,
      env: this.#options.env,
      records: this.#options.records,
      allocFails: this.#options.allocFails,
      forget: (viommu, gone) => {
        // 7.0 forgets it at the next attach.
        if (this.#options.compat === '7.0') return;
        const master = this.#streams.find(gone.streamId);
        if (master?.guest?.viommu === viommu) master.guest = null;
      },
    };
    if (type === IOMMU_VIOMMU_TYPE_ARM_SMMUV3) return Smmuv3Viommu.create(parts);
    return this.#impl!.allocViommu(parts, data, owner ?? bug('a vIOMMU without an owner'));
  }

  attach(device: HostDevice, domain: Domain | null): number {
    return this.#streams.attach(device, domain);
  }

  attachPasid(device: HostDevice, pasid: number, domain: PagingDomain | null): number {
    return this.#streams.attachPasid(device, pasid, domain);
  }

  poll(): boolean {
    const error = this.#serveErrors();
    const event = this.#serveEvents();
    const own = this.#impl?.poll((raised) => this.onEvent?.(raised)) ?? false;
    return this.#servePageRequests() || event || error || own;
  }

  /** Errors that any thread acknowledged since the last call; its own among them. */
  #serveErrors(): boolean {
    const { words } = this.#options.env;
    serveGerror(words, this.#driverBase, this.#access.registers, this.#options.env.bugs);
    const bits = takeErrors(words, this.#driverBase);
    if (bits === 0) return false;
    const skipped = words.load(this.#driverBase + DriverLayout.at.skipped);
    const timeouts = words.load(this.#driverBase + DriverLayout.at.atcTimeouts);
    const event = {
      kind: 'gerror',
      bits,
      commandSkipped: skipped !== this.#seen.skipped,
      atcTimeouts: (timeouts - this.#seen.atcTimeouts) >>> 0,
    } as const;
    this.#seen.skipped = skipped;
    this.#seen.atcTimeouts = timeouts;
    for (const text of gerrorTexts(event)) this.#options.log?.(`${this.name}: ${text}`);
    this.#report(event);
    return true;
  }

  #serveEvents(): boolean {
    const { taken, overflow } = this.#events.drain((record) => this.#handle(record));
    if (overflow) this.#report({ kind: 'overflow', queue: 'evtq' });
    return taken > 0 || overflow;
  }

  #servePageRequests(): boolean {
    if (this.#priq === null) return false;
    const { taken, overflow } = this.#priq.drain((request) => this.#deny(request));
    if (overflow) this.#report({ kind: 'overflow', queue: 'priq' });
    return taken > 0 || overflow;
  }

  #deny(request: PageRequest): void {
    this.#report({ kind: 'page-request', request });
    if (!request.last) return;
    const { sid, ssid, group } = request;
    this.smmu.issue((words, at) => encodePriResp(words, at, sid, ssid, group, PRI_RESP_FAILURE));
  }

  /**
   * Stage-2 faults are about host memory: they are the host's, whoever the stream belongs to. A stall is a page fault;
   * Linux leaves one unanswered that a guest provokes on a device which it did not let stall, here every one is.
   */
  #handle(words: Uint32Array): void {
    const record = decodeEvent(words);
    const master = this.#streams.find(record.sid);
    if (record.stall && this.#handledStall(record, master)) return;
    const guest = master?.guest ?? null;
    if (guest === null || record.stall || record.s2 || !FORWARDED_EVENTS.has(record.id)) {
      const name = EVENT_NAMES[record.id] ?? `event 0x${record.id.toString(16)}`;
      this.#report({ kind: 'event', name, record, stalled: record.stall });
      return;
    }
    const data = new Uint8Array(EVENT_BYTES);
    const view = new DataView(data.buffer);
    for (let i = 0; i < words.length; i++) view.setUint32(i * 4, words[i]!, true);
    // StreamID is bits 63:32.
    view.setUint32(4, guest.vsid, true);
    this.onEvent?.({ viommu: guest.viommu, type: IOMMU_VEVENTQ_TYPE_ARM_SMMUV3, data });
  }

  /** @returns whether somebody will answer it; it has been told to abort otherwise */
  #handledStall(record: EventRecord, master: Master | undefined): boolean {
    const fault = stallFault(this.smmu, record);
    if (master !== undefined && this.faults !== null) return this.faults.report(master.device, fault) === 0;
    fault.respond(PAGE_RESP_INVALID);
    return false;
  }

  #report(event: HostEvent): void {
    this.#options.onHostEvent?.(event);
  }
}

/** @returns byte PA of a naturally aligned, zeroed queue | -ENOMEM */
function allocQueue({ frames }: Smmuv3Options, lg2: number, entryBytes: number): number {
  const sizeLg2 = Math.max(FRAME_LG2, lg2 + Math.log2(entryBytes));
  const pfn = frames.alloc(sizeLg2);
  if (pfn < 0) return pfn;
  frames.zero(pfn, 2 ** (sizeLg2 - FRAME_LG2));
  return pfn * FRAME_BYTES;
}
