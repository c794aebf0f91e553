/**
 * One SMMUv3 as the core sees it: probed, reset, and pointed at domains device by device.
 *
 * Attaching follows Linux's order, which keeps every moment safe: the new domain's invalidation entry first,
 * then CD and STE (hitless where the change allows), then the old domain's entry goes, and with its last user
 * everything cached under its tag. Everything that can fail comes before the first of these steps.
 *
 * Refused by being absent: PASIDs, ATS, PRI, stalls, dirty tracking, fault queues on stalls, Tegra241 queues.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_attach_dev, arm_smmu_attach_prepare, _commit
 */
import { FRAME_BYTES, FRAME_LG2 } from '../../../hw/memory/frames-layout.js';
import { COMMAND_BYTES } from '../../../hw/smmuv3/command.js';
import { decodeEvent, EVENT_BYTES, EVENT_NAMES, type EventRecord } from '../../../hw/smmuv3/event.js';
import type { Log } from '../../../hw/smmuv3/mmio.js';
import { GERROR } from '../../../hw/smmuv3/registers.js';
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
import { CD_TABLE_BYTES, cdWriter, clearCd, stage1Cd } from './cd.js';
import type { CommandQueueOptions } from './cmdq.js';
import { type DomainResources, DRIVER_NAME, Smmuv3PagingDomain } from './domain.js';
import { CMDQ_LG2_MAX, DriverLayout, driverKey } from './driver-layout.js';
import { type Entry, writeEntry } from './entry-writer.js';
import { EventQueue, FORWARDED_EVENTS } from './events.js';
import { canNest, probeFeatures, type SmmuFeatures } from './features.js';
import { serveGerror } from './gerror.js';
import { Smmuv3NestedDomain } from './nested.js';
import { type SmmuAccess, smmuAccess } from './queue-host.js';
import { resetSmmu } from './reset.js';
import { SmmuDevice } from './smmu-device.js';
import { abortSte, cdTableSte, stage2Ste } from './ste.js';
import { steWriter } from './ste-writer.js';
import { StreamTable } from './stream-table.js';
import type { OnAllocateTag } from './tags.js';
import { Smmuv3Viommu } from './viommu.js';
import type { ViommuRecords } from './viommu-record.js';

export { DRIVER_NAME };

/** Where Linux lets devices send MSIs: no mapping may use it. Inclusive page numbers. */
const MSI_WINDOW = { firstPage: 0x8000, lastPage: 0x80ff };
const DEFAULT_QUEUE_LG2 = 12;

/** Something the SMMU reported that no guest is to hear of. */
export type HostEvent =
  | { readonly kind: 'event'; readonly name: string; readonly record: EventRecord }
  | { readonly kind: 'overflow' }
  | { readonly kind: 'gerror'; readonly bits: number; readonly commandSkipped: boolean }
  /** The SMMU did not confirm an invalidation in time. */
  | { readonly kind: 'timeout'; readonly doing: string };

export interface Smmuv3Options extends DomainResources {
  readonly env: SyncEnv;
  readonly records: ViommuRecords;
  readonly index: number;
  readonly name: string;
  /** log2 of entries, at most what the SMMU takes; default 12. */
  readonly cmdqLg2?: number;
  readonly evtqLg2?: number;
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
  readonly #events: EventQueue;
  readonly #driverBase: number;
  /** By physical StreamID. */
  readonly #masters = new Map<number, Master>();

  private constructor(
    options: Smmuv3Options,
    parts: { access: SmmuAccess; smmu: SmmuDevice; streamTable: StreamTable; events: EventQueue },
  ) {
    this.#options = options;
    this.index = options.index;
    this.name = options.name;
    this.smmu = parts.smmu;
    this.#access = parts.access;
    this.#streamTable = parts.streamTable;
    this.#events = parts.events;
    this.#driverBase = options.memory.region(DriverLayout, driverKey(options.index)).base;
  }

  /**
   * Probes and resets an SMMU; its model must be running (or be stepped by env.relax).
   * @returns an instance | -ENXIO hardware this driver cannot drive | -ENOMEM | -ETIMEDOUT
   */
  static probe(options: Smmuv3Options): Smmuv3Instance | number {
    const { memory, env, frames, index } = options;
    const access = smmuAccess(memory, env, index, options.log ?? (() => undefined));
    const features = probeFeatures(access.registers);
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
    if (cmdq < 0 || evtq < 0) return -ENOMEM;

    const queue = resetSmmu({
      memory,
      env,
      access,
      index,
      cmdq: { pa: cmdq, lg2: cmdqLg2 },
      evtq: { pa: evtq, lg2: evtqLg2 },
      streamTable,
      msi: (options.msiPolling ?? false) && features.msi && features.coherent,
      queueOptions: options.queue ?? {},
    });
    if (typeof queue === 'number') return queue;
    const buggy = options.bugOnIommu === undefined || options.bugOnIommu === index;
    smmu = new SmmuDevice({
      index,
      name: options.name,
      features,
      queue,
      onAllocate: options.onAllocate,
      wrongVmid: buggy && options.bugs?.wrongVmid === true,
    });
    const events = new EventQueue(env.words, access.registers, memory.linearOf(evtq, EVENT_BYTES), evtqLg2);
    return new Smmuv3Instance(options, { access, smmu, streamTable, events });
  }

  get features(): SmmuFeatures {
    return this.smmu.features;
  }

  hwInfo(_device: HostDevice) {
    const { idr, iidr, aidr } = this.features;
    return {
      type: IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
      data: HwInfoArmSmmuv3.toBytes({ idr, iidr, aidr }),
      // No HTTU, hence no dirty tracking; no substreams; no ATS behind this SMMU.
      capabilities: BigInt(IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED),
      maxPasidLog2: 0,
    };
  }

  reservedRegions(_device: HostDevice): readonly { firstPage: number; lastPage: number }[] {
    return [MSI_WINDOW];
  }

  allocPaging(_device: HostDevice, flags: number): PagingDomain | number {
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

  allocViommu(_device: HostDevice, parent: PagingDomain, type: number): DriverViommu | number {
    if (type !== IOMMU_VIOMMU_TYPE_ARM_SMMUV3) return -EOPNOTSUPP;
    // Without S2FWB a guest could make its accesses non-coherent.
    if (!canNest(this.features) || !this.features.s2fwb) return -EOPNOTSUPP;
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
    const old = userOf(master.domain);
    const next = userOf(domain);
    next?.parent.addUser(this.smmu, next.vmid);
    this.#install(master, domain);
    master.domain = domain;
    master.guest = guest;
    if (old !== null && old.parent.removeUser(this.smmu, old.vmid) < 0) this.#timeout('a tag flush');
    return 0;
  }

  poll(): boolean {
    const { registers } = this.#access;
    const bits = serveGerror(this.#options.env.words, this.#driverBase, registers);
    if (bits !== 0) this.#report({ kind: 'gerror', bits, commandSkipped: GERROR.CMDQ_ERR.get(bits) !== 0 });
    const { taken, overflow } = this.#events.drain((record) => this.#handle(record));
    if (overflow) this.#report({ kind: 'overflow' });
    return bits !== 0 || taken > 0 || overflow;
  }

  /** The table entry, CD first: the STE is what makes the SMMU look at the CD. */
  #install(master: Master, domain: Domain | null): void {
    if (domain instanceof Smmuv3PagingDomain && domain.stage === 1) {
      this.#writeCd(master, stage1Cd(domain.stage1Config(this.smmu)));
      this.#writeSte(master, cdTableSte(master.cdTable));
      return;
    }
    if (domain instanceof Smmuv3PagingDomain)
      this.#writeSte(
        master,
        stage2Ste(domain.stage2Config(this.smmu, domain.tagOn(this.smmu)), this.features),
      );
    else if (domain instanceof Smmuv3NestedDomain) this.#writeSte(master, domain.image(this.features));
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
    const master: Master = { device, ste, cdTable: 0, domain: null, guest: null };
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

  /** Stage-2 faults are about host memory: they are the host's, whoever the stream belongs to. */
  #handle(words: Uint32Array): void {
    const record = decodeEvent(words);
    const guest = this.#masters.get(record.sid)?.guest ?? null;
    if (guest === null || record.s2 || !FORWARDED_EVENTS.has(record.id)) {
      const name = EVENT_NAMES[record.id] ?? `event 0x${record.id.toString(16)}`;
      this.#report({ kind: 'event', name, record });
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
