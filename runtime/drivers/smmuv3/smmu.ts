/**
 * One SMMUv3 as the core sees it: probed, reset, and pointed at domains device by device.
 *
 * Attaching follows Linux's order, which keeps every moment safe: the new domain's invalidation entry first,
 * then ATS off at the device if it has to be, then CD and STE (hitless where the change allows), then the ATC is
 * emptied and ATS goes on if it may, then the old domain's entry goes, and with its last user everything cached
 * under its tag. Everything that can fail comes before the first of these steps.
 *
 * Nobody handles faults of devices yet: a transaction that stalled is aborted, a group of page requests denied.
 *
 * Refused by being absent: PASIDs of the host's own, dirty tracking, fault queues, Tegra241 queues.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_attach_dev, arm_smmu_attach_prepare, _commit,
 *         arm_smmu_handle_event, arm_smmu_handle_ppr
 */
import { FRAME_BYTES, FRAME_LG2 } from '../../../hw/memory/frames-layout.js';
import { COMMAND_BYTES, encodePriResp, encodeResume, PRI_RESP_FAILURE } from '../../../hw/smmuv3/command.js';
import { decodeEvent, EVENT_BYTES, EVENT_NAMES } from '../../../hw/smmuv3/event.js';
import type { Log } from '../../../hw/smmuv3/mmio.js';
import { PAGE_REQUEST_BYTES } from '../../../hw/smmuv3/page-request.js';
import { CONFIG_S1_TRANS } from '../../../hw/smmuv3/ste.js';
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { EINVAL, ENOMEM, EOPNOTSUPP } from '../../../uapi/abi/errno.js';
import { HwInfoArmSmmuv3 } from '../../../uapi/drivers/smmuv3.js';
import {
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
} from '../../../uapi/iommufd/hw-info.js';
import { IOMMU_HWPT_ALLOC_NEST_PARENT, IOMMU_HWPT_FAULT_ID_VALID } from '../../../uapi/iommufd/hwpt.js';
import { IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 } from '../../../uapi/iommufd/veventq.js';
import { IOMMU_VIOMMU_TYPE_ARM_SMMUV3 } from '../../../uapi/iommufd/viommu.js';
import type {
  Domain,
  DriverViommu,
  HostDevice,
  IommuInstance,
  NestedDomain,
  PagingDomain,
  RuntimeBugs,
  ViommuEvent,
} from '../contract.js';
import type { UserData } from '../user-data.js';
import { CD_TABLE_BYTES, cdWriter, clearCd, stage1Cd } from './cd.js';
import type { CommandQueueOptions } from './cmdq.js';
import { type DomainResources, Smmuv3PagingDomain } from './domain.js';
import { CMDQ_LG2_MAX, DRIVER_NAME, DriverLayout, driverKey } from './driver-layout.js';
import { type Entry, writeEntry } from './entry-writer.js';
import { EventQueue, FORWARDED_EVENTS } from './events.js';
import { canNest, probeFeatures, type SmmuFeatures } from './features.js';
import { serveGerror, takeErrors } from './gerror.js';
import { gerrorTexts, type HostEvent } from './host-event.js';
import { Smmuv3NestedDomain } from './nested.js';
import { type PageRequest, PriQueue } from './priq.js';
import { type SmmuAccess, smmuAccess } from './queue-host.js';
import { type QueuePlace, type ResetParts, resetSmmu } from './reset.js';
import { SmmuDevice } from './smmu-device.js';
import { abortSte, cdTableSte, type StreamTraits, stage2Ste } from './ste.js';
import { steWriter } from './ste-writer.js';
import { StreamTable } from './stream-table.js';
import type { OnAllocateTag } from './tags.js';
import { Smmuv3Viommu } from './viommu.js';
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
  readonly bugs?: RuntimeBugs;
  /** Limits `bugs` to one SMMU. */
  readonly bugOnIommu?: number | undefined;
  readonly onAllocate?: OnAllocateTag | undefined;
  readonly onHostEvent?: ((event: HostEvent) => void) | undefined;
  readonly log?: Log;
}

/** A device as this driver knows it (Linux: struct arm_smmu_master). */
interface Master {
  readonly device: HostDevice;
  /** Linear offset of its STE. */
  readonly ste: number;
  /** PA of its one CD, 0 before it was needed. */
  cdTable: number;
  domain: Domain | null;
  /** ATS is on at the device, and the STE answers it. */
  ats: boolean;
  /** Its faults stall. */
  readonly stall: boolean;
  /** Whose events it makes: set while it is attached to a nested domain with a vDEVICE. */
  guest: { readonly viommu: Smmuv3Viommu; readonly vsid: number } | null;
}

export class Smmuv3Instance implements IommuInstance {
  readonly index: number;
  readonly name: string;
  readonly driver = DRIVER_NAME;
  readonly smmu: SmmuDevice;
  onEvent: ((event: ViommuEvent) => void) | null = null;

  readonly #options: Smmuv3Options;
  readonly #access: SmmuAccess;
  readonly #streamTable: StreamTable;
  readonly #reset: ResetParts;
  readonly #events: EventQueue;
  readonly #priq: PriQueue | null;
  readonly #driverBase: number;
  /** Counters of the driver's shared words as last reported. */
  readonly #seen = { skipped: 0, atcTimeouts: 0 };
  /** By physical StreamID. */
  readonly #masters = new Map<number, Master>();

  private constructor(
    options: Smmuv3Options,
    parts: { smmu: SmmuDevice; streamTable: StreamTable; reset: ResetParts },
  ) {
    this.#options = options;
    this.index = options.index;
    this.name = options.name;
    this.smmu = parts.smmu;
    this.#reset = parts.reset;
    this.#streamTable = parts.streamTable;
    const { access, evtq, priq } = parts.reset;
    this.#access = access;
    const { memory, env } = options;
    const place = ({ pa }: QueuePlace, bytes: number): number => memory.linearOf(pa, bytes);
    this.#events = new EventQueue(env.words, access.registers, place(evtq, EVENT_BYTES), evtq.lg2);
    this.#priq =
      priq === null
        ? null
        : new PriQueue(env.words, access.registers, place(priq, PAGE_REQUEST_BYTES), priq.lg2);
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
    smmu = new SmmuDevice({
      index,
      name: options.name,
      features,
      queue,
      onAllocate: options.onAllocate,
      wrongVmid: buggy && options.bugs?.wrongVmid === true,
      skipAtcInv: buggy && options.bugs?.skipAtcInv === true,
      atcBeforeTlbi: buggy && options.bugs?.atcBeforeTlbi === true,
    });
    return new Smmuv3Instance(options, { smmu, streamTable, reset });
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
    for (const master of this.#masters.values())
      if (master.ats && this.smmu.invalidateAtc(master.device.streamId) < 0) this.#timeout('an ATC flush');
    return 0;
  }

  get features(): SmmuFeatures {
    return this.smmu.features;
  }

  hwInfo(device: HostDevice) {
    const { idr, iidr, aidr } = this.features;
    return {
      type: IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
      data: HwInfoArmSmmuv3.toBytes({ idr, iidr, aidr }),
      // Dirty tracking and PASIDs are not offered, whatever the hardware has.
      capabilities: this.#canAts(device) ? 0n : BigInt(IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED),
    };
  }

  reservedRegions(_device: HostDevice): readonly { firstPage: number; lastPage: number }[] {
    return [MSI_WINDOW];
  }

  allocPaging(_device: HostDevice, flags: number, data: UserData | null = null): PagingDomain | number {
    if (data !== null) return -EOPNOTSUPP;
    const { stage1 } = this.features;
    // Which faults go where is the core's business.
    switch (flags & ~IOMMU_HWPT_FAULT_ID_VALID) {
      case 0:
        return Smmuv3PagingDomain.create(this.#options, this.smmu, stage1 ? 1 : 2, false);
      case IOMMU_HWPT_ALLOC_NEST_PARENT:
        if (!canNest(this.features)) return -EOPNOTSUPP;
        return Smmuv3PagingDomain.create(this.#options, this.smmu, 2, true);
      default:
        return -EOPNOTSUPP;
    }
  }

  /** SMMUv3 nests through a vIOMMU only. */
  allocNested(): NestedDomain | number {
    return -EOPNOTSUPP;
  }

  supportsViommu(_device: HostDevice, type: number): boolean {
    // Without S2FWB a guest could make its accesses non-coherent.
    return canNest(this.features) && this.features.s2fwb && type === IOMMU_VIOMMU_TYPE_ARM_SMMUV3;
  }

  allocViommu(device: HostDevice, parent: PagingDomain, type: number): DriverViommu | number {
    if (!this.supportsViommu(device, type)) return -EOPNOTSUPP;
    if (!(parent instanceof Smmuv3PagingDomain)) return -EINVAL;
    return Smmuv3Viommu.create({
      iommu: this,
      smmu: this.smmu,
      parent,
      env: this.#options.env,
      records: this.#options.records,
      forget: (viommu, device) => {
        const master = this.#masters.get(device.streamId);
        if (master?.guest?.viommu === viommu) master.guest = null;
      },
    });
  }

  attach(device: HostDevice, domain: Domain | null): number {
    if (domain instanceof Smmuv3NestedDomain && domain.viommu.smmu !== this.smmu) return -EINVAL;
    if (domain instanceof Smmuv3PagingDomain && !domain.fits(this.smmu)) return -EINVAL;
    if (domain !== null && !(domain instanceof Smmuv3NestedDomain || domain instanceof Smmuv3PagingDomain))
      return -EINVAL;
    const master = this.#master(device);
    if (typeof master === 'number') return master;

    const guest = domain instanceof Smmuv3NestedDomain ? guestOf(device, domain) : null;
    if (typeof guest === 'number') return guest;
    if (domain instanceof Smmuv3PagingDomain) {
      const tag = domain.holdTag(this.smmu);
      if (tag < 0) return tag;
      if (domain.stage === 1 && !this.#ensureCdTable(master)) {
        domain.dropUnusedTag(this.smmu);
        return -ENOMEM;
      }
    }

    // From here on nothing fails: an SMMU that stops answering is reported, not undone.
    const { streamId } = device;
    const ats = this.#canAts(device) && wantsAts(domain);
    const old = userOf(master.domain);
    const next = userOf(domain);
    next?.parent.addUser(this.smmu, next.vmid, ats ? streamId : -1);
    // Off before the STE refuses, so that no request is answered with an error.
    if (!ats && master.ats) device.ats?.disable();
    this.#install(master, domain, { ats, stall: master.stall });
    master.domain = domain;
    master.guest = guest;
    if ((ats || master.ats) && this.smmu.invalidateAtc(streamId) < 0) this.#timeout('an ATC flush');
    if (ats && !master.ats) device.ats?.enable();
    const atsSid = master.ats ? streamId : -1;
    master.ats = ats;
    if (old !== null && old.parent.removeUser(this.smmu, old.vmid, atsSid) < 0) this.#timeout('a tag flush');
    // What stalled under the old domain is answered now, not when somebody polls.
    if (master.stall) this.#serveEvents();
    return 0;
  }

  poll(): boolean {
    const error = this.#serveErrors();
    const event = this.#serveEvents();
    return this.#servePageRequests() || event || error;
  }

  /** Errors that any thread acknowledged since the last call; its own among them. */
  #serveErrors(): boolean {
    const { words } = this.#options.env;
    serveGerror(words, this.#driverBase, this.#access.registers);
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

  #canAts(device: HostDevice): boolean {
    return this.features.ats && device.ats !== undefined;
  }

  /** The table entry, CD first: the STE is what makes the SMMU look at the CD. */
  #install(master: Master, domain: Domain | null, traits: StreamTraits): void {
    if (domain instanceof Smmuv3PagingDomain && domain.stage === 1) {
      this.#writeCd(master, stage1Cd(domain.stage1Config(this.smmu), traits.stall));
      this.#writeSte(master, cdTableSte(master.cdTable, this.features, traits));
      return;
    }
    if (domain instanceof Smmuv3PagingDomain)
      this.#writeSte(
        master,
        stage2Ste(domain.stage2Config(this.smmu, domain.tagOn(this.smmu)), this.features, traits),
      );
    else if (domain instanceof Smmuv3NestedDomain)
      this.#writeSte(master, domain.image(this.features, traits));
    else this.#writeSte(master, abortSte());
    if (master.cdTable !== 0) this.#writeCd(master, clearCd());
  }

  #writeSte(master: Master, target: Entry): void {
    const { words } = this.#options.env;
    const writer = steWriter(words, master.ste, () => this.smmu.invalidateSte(master.device.streamId, true));
    if (writeEntry(writer, target) < 0) this.#timeout('an STE update');
  }

  #writeCd(master: Master, target: Entry): void {
    const { words } = this.#options.env;
    const linear = this.#options.memory.linearOf(master.cdTable, CD_TABLE_BYTES);
    const writer = cdWriter(words, linear, () => this.smmu.invalidateCd(master.device.streamId));
    if (writeEntry(writer, target) < 0) this.#timeout('a CD update');
  }

  #master(device: HostDevice): Master | number {
    const known = this.#masters.get(device.streamId);
    if (known !== undefined) return known;
    const ste = this.#streamTable.ensure(device.streamId);
    if (ste < 0) return ste;
    const { stalls, stallForce } = this.features;
    const stall = stallForce || (stalls && device.canStall === true);
    const master: Master = { device, ste, cdTable: 0, domain: null, ats: false, stall, guest: null };
    this.#masters.set(device.streamId, master);
    return master;
  }

  #ensureCdTable(master: Master): boolean {
    if (master.cdTable !== 0) return true;
    const { frames } = this.#options;
    const pfn = frames.alloc(FRAME_LG2);
    if (pfn < 0) return false;
    frames.zero(pfn, 1);
    master.cdTable = pfn * FRAME_BYTES;
    return true;
  }

  /**
   * Stage-2 faults are about host memory: they are the host's, whoever the stream belongs to. So are stalls: they
   * are answered here. Linux leaves one unanswered that a guest provokes on a device which it did not let stall;
   * here every one is.
   */
  #handle(words: Uint32Array): void {
    const record = decodeEvent(words);
    if (record.stall) {
      const { sid, stag } = record;
      this.smmu.issue((out, at) => encodeResume(out, at, sid, stag, 'abort'));
    }
    const guest = this.#masters.get(record.sid)?.guest ?? null;
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

  #timeout(doing: string): void {
    this.#report({ kind: 'timeout', doing });
  }

  #report(event: HostEvent): void {
    this.#options.onHostEvent?.(event);
  }
}

/** Whether the STE of this domain may answer translation requests: not when blocked. */
function wantsAts(domain: Domain | null): boolean {
  if (domain instanceof Smmuv3NestedDomain) return domain.mayAts;
  return domain !== null;
}

/** Whose table a device on this domain uses, and under which vIOMMU's VMID (0: none). */
function userOf(domain: Domain | null): { parent: Smmuv3PagingDomain; vmid: number } | null {
  if (domain instanceof Smmuv3PagingDomain) return { parent: domain, vmid: 0 };
  if (domain instanceof Smmuv3NestedDomain) return { parent: domain.viommu.parent, vmid: domain.viommu.vmid };
  return null;
}

/**
 * Whose events and invalidations the device will be part of. To translate by the guest's tables the guest has
 * to have a name for the device; abort and bypass do without.
 * @returns null | -ENOENT
 */
function guestOf(device: HostDevice, domain: Smmuv3NestedDomain): Master['guest'] | number {
  const vsid = domain.viommu.vsidOf(device);
  if (vsid >= 0) return { viommu: domain.viommu, vsid };
  return domain.config === CONFIG_S1_TRANS ? vsid : null;
}

/** @returns byte PA of a naturally aligned, zeroed queue | -ENOMEM */
function allocQueue({ frames }: Smmuv3Options, lg2: number, entryBytes: number): number {
  const sizeLg2 = Math.max(FRAME_LG2, lg2 + Math.log2(entryBytes));
  const pfn = frames.alloc(sizeLg2);
  if (pfn < 0) return pfn;
  frames.zero(pfn, 2 ** (sizeLg2 - FRAME_LG2));
  return pfn * FRAME_BYTES;
}
