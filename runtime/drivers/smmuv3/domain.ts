/**
 * Paging domains: one stage-1 or stage-2 table, and the tags under which SMMUs cache it (Linux: struct
 * arm_smmu_domain).
 *
 * A tag exists per SMMU while a device behind it is attached: an ASID (stage 1) or a VMID (stage 2). With
 * s2Sharing 'shared' any SMMU with the same table format can use the domain, and a vIOMMU brings a VMID of
 * its own. With 'per-psmmu', as in Linux 7.0, a domain belongs to the SMMU it was allocated for and has one
 * ID for life.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_domain_finalise
 */

import type { Kernel } from '../../../hw/kernel/kernel.js';
import { bug } from '../../../hw/memory/bug.js';
import type { FrameAllocator } from '../../../hw/memory/frame-allocator.js';
import { FRAME_BYTES, FRAME_LG2 } from '../../../hw/memory/frames-layout.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { PageTable, PROT_DBM, PROT_DIRTY, PROT_WRITE } from '../../../hw/pagetable/aarch64.js';
import {
  firstLevel,
  type GranuleLg2,
  leafSizesLg2,
  rootBytes,
  stage2StartLevel,
} from '../../../hw/pagetable/geometry.js';
import { EBUSY, EEXIST, EINVAL, ENOMEM } from '../../../uapi/abi/errno.js';
import type { Compat } from '../../core/context.js';
import { type DirtyTracking, type Gather, IOMMU_READ, IOMMU_WRITE, type PagingDomain } from '../contract.js';
import type { Stage1Config } from './cd.js';
import { TableDirtyTracking } from './dirty.js';
import { invalidateRange } from './domain-invalidate.js';
import { DRIVER_NAME } from './driver-layout.js';
import { ATS, ATS_FULL, type Inv, mergeInv, S1_ASID, S2_VMID, S2_VMID_VSMMU, unrefInv } from './invs.js';
import type { PageTableSlots } from './page-table-slots.js';
import type { SmmuDevice } from './smmu-device.js';
import type { Stage2Config } from './ste.js';

/** Whether SMMUs share a domain (the default), or each domain belongs to one, as in Linux 7.0. */
export type S2Sharing = 'shared' | 'per-psmmu';

/** VA_BITS of a host whose own pages are 4 KiB. */
const S1_INPUT_BITS = 48;

/** What tables are made of; one a machine. */
export interface DomainResources {
  readonly memory: MachineMemory;
  readonly kernel: Kernel;
  readonly frames: FrameAllocator;
  readonly slots: PageTableSlots;
  readonly sharing: S2Sharing;
  /** Default 'fixed'. */
  readonly compat?: Compat;
  /** Whether an allocation on behalf of a program is to fail (IommufdCore.allocFails). Default: none. */
  readonly allocFails?: ((site: string) => boolean) | undefined;
  tick(): number;
}

export interface DomainKind {
  readonly stage: 1 | 2;
  /** Stage 2 only. */
  readonly nestParent?: boolean;
  /** The SMMU marks what is written to; stage 1 only. */
  readonly dirty?: boolean;
}

export class Smmuv3PagingDomain implements PagingDomain {
  readonly kind = 'paging';
  readonly driver = DRIVER_NAME;
  readonly stage: 1 | 2;
  readonly nestParent: boolean;
  readonly pageSizesLg2: readonly number[];
  readonly unitLg2 = FRAME_LG2;
  readonly aperture: { readonly firstUnit: number; readonly lastUnit: number };
  /** The SMMU it was allocated for. */
  readonly home: SmmuDevice;
  readonly dirty: DirtyTracking | undefined;
  handlesFaults = false;

  readonly #resources: DomainResources;
  readonly #slot: number;
  readonly #table: PageTable;
  readonly #granuleLg2: GranuleLg2;
  readonly #inputBits: number;
  readonly #startLevel: number;
  readonly #rootFrames: number;
  /** What a mapping that devices may write to has in place of PROT_WRITE. */
  readonly #writable: number;
  readonly #tags = new Map<SmmuDevice, number>();
  /** 'per-psmmu': the ID it has for life; else 0. */
  readonly #homeTag: number;
  #invs: readonly Inv<SmmuDevice>[] = [];

  private constructor(
    resources: DomainResources,
    home: SmmuDevice,
    { stage, nestParent = false, dirty = false }: DomainKind,
    parts: { slot: number; root: number; homeTag: number },
  ) {
    this.#resources = resources;
    this.home = home;
    this.stage = stage;
    this.nestParent = nestParent;
    const geometry = geometryOf(home, stage);
    this.#granuleLg2 = geometry.granuleLg2;
    this.pageSizesLg2 = leafSizesLg2(geometry.granuleLg2, home.features.oasBits);
    this.#inputBits = geometry.inputBits;
    this.#startLevel = geometry.startLevel;
    this.#rootFrames = geometry.rootBytes / FRAME_BYTES;
    this.#slot = parts.slot;
    this.#homeTag = parts.homeTag;
    this.aperture = { firstUnit: 0, lastUnit: 2 ** (geometry.inputBits - FRAME_LG2) - 1 };
    const { memory, kernel, frames } = resources;
    this.#table = new PageTable({
      memory,
      kernel,
      descriptor: parts.slot,
      stage,
      granuleLg2: geometry.granuleLg2,
      inputBits: geometry.inputBits,
      outputBits: home.features.oasBits,
      startLevel: geometry.startLevel,
      root: parts.root * FRAME_BYTES,
      frames: {
        alloc: () => (fails(resources, 'io_pgtable table') ? -ENOMEM : frames.alloc(geometry.granuleLg2)),
        free: (pfn) => this.#freeTable(pfn),
      },
    });
    this.dirty = dirty
      ? new TableDirtyTracking(
          this.#table,
          resources.compat === '7.0',
          home.bugs['dirty-cleared-without-flush'],
        )
      : undefined;
    this.#writable = dirty ? PROT_WRITE | PROT_DBM | PROT_DIRTY : PROT_WRITE;
  }

  /** @returns a domain | -ENOMEM | -EBUSY no ASID left | -ENOSPC no VMID left */
  static create(resources: DomainResources, home: SmmuDevice, kind: DomainKind): Smmuv3PagingDomain | number {
    const { stage } = kind;
    const { frames, slots, sharing } = resources;
    const sites = ['smmu_domain', 'io_pgtable', 'io_pgtable pgd', stage === 1 ? 'asid' : 'vmid'];
    if (sites.some((site) => fails(resources, site))) return -ENOMEM;
    const bytes = geometryOf(home, stage).rootBytes;
    const slot = slots.alloc();
    if (slot < 0) return slot;
    const root = frames.alloc(Math.log2(bytes));
    if (root < 0) {
      slots.free(slot);
      return root;
    }
    frames.zero(root, bytes / FRAME_BYTES);
    const homeTag = sharing === 'per-psmmu' ? allocateTag(home, stage) : 0;
    if (homeTag < 0) {
      frames.free(root, bytes / FRAME_BYTES);
      slots.free(slot);
      return homeTag;
    }
    return new Smmuv3PagingDomain(resources, home, kind, { slot, root, homeTag });
  }

  /** Whether a device behind `smmu` can use this table. */
  fits(smmu: SmmuDevice): boolean {
    if (smmu === this.home) return true;
    if (this.#resources.sharing === 'per-psmmu') return false;
    const { stage1, stage2, oas, granulesLg2, httuDirty, coherent } = smmu.features;
    if (this.dirty !== undefined && !(httuDirty && coherent)) return false;
    if (oas !== this.home.features.oas || !granulesLg2.includes(this.#granuleLg2)) return false;
    return this.stage === 1 ? stage1 : stage2;
  }

  get invs(): readonly Inv<SmmuDevice>[] {
    return this.#invs;
  }

  map(iovaPage: number, pfn: number, pages: number, prot: number): number {
    // An entry without access is none (io-pgtable-arm.c arm_lpae_map_pages).
    if ((prot & (IOMMU_READ | IOMMU_WRITE)) === 0) return -EINVAL;
    const bits = (prot & PROT_WRITE) === 0 ? prot : prot | this.#writable;
    const status = this.#table.map(iovaPage, pfn, pages, bits);
    // A device may have used, and an SMMU cached, what was mapped before the failure and is unmapped again.
    if (status === -ENOMEM || status === -EEXIST) this.#invalidateFailedMap(iovaPage, pages);
    return status;
  }

  #invalidateFailedMap(firstPage: number, pages: number): void {
    const freed = this.#table.takeFreed();
    const range = { firstPage, pages, leaf: freed.length === 0, granuleLg2: this.#granuleLg2 };
    if (invalidateRange(this.#invs, range, null, this.#resources.tick) < 0) return;
    for (const pfn of freed) this.#freeTable(pfn);
  }

  #freeTable(pfn: number): void {
    this.#resources.frames.free(pfn, 2 ** (this.#granuleLg2 - FRAME_LG2));
  }

  unmap(iovaPage: number, pages: number, gather: Gather): number {
    const unmapped = this.#table.unmap(iovaPage, pages);
    if (unmapped <= 0) return unmapped;
    const empty = gather.lastUnit < gather.firstUnit;
    const last = iovaPage + pages - 1;
    gather.firstUnit = empty ? iovaPage : Math.min(gather.firstUnit, iovaPage);
    gather.lastUnit = empty ? last : Math.max(gather.lastUnit, last);
    for (const pfn of this.#table.takeFreed()) gather.freedTables.push(pfn);
    return unmapped;
  }

  sync(gather: Gather): number {
    if (gather.lastUnit < gather.firstUnit) return 0;
    const range = {
      firstPage: gather.firstUnit,
      pages: gather.lastUnit - gather.firstUnit + 1,
      leaf: gather.freedTables.length === 0,
      granuleLg2: this.#granuleLg2,
    };
    const notes = gather.wantNotes ? gather.notes : null;
    const status = invalidateRange(this.#invs, range, notes, this.#resources.tick);
    // An SMMU that did not answer may still walk them: the tables stay unlinked and out of use.
    if (status < 0) return status;
    for (const pfn of gather.freedTables) this.#freeTable(pfn);
    gather.freedTables.length = 0;
    gather.firstUnit = 0;
    gather.lastUnit = -1;
    return 0;
  }

  lookup(iovaPage: number): number {
    return this.#table.lookup(iovaPage);
  }

  free(): void {
    if (this.#invs.length > 0) bug('a domain is freed while a device is attached');
    if (this.#homeTag !== 0) releaseTag(this.home, this.stage, this.#homeTag);
    const { frames, slots } = this.#resources;
    this.#table.releaseFreed();
    this.#table.destroy();
    frames.free(this.#table.root / FRAME_BYTES, this.#rootFrames);
    slots.free(this.#slot);
  }

  /** The ID that a device behind `smmu` gets, made when there is none yet. @returns ID | -EBUSY | -ENOSPC */
  holdTag(smmu: SmmuDevice): number {
    const held = this.tagOn(smmu);
    if (held !== 0) return held;
    const tag = allocateTag(smmu, this.stage);
    if (tag > 0) this.#tags.set(smmu, tag);
    return tag;
  }

  /** The VMID that a vIOMMU of this parent takes over: 0 when it has to bring its own. */
  get sharedVmid(): number {
    return this.#homeTag;
  }

  tagOn(smmu: SmmuDevice): number {
    return this.#homeTag !== 0 && smmu === this.home ? this.#homeTag : (this.#tags.get(smmu) ?? 0);
  }

  /** An attach that failed after holdTag(): the ID was never in use. */
  dropUnusedTag(smmu: SmmuDevice): void {
    const tag = this.#tags.get(smmu);
    const type = this.stage === 1 ? S1_ASID : S2_VMID;
    if (tag === undefined || this.#invs.some((inv) => inv.smmu === smmu && inv.type === type)) return;
    this.#tags.delete(smmu);
    releaseTag(smmu, this.stage, tag);
  }

  /**
   * Before a stream of `smmu` may use the table.
   * @param vsmmuVmid  of the vIOMMU in between, 0 for none
   * @param atsSid     StreamID of a device whose ATC may hold translations of this table, -1 for none
   * @param ssid       of those translations, or ANY_SSID
   */
  addUser(smmu: SmmuDevice, vsmmuVmid: number, atsSid: number, ssid: number): void {
    this.#invs = mergeInv(this.#invs, this.#key(smmu, vsmmuVmid));
    if (atsSid >= 0) this.#invs = mergeInv(this.#invs, this.#atsKey(smmu, atsSid, ssid));
  }

  /**
   * When a stream of `smmu` no longer uses the table, and its ATC has been invalidated. After the last one nothing
   * under the tag is left, and an ID of the domain's own goes back.
   * @returns 0 | -ETIMEDOUT the ID stays out of use
   */
  removeUser(smmu: SmmuDevice, vsmmuVmid: number, atsSid: number, ssid: number): number {
    if (atsSid >= 0) this.#invs = unrefInv(this.#invs, this.#atsKey(smmu, atsSid, ssid)).invs;
    const key = this.#key(smmu, vsmmuVmid);
    const { invs, last } = unrefInv(this.#invs, key);
    // Out of the array only once it is clean: no unmap can slip in between on this thread.
    this.#invs = invs;
    if (!last) return 0;
    const status = key.type === S1_ASID ? smmu.flushAsid(key.id) : smmu.flushVmid(key.id);
    if (status < 0) return status;
    if (vsmmuVmid === 0 && this.#tags.delete(smmu)) releaseTag(smmu, this.stage, key.id);
    return 0;
  }

  stage1Config(smmu: SmmuDevice): Stage1Config {
    return {
      asid: this.tagOn(smmu),
      root: this.#table.root,
      inputBits: this.#inputBits,
      granuleLg2: this.#granuleLg2,
      ips: smmu.features.oas,
      dirty: this.dirty !== undefined,
    };
  }

  stage2Config(smmu: SmmuDevice, vmid: number): Stage2Config {
    return {
      vmid,
      root: this.#table.root,
      inputBits: this.#inputBits,
      startLevel: this.#startLevel,
      granuleLg2: this.#granuleLg2,
      ps: smmu.features.oas,
      fwb: this.nestParent && smmu.features.s2fwb,
    };
  }

  #atsKey(smmu: SmmuDevice, sid: number, ssid: number) {
    return { smmu, type: this.nestParent ? ATS_FULL : ATS, id: sid, ssid } as const;
  }

  #key(smmu: SmmuDevice, vsmmuVmid: number) {
    if (vsmmuVmid !== 0) return { smmu, type: S2_VMID_VSMMU, id: vsmmuVmid } as const;
    const type = this.stage === 1 ? S1_ASID : S2_VMID;
    return { smmu, type, id: this.tagOn(smmu) } as const;
  }
}

const fails = ({ allocFails }: DomainResources, site: string): boolean => allocFails?.(site) === true;

/** Linux takes the two from allocators that name exhaustion differently. @returns ID | -EBUSY | -ENOSPC */
function allocateTag(smmu: SmmuDevice, stage: 1 | 2): number {
  if (stage === 2) return smmu.vmids.allocate();
  const asid = smmu.asids.allocate();
  return asid < 0 ? -EBUSY : asid;
}

const releaseTag = (smmu: SmmuDevice, stage: 1 | 2, tag: number): void =>
  stage === 1 ? smmu.asids.free(tag) : smmu.vmids.free(tag);

interface Geometry {
  readonly granuleLg2: GranuleLg2;
  readonly inputBits: number;
  readonly startLevel: number;
  readonly rootBytes: number;
}

/**
 * The host's own page size where the SMMU has it, else the next larger: arm_lpae_restrict_pgsizes for 4 KiB pages.
 * @source drivers/iommu/io-pgtable-arm.c
 */
function geometryOf(smmu: SmmuDevice, stage: 1 | 2): Geometry {
  const { oasBits, granulesLg2 } = smmu.features;
  const granuleLg2 = granulesLg2[0]!;
  const inputBits = stage === 1 ? S1_INPUT_BITS : oasBits;
  const startLevel =
    stage === 1 ? firstLevel(inputBits, granuleLg2) : stage2StartLevel(inputBits, oasBits, granuleLg2);
  return { granuleLg2, inputBits, startLevel, rootBytes: rootBytes(inputBits, startLevel, granuleLg2) };
}
