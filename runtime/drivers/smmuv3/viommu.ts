/**
 * A vIOMMU: one guest's slice of one SMMU. It holds the VMID under which the guest's translations are cached,
 * and the guest's names for its devices (Linux: struct arm_vsmmu).
 *
 * s2Sharing 'shared': the VMID is the vIOMMU's own, from its creation to its destruction, so that one stage-2
 * domain can serve a vIOMMU on every SMMU. 'per-psmmu': it is the parent domain's, which has to belong to the
 * same SMMU, as in Linux 7.0.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3-iommufd.c arm_vsmmu_init
 */
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { EINVAL, ENOENT, ENOMEM, EOPNOTSUPP } from '../../../uapi/abi/errno.js';
import { HwptArmSmmuv3 } from '../../../uapi/drivers/smmuv3.js';
import { IOMMU_HWPT_DATA_ARM_SMMUV3 } from '../../../uapi/iommufd/hwpt.js';
import type { DriverHwQueues, HostDevice, IommuInstance, NestedDomain } from '../contract.js';
import { copyStructFromUser, type UserData } from '../user-data.js';
import type { Smmuv3PagingDomain } from './domain.js';
import { Smmuv3NestedDomain, type Vsmmu, validateVste } from './nested.js';
import type { SmmuDevice } from './smmu-device.js';
import { type ViommuRecords, ViommuTable } from './viommu-record.js';

const MAX_SID = 0xffff_ffffn;

export interface ViommuParts {
  readonly iommu: IommuInstance;
  readonly smmu: SmmuDevice;
  readonly parent: Smmuv3PagingDomain;
  readonly env: SyncEnv;
  readonly records: ViommuRecords;
  /** As DomainResources.allocFails. */
  readonly allocFails?: ((site: string) => boolean) | undefined;
  /** A vDEVICE is gone: no event may carry its virtual ID any more. */
  forget(viommu: Smmuv3Viommu, device: HostDevice): void;
}

/** A record and the VMID that stands in it. */
export interface ClaimedVmid {
  /** Linear offset. */
  readonly record: number;
  readonly vmid: number;
}

export class Smmuv3Viommu implements Vsmmu {
  readonly iommu: IommuInstance;
  readonly sharedBase: number;
  readonly smmu: SmmuDevice;
  readonly parent: Smmuv3PagingDomain;
  readonly vmid: number;
  readonly hwQueues?: DriverHwQueues;

  readonly #parts: ViommuParts;
  readonly #table: ViommuTable;
  readonly #vsids = new Map<HostDevice, bigint>();

  protected constructor(parts: ViommuParts, { record, vmid }: ClaimedVmid) {
    this.#parts = parts;
    this.iommu = parts.iommu;
    this.smmu = parts.smmu;
    this.parent = parts.parent;
    this.sharedBase = record;
    this.vmid = vmid;
    this.#table = new ViommuTable(parts.env, record);
  }

  /** @returns a vIOMMU | -EINVAL the parent is of another SMMU, or no nest parent | -ENOSPC no VMID | -ENOMEM */
  static create(parts: ViommuParts): Smmuv3Viommu | number {
    const claimed = Smmuv3Viommu.claim(parts);
    return typeof claimed === 'number' ? claimed : new Smmuv3Viommu(parts, claimed);
  }

  /** What every vIOMMU is made of. @returns as create() */
  static claim({ parent, smmu, records }: ViommuParts): ClaimedVmid | number {
    if (!parent.nestParent || parent.stage !== 2 || !parent.fits(smmu)) return -EINVAL;
    const shared = parent.sharedVmid;
    const vmid = shared !== 0 ? shared : smmu.vmids.allocate();
    if (vmid < 0) return vmid;
    const record = records.create(smmu.index, vmid);
    if (record >= 0) return { record, vmid };
    if (shared === 0) smmu.vmids.free(vmid);
    return record;
  }

  /** Undoes claim(): nothing was cached under the VMID. */
  static giveBack({ parent, smmu, records }: ViommuParts, { record, vmid }: ClaimedVmid): void {
    records.destroy(record);
    if (parent.sharedVmid === 0) smmu.vmids.free(vmid);
  }

  allocNested(data: UserData, flags: number): NestedDomain | number {
    if (flags !== 0) return -EOPNOTSUPP;
    const asked = copyStructFromUser(HwptArmSmmuv3, data, IOMMU_HWPT_DATA_ARM_SMMUV3);
    if (typeof asked === 'number') return asked;
    const vste = validateVste(asked.ste[0]!, asked.ste[1]!);
    if (typeof vste === 'number') return vste;
    if (this.#parts.allocFails?.('nested_domain')) return -ENOMEM;
    return new Smmuv3NestedDomain(this, vste);
  }

  /** StreamIDs have 32 bits; a wider virtual ID is one that no command can name, as in Linux. */
  vdeviceInit(device: HostDevice, virtId: bigint): number {
    if (device.iommu !== this.iommu) return -EINVAL;
    const status = virtId > MAX_SID ? 0 : this.#table.add(Number(virtId), device.streamId, device.index);
    if (status === 0) this.#vsids.set(device, virtId);
    return status;
  }

  vdeviceDestroy(device: HostDevice, virtId: bigint): void {
    if (this.#vsids.get(device) !== virtId) return;
    // First the guest's commands, then its events.
    if (virtId <= MAX_SID) this.#table.remove(Number(virtId));
    this.#vsids.delete(device);
    if (this.#parts.env.bugs?.['vevent-after-destroy']) return;
    this.#parts.forget(this, device);
  }

  vsidOf(device: HostDevice): number {
    const virtId = this.#vsids.get(device);
    return virtId === undefined ? -ENOENT : Number(virtId & MAX_SID);
  }

  /**
   * The guest's slice of the caches is emptied before its VMID can be anybody else's.
   * A VMID that the SMMU did not confirm to be clean is not used again.
   */
  destroy(): void {
    for (const [device, vsid] of [...this.#vsids]) this.vdeviceDestroy(device, vsid);
    this.#parts.records.destroy(this.sharedBase);
    if (this.parent.sharedVmid !== 0) return;
    if (this.smmu.flushVmid(this.vmid) === 0) this.smmu.vmids.free(this.vmid);
  }
}
