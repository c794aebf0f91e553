/**
 * A vIOMMU with command queues of its own: an SMMUv3's vIOMMU, and a VINTF that carries its VMID, its StreamIDs, and
 * a page of registers for its guest. struct tegra241_vintf. Commands that its queues do not take go the way of any
 * vIOMMU's (IOMMU_HWPT_INVALIDATE).
 *
 * @source drivers/iommu/arm/arm-smmu-v3/tegra241-cmdqv.c tegra241_cmdqv_init_vintf_user, tegra241_vintf_init_vsid
 */
import { PAGE_BYTES, SID_MATCH } from '../../../hw/tegra241-cmdqv/registers.js';
import { EINVAL, ENOMEM, ENOSPC } from '../../../uapi/abi/errno.js';
import { ViommuTegra241Cmdqv } from '../../../uapi/drivers/tegra241.js';
import { IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV } from '../../../uapi/iommufd/viommu.js';
import type { DriverHwQueues, HostDevice, ViommuOwner } from '../contract.js';
import { type ClaimedVmid, Smmuv3Viommu, type ViommuParts } from '../smmuv3/viommu.js';
import { copyStructFromUser, copyStructToUser, type UserData } from '../user-data.js';
import type { Tegra241Cmdqv } from './cmdqv.js';
import { LogicalVcmdqs } from './vcmdq.js';

const MAX_U32 = 0xffff_ffffn;
/** VINTF_SID_MATCH has 31 bits for it. */
const MAX_VSID = 0x7fff_ffffn;
const TYPE = IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV;

export class Tegra241Vintf extends Smmuv3Viommu {
  override readonly hwQueues: DriverHwQueues;
  readonly #cmdqv: Tegra241Cmdqv;
  readonly #owner: ViommuOwner;
  readonly #index: number;
  readonly #sids: (HostDevice | null)[];
  #mmapOffset = 0;

  private constructor(
    parts: ViommuParts,
    claimed: ClaimedVmid,
    where: { cmdqv: Tegra241Cmdqv; owner: ViommuOwner; index: number },
  ) {
    super(parts, claimed);
    this.#cmdqv = where.cmdqv;
    this.#owner = where.owner;
    this.#index = where.index;
    this.hwQueues = new LogicalVcmdqs(where.cmdqv, where.index);
    this.#sids = Array.from({ length: where.cmdqv.sidsPerVintf }, () => null);
    where.cmdqv.setVintf(where.index, this);
  }

  /** @returns it | -EINVAL parent or data | -ENOSPC no VMID or VINTF | -ENOMEM | -ETIMEDOUT | -EFAULT */
  static allocate(
    cmdqv: Tegra241Cmdqv,
    parts: ViommuParts,
    data: UserData | null,
    owner: ViommuOwner,
  ): Tegra241Vintf | number {
    const claimed = Smmuv3Viommu.claim(parts);
    if (typeof claimed === 'number') return claimed;
    const checked = checkData(data);
    const index = checked < 0 ? checked : owner.allocFails('vintf id') ? -ENOMEM : cmdqv.freeVintf();
    const failed = index >= 0 && owner.allocFails('lvcmdqs') ? -ENOMEM : index;
    if (failed < 0) {
      Smmuv3Viommu.giveBack(parts, claimed);
      return failed;
    }
    const vintf = new Tegra241Vintf(parts, claimed, { cmdqv, owner, index });
    const status = vintf.#init(data!);
    if (status < 0) vintf.destroy();
    return status < 0 ? status : vintf;
  }

  #init(data: UserData): number {
    const status = this.#cmdqv.initVintf(this.#index, this.vmid, false);
    if (status < 0) return status;
    const offset = this.#owner.allocMmap(this.#cmdqv.page0(this.#index), PAGE_BYTES);
    if (offset < 0) return offset;
    this.#mmapOffset = offset;
    const out = { outVintfMmapOffset: BigInt(offset), outVintfMmapLength: BigInt(PAGE_BYTES) };
    return copyStructToUser(ViommuTegra241Cmdqv, out, data, TYPE);
  }

  override vdeviceInit(device: HostDevice, virtId: bigint): number {
    if (virtId > MAX_U32) return -EINVAL;
    // Linux 7.0 shifts bit 31 out, so that the queue would find another StreamID.
    if (virtId > MAX_VSID && this.#cmdqv.compat === 'fixed') return -EINVAL;
    if (this.#owner.allocFails('vintf sid')) return -ENOMEM;
    const slot = this.#sids.indexOf(null);
    if (slot < 0) return -ENOSPC;
    const status = super.vdeviceInit(device, virtId);
    if (status < 0) return status;
    this.#sids[slot] = device;
    const match = SID_MATCH.SID.put(SID_MATCH.VALID.put(0, 1), Number(virtId & MAX_VSID));
    this.#cmdqv.setSid(this.#index, slot, match, device.streamId);
    return 0;
  }

  override vdeviceDestroy(device: HostDevice, virtId: bigint): void {
    const slot = this.#sids.indexOf(device);
    if (slot >= 0) {
      this.#cmdqv.setSid(this.#index, slot, 0, 0);
      this.#sids[slot] = null;
    }
    super.vdeviceDestroy(device, virtId);
  }

  /** @source tegra241_cmdqv_destroy_vintf_user */
  override destroy(): void {
    if (this.#mmapOffset !== 0) this.#owner.freeMmap(this.#mmapOffset);
    this.#cmdqv.deinitVintf(this.#index);
    this.#cmdqv.setVintf(this.#index, null);
    super.destroy();
  }
}

/** Outputs only, but Linux copies the struct in before it has anything to say. @returns 0 | -EINVAL | -EFAULT */
function checkData(data: UserData | null): number {
  if (data === null) return -EINVAL;
  const given = copyStructFromUser(ViommuTegra241Cmdqv, data, TYPE);
  return typeof given === 'number' ? given : 0;
}
