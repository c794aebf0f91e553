/**
 * What an implementer's extension adds to the driver of an SMMU. struct arm_smmu_impl_ops.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.h
 */
import type { DriverViommu, HostDevice, ViommuEvent, ViommuOwner } from '../contract.js';
import type { UserData } from '../user-data.js';
import type { SmmuDevice } from './smmu-device.js';
import type { ViommuParts } from './viommu.js';

export interface SmmuImpl {
  /** hw_info. @returns null: it has no data of this IOMMU_HW_INFO_TYPE_* */
  hwInfo(device: HostDevice, type: number): Uint8Array | null;
  /** get_viommu_size. @param type IOMMU_VIOMMU_TYPE_* of its own */
  supportsViommu(type: number): boolean;
  /** A vIOMMU of its own type, over a parent that is checked by the SMMU's driver (vsmmu_init). */
  allocViommu(parts: ViommuParts, data: UserData | null, owner: ViommuOwner): DriverViommu | number;
  /** Its interrupt. @returns whether there was anything */
  poll(report: (event: ViommuEvent) => void): boolean;
}

/** Made when the SMMU is up. @returns it | -ETIMEDOUT | -ENODEV: the SMMU goes on without */
export type ImplProbe = (smmu: SmmuDevice) => SmmuImpl | number;
