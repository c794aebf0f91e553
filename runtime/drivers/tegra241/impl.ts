/**
 * What a CMDQV adds to the driver of its SMMU: its facts for GET_HW_INFO, a type of vIOMMU, an interrupt.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/tegra241-cmdqv.c tegra241_cmdqv_impl_ops
 */
import { HwInfoTegra241Cmdqv } from '../../../uapi/drivers/tegra241.js';
import { IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV } from '../../../uapi/iommufd/hw-info.js';
import { IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV } from '../../../uapi/iommufd/viommu.js';
import type { DriverViommu, HostDevice, ViommuEvent, ViommuOwner } from '../contract.js';
import type { SmmuImpl } from '../smmuv3/impl.js';
import type { SmmuDevice } from '../smmuv3/smmu-device.js';
import type { ViommuParts } from '../smmuv3/viommu.js';
import type { UserData } from '../user-data.js';
import { type CmdqvOptions, Tegra241Cmdqv } from './cmdqv.js';
import { Tegra241Vintf } from './vintf.js';

export class Tegra241CmdqvImpl implements SmmuImpl {
  readonly #cmdqv: Tegra241Cmdqv;

  private constructor(cmdqv: Tegra241Cmdqv) {
    this.#cmdqv = cmdqv;
  }

  /** @returns that of a CMDQV that is enabled | -ETIMEDOUT */
  static probe(smmu: SmmuDevice, options: CmdqvOptions): Tegra241CmdqvImpl | number {
    const cmdqv = new Tegra241Cmdqv(smmu, options);
    const status = cmdqv.reset();
    return status < 0 ? status : new Tegra241CmdqvImpl(cmdqv);
  }

  hwInfo(_device: HostDevice, type: number): Uint8Array | null {
    if (type !== IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV) return null;
    const { version, vcmdqsPerVintf, sidsPerVintf } = this.#cmdqv;
    return HwInfoTegra241Cmdqv.toBytes({
      version,
      log2vcmdqs: Math.log2(vcmdqsPerVintf),
      log2vsids: Math.log2(sidsPerVintf),
    });
  }

  supportsViommu(type: number): boolean {
    return type === IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV;
  }

  allocViommu(parts: ViommuParts, data: UserData | null, owner: ViommuOwner): DriverViommu | number {
    return Tegra241Vintf.allocate(this.#cmdqv, parts, data, owner);
  }

  poll(report: (event: ViommuEvent) => void): boolean {
    return this.#cmdqv.poll(report);
  }
}
