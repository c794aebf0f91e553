/**
 * Whose a tag in an IOTLB is: the host's domains and vIOMMUs, as the core's objects and the driver's devices have them,
 * each with the table that its translations come from and whether an unmap there would reach the tag (the domain's
 * array of invalidations).
 */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { firstLevel } from '../../../hw/pagetable/geometry.js';
import type { IommufdCtx } from '../../../runtime/core/ctx.js';
import { OBJ_HWPT_PAGING, OBJ_VIOMMU } from '../../../runtime/core/objects-layout.js';
import { Smmuv3PagingDomain } from '../../../runtime/drivers/smmuv3/domain.js';
import { S1_ASID, S2_VMID, S2_VMID_VSMMU } from '../../../runtime/drivers/smmuv3/invs.js';
import type { SmmuDevice } from '../../../runtime/drivers/smmuv3/smmu-device.js';
import { Smmuv3Viommu } from '../../../runtime/drivers/smmuv3/viommu.js';
import type { Machine } from '../../../runtime/machine.js';
import type { HwptPaging } from '../../../runtime/objects/hwpt.js';
import type { Viommu } from '../../../runtime/objects/viommu.js';
import { TableWalk } from './table-walk.js';

export interface TaggedTable {
  readonly name: string;
  readonly walk: TableWalk;
  /** An unmap is told to this tag. */
  readonly listed: boolean;
  /** Of a vIOMMU: stage 1 is a guest's. */
  readonly guest: boolean;
}

export const pagingDomains = (machine: Machine): HwptPaging[] =>
  [...machine.core.opened].flatMap((ctx) => ctx.published(OBJ_HWPT_PAGING) as HwptPaging[]);

export const viommusOf = (ctx: IommufdCtx): Viommu[] => ctx.published(OBJ_VIOMMU) as Viommu[];

/** The table of a domain, as an SMMU is told of it. */
export function walkOf(memory: MachineMemory, domain: Smmuv3PagingDomain, smmu: SmmuDevice): TableWalk {
  if (domain.stage === 2) {
    const { root, inputBits, startLevel, granuleLg2 = 12 } = domain.stage2Config(smmu, 0);
    return new TableWalk(memory, { stage: 2, root, inputBits, startLevel, granuleLg2 });
  }
  const { root, inputBits, granuleLg2 = 12 } = domain.stage1Config(smmu);
  const startLevel = firstLevel(inputBits, granuleLg2);
  return new TableWalk(memory, { stage: 1, root, inputBits, startLevel, granuleLg2 });
}

/** Of one SMMU: by ASID, and by VMID. */
export interface Tags {
  readonly asids: ReadonlyMap<number, TaggedTable>;
  readonly vmids: ReadonlyMap<number, TaggedTable>;
}

export function tagsOf(machine: Machine, smmu: SmmuDevice): Tags {
  const { memory } = machine;
  const asids = new Map<number, TaggedTable>();
  const vmids = new Map<number, TaggedTable>();
  const named = new Map<unknown, string>();
  for (const { instance } of machine.iommus)
    for (const domain of instance.attached()) named.set(domain, 'a page table that is no object');
  for (const { id, domain } of pagingDomains(machine)) named.set(domain, `page table ${id}`);
  for (const [domain, name] of named) {
    if (!(domain instanceof Smmuv3PagingDomain)) continue;
    const tag = domain.tagOn(smmu);
    if (tag === 0) continue;
    const type = domain.stage === 1 ? S1_ASID : S2_VMID;
    const listed = domain.invs.some((inv) => inv.smmu === smmu && inv.type === type && inv.id === tag);
    const table = { name, walk: walkOf(memory, domain, smmu), listed, guest: false };
    (domain.stage === 1 ? asids : vmids).set(tag, table);
  }
  for (const ctx of machine.core.opened)
    for (const { id, driver } of viommusOf(ctx)) {
      if (!(driver instanceof Smmuv3Viommu) || driver.smmu !== smmu) continue;
      const { vmid, parent } = driver;
      const listed =
        vmids.get(vmid)?.listed === true ||
        parent.invs.some((inv) => inv.smmu === smmu && inv.type === S2_VMID_VSMMU && inv.id === vmid);
      vmids.set(vmid, { name: `vIOMMU ${id}`, walk: walkOf(memory, parent, smmu), listed, guest: true });
    }
  return { asids, vmids };
}
