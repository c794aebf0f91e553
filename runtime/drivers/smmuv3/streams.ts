/**
 * The devices of one SMMU and what they are attached to: the device itself, and each PASID of it.
 *
 *   RID (SSID 0)  paging stage 1 | paging stage 2 | nested | blocked       PASIDs  paging stage 1, in CDs of their own
 *
 * Attaching follows Linux's order, which keeps every moment safe: the new domain's invalidation entry first,
 * then ATS off at the device if it has to be, then CD and STE (hitless where the change allows), then the ATC is
 * emptied and ATS goes on if it may, then the old domain's entry goes, and with its last user everything cached
 * under its tag. Everything that can fail comes before the first of these steps.
 *
 * PASIDs need the STE to lead to the host's CD table. So the RID has to be on stage 1 or blocked; blocked with PASIDs
 * is a CD table whose CD 0 is not used (S1DSS). A guest brings a table of its own: it and PASIDs of the host exclude
 * each other.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_attach_dev, arm_smmu_set_pasid,
 *   arm_smmu_blocking_set_dev_pasid, arm_smmu_attach_dev_ste, arm_smmu_attach_prepare, _commit, arm_smmu_enable_iopf
 */
import type { BugSwitches } from '../../../hw/bugs/bug-switches.js';
import type { FrameAllocator } from '../../../hw/memory/frame-allocator.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { CONFIG_S1_TRANS, S1DSS_SSID0, S1DSS_TERMINATE } from '../../../hw/smmuv3/ste.js';
import { EBUSY, EINVAL, ENOMEM } from '../../../uapi/abi/errno.js';
import type { Domain, HostDevice, PageFaults } from '../contract.js';
import { ANY_SSID } from './atc.js';
import { cdWriter, clearCd, stage1Cd } from './cd.js';
import { CdTable, LEAF_CDS_LG2 } from './cd-table.js';
import { Smmuv3PagingDomain } from './domain.js';
import { type Entry, writeEntry } from './entry-writer.js';
import { Smmuv3NestedDomain, type Vsmmu } from './nested.js';
import type { SmmuDevice } from './smmu-device.js';
import { abortSte, cdTableSte, type StreamTraits, stage2Ste } from './ste.js';
import { steWriter } from './ste-writer.js';
import type { StreamTable } from './stream-table.js';

/** The SubstreamID of a device itself, and IOMMU_NO_PASID. */
const RID = 0;

/** Whose events a device makes. */
export interface Guest {
  readonly viommu: Vsmmu;
  readonly vsid: number;
}

/** A device as this driver knows it (Linux: struct arm_smmu_master). */
export interface Master {
  readonly device: HostDevice;
  /** Linear offset of its STE. */
  readonly ste: number;
  /** Bits of the SubstreamIDs that the host may give it. */
  readonly ssidBits: number;
  /** Made when the first stage 1 needs it. */
  cdTable: CdTable | null;
  /** By SSID; the device itself is RID. */
  readonly attached: Map<number, Attached>;
  /** Attachments whose faults somebody handles: while there are any, faults may be reported. */
  faulting: number;
  /** ATS is on at the device, and the STE answers it. */
  ats: boolean;
  /** Its faults stall. */
  readonly stall: boolean;
  /** Set while it is attached to a nested domain with a vDEVICE. */
  guest: Guest | null;
}

interface Attached {
  readonly domain: Domain;
  /** It counts in `faulting`. */
  readonly faulting: boolean;
}

export interface StreamsParts {
  readonly memory: MachineMemory;
  readonly frames: FrameAllocator;
  readonly smmu: SmmuDevice;
  readonly streamTable: StreamTable;
  /** As DomainResources.allocFails. */
  readonly allocFails?: ((site: string) => boolean) | undefined;
  /** The core's, when there is one. */
  faults(): PageFaults | null;
  /** What stalled under a domain that a device has left is to be answered now, not when somebody polls. */
  serveEvents(): void;
  /** An SMMU that stops answering is reported, not undone. */
  timeout(doing: string): void;
  readonly bugs: BugSwitches;
}

export class Streams {
  readonly #parts: StreamsParts;
  /** By physical StreamID. */
  readonly #masters = new Map<number, Master>();

  constructor(parts: StreamsParts) {
    this.#parts = parts;
  }

  get masters(): IterableIterator<Master> {
    return this.#masters.values();
  }

  find(streamId: number): Master | undefined {
    return this.#masters.get(streamId);
  }

  canAts(device: HostDevice): boolean {
    return this.#parts.smmu.features.ats && device.ats !== undefined;
  }

  /** dev->iommu->max_pasids */
  maxPasids(device: HostDevice): number {
    return device.pasid === undefined ? 0 : 2 ** this.#ssidBits(device);
  }

  /** IommuInstance.attach */
  attach(device: HostDevice, domain: Domain | null): number {
    const { smmu } = this.#parts;
    if (domain !== null && !fits(domain, smmu)) return -EINVAL;
    const master = this.#master(device);
    if (typeof master === 'number') return master;
    const pasids = pasidsOf(master) > 0;
    if (pasids && domain !== null && !isStage1(domain)) return -EBUSY;
    const guest = domain instanceof Smmuv3NestedDomain ? guestOf(device, domain) : null;
    if (typeof guest === 'number') return guest;
    const next = this.#prepare(master, RID, domain, guest);
    if (typeof next === 'number') return next;

    // From here on nothing fails.
    const ats = this.canAts(device) && (domain === null ? pasids : wantsAts(domain));
    this.#begin(master, RID, next, ats);
    this.#install(master, domain, { ats, stall: master.stall });
    master.guest = guest;
    this.#commit(master, RID, next, ats);
    return 0;
  }

  /** IommuInstance.attachPasid */
  attachPasid(device: HostDevice, ssid: number, domain: Domain | null): number {
    const { smmu } = this.#parts;
    if (domain !== null && (!fits(domain, smmu) || !isStage1(domain))) return -EINVAL;
    const master = this.#master(device);
    if (typeof master === 'number') return master;
    if (domain === null) {
      this.#blockPasid(master, ssid);
      return 0;
    }
    const rid = master.attached.get(RID)?.domain ?? null;
    if ((rid !== null && !isStage1(rid)) || ssid >= 2 ** master.ssidBits) return -EINVAL;
    const next = this.#prepare(master, ssid, domain, null);
    if (typeof next === 'number') return next;

    const ats = this.canAts(device);
    const inSte = rid !== null || pasidsOf(master) > 0;
    this.#begin(master, ssid, next, ats);
    this.#writeCd(master, ssid, stage1Cd(domain.stage1Config(smmu), master.stall));
    if (!inSte || master.ats !== ats) this.#writeBlockedOrCdTable(master, rid, ats);
    this.#commit(master, ssid, next, ats);
    return 0;
  }

  /** Every ATC after the SMMU has been reset. */
  emptyAtcs(): void {
    for (const master of this.#masters.values()) if (master.ats) this.#emptyAtc(master, ANY_SSID);
  }

  #blockPasid(master: Master, ssid: number): void {
    if (!master.attached.has(ssid)) return;
    this.#writeCd(master, ssid, clearCd());
    if (master.ats) this.#emptyAtc(master, ssid);
    this.#leave(master, ssid, null, master.ats);
    // The last user of the CD table has gone: the STE need not lead to it.
    if (pasidsOf(master) === 0 && !master.attached.has(RID)) {
      const { device } = master;
      if (master.ats) device.ats?.disable();
      this.#writeSte(master, abortSte());
      if (master.ats) this.#emptyAtc(master, ANY_SSID);
      master.ats = false;
    }
    if (master.stall) this.#parts.serveEvents();
  }

  /** All that may fail. @returns what `attached` will say | null blocked | -errno, nothing is changed */
  #prepare(
    master: Master,
    ssid: number,
    domain: Domain | null,
    guest: Guest | null,
  ): Attached | null | number {
    if (domain === null) return null;
    const { smmu, allocFails } = this.#parts;
    const sites = ['invs', ...(guest === null ? [] : ['vmaster']), 'master_domain'];
    if (allocFails !== undefined && sites.some((site) => allocFails(site))) return -ENOMEM;
    const paging = domain instanceof Smmuv3PagingDomain ? domain : null;
    const tag = paging?.holdTag(smmu) ?? 0;
    if (tag < 0) return tag;
    const place = isStage1(domain) ? this.#ensureCd(master, ssid) : 0;
    const faulting = place >= 0 && domain.handlesFaults === true && master.stall;
    const status = faulting && master.faulting === 0 ? this.#mayFault(master) : place;
    if (status < 0) {
      paging?.dropUnusedTag(smmu);
      return status;
    }
    return { domain, faulting };
  }

  #mayFault({ device }: Master): number {
    return this.#parts.faults()?.addDevice(device) ?? 0;
  }

  /** Before the SMMU can use the new table. */
  #begin(master: Master, ssid: number, next: Attached | null, ats: boolean): void {
    if (next?.faulting) master.faulting++;
    if (!this.#parts.bugs['invs-after-ste']) this.#addUser(master, ssid, next, ats);
    // Off before the STE refuses, so that no request is answered with an error.
    if (!ats && master.ats) master.device.ats?.disable();
  }

  /** From here on a change of the next domain's table is told to this SMMU, and to this device's ATC. */
  #addUser({ device }: Master, ssid: number, next: Attached | null, ats: boolean): void {
    const user = userOf(next?.domain ?? null);
    user?.parent.addUser(this.#parts.smmu, user.vmid, ats ? device.streamId : -1, atcSsid(ssid));
  }

  /** When the SMMU no longer uses the old table. */
  #commit(master: Master, ssid: number, next: Attached | null, ats: boolean): void {
    const { device } = master;
    if (this.#parts.bugs['invs-after-ste']) this.#addUser(master, ssid, next, ats);
    // Off or on: the whole of it. Otherwise what was asked for under this SSID.
    if (ats || master.ats) this.#emptyAtc(master, ats === master.ats ? atcSsid(ssid) : ANY_SSID);
    if (ats && !master.ats) device.ats?.enable();
    const before = master.ats;
    master.ats = ats;
    this.#leave(master, ssid, next, before);
    if (master.stall) this.#parts.serveEvents();
  }

  #leave(master: Master, ssid: number, next: Attached | null, ats: boolean): void {
    const { smmu, timeout, faults } = this.#parts;
    const { device, attached } = master;
    const old = attached.get(ssid);
    if (next === null) attached.delete(ssid);
    else attached.set(ssid, next);
    if (old?.faulting && --master.faulting === 0) faults()?.removeDevice(device);
    const user = userOf(old?.domain ?? null);
    const status = user?.parent.removeUser(smmu, user.vmid, ats ? device.streamId : -1, atcSsid(ssid)) ?? 0;
    if (status < 0) timeout('a tag flush');
  }

  /** The table entry, CD first: the STE is what makes the SMMU look at the CD. */
  #install(master: Master, domain: Domain | null, traits: StreamTraits): void {
    const { smmu } = this.#parts;
    if (domain !== null && isStage1(domain)) {
      this.#writeCd(master, RID, stage1Cd(domain.stage1Config(smmu), traits.stall));
      this.#writeBlockedOrCdTable(master, domain, traits.ats);
      return;
    }
    if (domain instanceof Smmuv3PagingDomain)
      this.#writeSte(master, stage2Ste(domain.stage2Config(smmu, domain.tagOn(smmu)), smmu.features, traits));
    else if (domain instanceof Smmuv3NestedDomain)
      this.#writeSte(master, domain.image(smmu.features, traits));
    else if (pasidsOf(master) > 0) this.#writeBlockedOrCdTable(master, null, traits.ats);
    else this.#writeSte(master, abortSte());
    // Without a leaf for it there is nothing to clear: PASIDs of other leaves, or a leaf that could not be made.
    if (master.cdTable !== null && master.cdTable.at(RID) >= 0) this.#writeCd(master, RID, clearCd());
  }

  /** An STE that leads to the CD table, whose CD 0 counts or not. */
  #writeBlockedOrCdTable(master: Master, rid: Domain | null, ats: boolean): void {
    const traits = { ats, stall: master.stall };
    const s1dss = rid === null ? S1DSS_TERMINATE : S1DSS_SSID0;
    this.#writeSte(master, cdTableSte(master.cdTable!, this.#parts.smmu.features, traits, s1dss));
  }

  #writeSte(master: Master, target: Entry): void {
    const { smmu, memory, timeout, bugs } = this.#parts;
    const sync = () => smmu.invalidateSte(master.device.streamId, true);
    if (writeEntry(steWriter(memory.words, master.ste, sync, bugs), target) < 0) timeout('an STE update');
  }

  #writeCd(master: Master, ssid: number, target: Entry): void {
    const { smmu, memory, timeout, bugs } = this.#parts;
    const sync = () => smmu.invalidateCd(master.device.streamId, ssid);
    if (writeEntry(cdWriter(memory.words, master.cdTable!.at(ssid), sync, bugs), target) < 0)
      timeout('a CD update');
  }

  #emptyAtc({ device }: Master, ssid: number): void {
    if (this.#parts.smmu.invalidateAtc(device.streamId, ssid) < 0) this.#parts.timeout('an ATC flush');
  }

  #master(device: HostDevice): Master | number {
    const known = this.#masters.get(device.streamId);
    if (known !== undefined) return known;
    const { streamTable, smmu } = this.#parts;
    const ste = streamTable.ensure(device.streamId);
    if (ste < 0) return ste;
    const { stalls, stallForce } = smmu.features;
    const master: Master = {
      device,
      ste,
      ssidBits: this.#ssidBits(device),
      cdTable: null,
      attached: new Map(),
      faulting: 0,
      ats: false,
      stall: stallForce || (stalls && device.canStall === true),
      guest: null,
    };
    this.#masters.set(device.streamId, master);
    return master;
  }

  #ssidBits(device: HostDevice): number {
    const { ssidBits, twoLevelCdTable } = this.#parts.smmu.features;
    return Math.min(device.pasid?.bits ?? 0, ssidBits, twoLevelCdTable ? ssidBits : LEAF_CDS_LG2);
  }

  /** @returns linear offset of the CD | -ENOMEM */
  #ensureCd(master: Master, ssid: number): number {
    const { smmu, timeout, allocFails } = this.#parts;
    if (master.cdTable === null) {
      if (allocFails?.('cd_table')) return -ENOMEM;
      const made = CdTable.create(this.#parts, master.ssidBits);
      if (typeof made === 'number') return made;
      master.cdTable = made;
    }
    if (master.cdTable.at(ssid) < 0 && allocFails?.('cd_table leaf')) return -ENOMEM;
    return master.cdTable.ensure(ssid, () => {
      if (smmu.invalidateCd(master.device.streamId, ssid, false) < 0) timeout('a CD table update');
    });
  }
}

/** PASIDs that are attached (arm_smmu_ssids_in_use). */
const pasidsOf = ({ attached }: Master): number => attached.size - (attached.has(RID) ? 1 : 0);

/** Which of the translations in an ATC belong to an attachment. */
const atcSsid = (ssid: number): number => (ssid === RID ? ANY_SSID : ssid);

const isStage1 = (domain: Domain): domain is Smmuv3PagingDomain =>
  domain instanceof Smmuv3PagingDomain && domain.stage === 1;

function fits(domain: Domain, smmu: SmmuDevice): boolean {
  if (domain instanceof Smmuv3NestedDomain) return domain.viommu.smmu === smmu;
  return domain instanceof Smmuv3PagingDomain && domain.fits(smmu);
}

/** Whether the STE of this domain may answer translation requests. */
const wantsAts = (domain: Domain): boolean => !(domain instanceof Smmuv3NestedDomain) || domain.mayAts;

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
function guestOf(device: HostDevice, domain: Smmuv3NestedDomain): Guest | null | number {
  const vsid = domain.viommu.vsidOf(device);
  if (vsid >= 0) return { viommu: domain.viommu, vsid };
  return domain.config === CONFIG_S1_TRANS ? vsid : null;
}
