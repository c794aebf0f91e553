/**
 * A physical device bound to an iommufd, and how it is attached to page tables. struct iommufd_device.
 *
 * Made by VFIO's bind and gone with its unbind; user space cannot destroy it (its driver is a user).
 *
 * @source drivers/iommu/iommufd/device.c
 */
import { bug } from '../../hw/memory/bug.js';
import { EFAULT, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import {
  type HwInfo,
  IOMMU_HW_CAP_PCI_PASID_EXEC,
  IOMMU_HW_CAP_PCI_PASID_PRIV,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HW_INFO_TYPE_DEFAULT,
} from '../../uapi/iommufd/hw-info.js';
import { type IommufdCtx, REMOVE_TOMBSTONE, REMOVE_WAIT } from '../core/ctx.js';
import { groupKey } from '../core/group-key.js';
import { IommufdObject } from '../core/iommufd-object.js';
import { OBJ_ANY, OBJ_DEVICE, OBJ_HWPT_NESTED, OBJ_HWPT_PAGING, OBJ_IOAS } from '../core/objects-layout.js';
import type { UcmdOf } from '../core/ucmd.js';
import type { HostDevice, IommuInstance } from '../drivers/contract.js';
import { IommufdGroup, NO_PASID } from './group.js';
import { type Hwpt, HwptPaging } from './hwpt.js';
import type { Ioas } from './ioas.js';
import type { Vdevice } from './vdevice.js';

/** Zeroes for clear_user. */
const ZEROES = new Uint8Array(4096);

export class Device extends IommufdObject {
  readonly host: HostDevice;
  readonly group: IommufdGroup;
  vdevice: Vdevice | null = null;
  /** Its page tables have to keep non-coherent DMA out, which its IOMMU can. */
  readonly enforceCacheCoherency: boolean;
  /** Unbind has begun: no new vDEVICE. */
  destroying = false;

  constructor(ctx: IommufdCtx, id: number, host: HostDevice, group: IommufdGroup) {
    super(ctx, id, OBJ_DEVICE);
    this.host = host;
    this.group = group;
    this.enforceCacheCoherency = host.iommu.enforcesCacheCoherency?.(host) ?? false;
  }

  get iommu(): IommuInstance {
    return this.host.iommu;
  }

  /**
   * Take a device's DMA away from everybody else.
   * @returns the bound device | -EPERM its group belongs to somebody else | -ENOMEM | what the driver said
   * @source iommufd_device_bind
   */
  static bindTo(ctx: IommufdCtx, host: HostDevice): Device | number {
    const key = groupKey(host);
    const claimed = ctx.core.claimDma(key, ctx);
    if (claimed < 0) return claimed;
    const known = ctx.groups.get(key);
    const { core } = ctx;
    const noGroup = known === undefined && (core.allocFails('iommufd_group') || core.allocFails('groups'));
    const id = noGroup ? -ENOMEM : ctx.reserve(OBJ_DEVICE);
    if (id < 0) {
      core.releaseDma(key);
      return id;
    }
    const group = known ?? new IommufdGroup(ctx, key);
    const device = new Device(ctx, id, host, group);
    const status = group.bind(device);
    if (status < 0) {
      ctx.objects.free(id);
      ctx.core.releaseDma(key);
      return status;
    }
    ctx.groups.set(key, group);
    // VFIO is a user until unbind(), and keeps the file open.
    device.addUser();
    if (!host.ownedByTest) ctx.getFile();
    ctx.publish(device);
    return device;
  }

  /** @source iommufd_device_unbind */
  unbind(): void {
    const { ctx } = this;
    const status = ctx.destroyHeld(this, REMOVE_WAIT);
    if (status < 0) ctx.context.log(`iommufd: device ${this.id} is still in use at unbind (${status})`);
    if (!this.host.ownedByTest) ctx.putFile();
  }

  /**
   * @param ptId   an IOAS (a page table is found or made) or a page table
   * @param pasid  which of the device's address spaces; NO_PASID is the device itself
   * @returns ID of the page table in use | -ENOENT | -EINVAL | -EADDRINUSE | -EBUSY | -ENOMEM | -EOPNOTSUPP
   */
  attach(ptId: number, pasid = NO_PASID): number {
    const attach: ChangePt = (hwpt) => {
      const status = this.group.attach(this, hwpt, pasid);
      return status < 0 ? status : null;
    };
    const used = this.#changePt(ptId, attach, pasid);
    if (used >= 0) this.addUser();
    return used;
  }

  /** As attach(), from one page table to another. */
  replace(ptId: number, pasid = NO_PASID): number {
    return this.#changePt(ptId, (hwpt) => this.group.replace(this, hwpt, pasid), null);
  }

  detach(pasid = NO_PASID): void {
    const hwpt = this.group.detach(this, pasid);
    if (hwpt === null) return;
    hwpt.giveUp();
    this.dropUser();
  }

  /** A vDEVICE holds a short reference for as long as it lives: take it away before waiting for it. */
  override preDestroy(): void {
    this.destroying = true;
    const { vdevice, ctx } = this;
    if (vdevice === null) return;
    vdevice.addUser();
    const status = ctx.destroyHeld(vdevice, REMOVE_WAIT | REMOVE_TOMBSTONE);
    if (status < 0) bug(`vDEVICE ${vdevice.id} cannot be destroyed (${status})`);
  }

  override destroy(): void {
    this.group.unbind(this);
    this.ctx.core.releaseDma(this.group.key);
  }

  /** @param first  a first attach, of this PASID: a page table made for it is attached before it is filled */
  #changePt(ptId: number, change: ChangePt, first: number | null): number {
    const { ctx } = this;
    const target = ctx.get(ptId, OBJ_ANY);
    if (target === undefined) return -ENOENT;
    let left: Hwpt | null | number;
    let used = ptId;
    if (target.type === OBJ_HWPT_PAGING || target.type === OBJ_HWPT_NESTED) left = change(target as Hwpt);
    else if (target.type === OBJ_IOAS) {
      const auto = this.#autoDomain(target as Ioas, change, first);
      left = typeof auto === 'number' ? auto : auto.left;
      if (typeof auto !== 'number') used = auto.hwpt.id;
    } else left = -EINVAL;
    ctx.put(target);
    if (typeof left === 'number') return left;
    left?.giveUp();
    return used;
  }

  /**
   * Any automatic page table of the IOAS that the device can use is as good as another; -EINVAL says that it
   * cannot. When there is none, make one.
   * @source iommufd_device_auto_get_domain
   */
  #autoDomain(
    ioas: Ioas,
    change: ChangePt,
    first: number | null,
  ): { hwpt: Hwpt; left: Hwpt | null } | number {
    const { ctx } = this;
    for (const hwpt of ioas.hwpts) {
      if (!hwpt.auto || !ctx.lock(hwpt)) continue;
      const left = change(hwpt);
      ctx.put(hwpt);
      if (left === -EINVAL) continue;
      return typeof left === 'number' ? left : { hwpt, left };
    }
    const immediate =
      first === null
        ? undefined
        : {
            attach: (made: HwptPaging) => this.group.attach(this, made, first),
            undo: () => this.group.detach(this, first)?.giveUp(),
          };
    const hwpt = HwptPaging.alloc(ctx, ioas, this, 0, immediate);
    if (typeof hwpt === 'number') return hwpt;
    const left = immediate === undefined ? change(hwpt) : null;
    if (typeof left === 'number') {
      ctx.abort(hwpt);
      return left;
    }
    hwpt.auto = true;
    ctx.publish(hwpt);
    return { hwpt, left };
  }
}

/** Moves a device to a page table. @returns the one to give up, null when there is none, or -errno */
type ChangePt = (hwpt: Hwpt) => Hwpt | null | number;

/** @returns null: the driver has no data of this type */
function hwInfoOf({ iommu, host }: Device, type: number) {
  const info = iommu.hwInfo(host);
  if (type === IOMMU_HW_INFO_TYPE_DEFAULT || type === info.type) return info;
  const data = iommu.otherHwInfo?.(host, type) ?? null;
  return data === null ? null : { ...info, type, data };
}

/** @source device.c iommufd_get_hw_info */
export function getHwInfo(ucmd: UcmdOf<typeof HwInfo>): number {
  const { ctx, cmd } = ucmd;
  if ((cmd.flags & ~IOMMU_HW_INFO_FLAG_INPUT_TYPE) !== 0) return -EOPNOTSUPP;
  if (cmd.reserved.some((byte) => byte !== 0)) return -EOPNOTSUPP;
  const asked = (cmd.flags & IOMMU_HW_INFO_FLAG_INPUT_TYPE) !== 0 ? cmd.dataType : IOMMU_HW_INFO_TYPE_DEFAULT;
  const device = ctx.get<Device>(cmd.devId, OBJ_DEVICE);
  if (device === undefined) return -ENOENT;
  const info = hwInfoOf(device, asked);
  ctx.put(device);
  if (info === null) return -EOPNOTSUPP;
  if (ctx.core.allocFails('hw_info')) return -ENOMEM;

  const { mm: user } = ctx.core.current;
  const copied = Math.min(cmd.dataLen, info.data.byteLength);
  if (user.copyOut(cmd.dataUptr, info.data.subarray(0, copied)) < 0) return -EFAULT;
  for (let at = copied; at < cmd.dataLen; at += ZEROES.byteLength) {
    const part = ZEROES.subarray(0, Math.min(ZEROES.byteLength, cmd.dataLen - at));
    if (user.copyOut(cmd.dataUptr + BigInt(at), part) < 0) return -EFAULT;
  }
  cmd.dataLen = info.data.byteLength;
  cmd.dataType = info.type;
  cmd.outCapabilities = info.capabilities | pasidCapabilities(device.host);
  cmd.outMaxPasidLog2 = Math.floor(Math.log2(Math.max(maxPasidsOf(device.host), 1)));
  return ucmd.respond();
}

/** PASIDs that a device may use behind its IOMMU, 0 for none. */
export const maxPasidsOf = (host: HostDevice): number => host.iommu.maxPasids?.(host) ?? 0;

/** What the PASID capability of a PCI device has on. */
function pasidCapabilities(host: HostDevice): bigint {
  if (maxPasidsOf(host) === 0 || host.pci === false) return 0n;
  const execute = host.pasid?.execute ? IOMMU_HW_CAP_PCI_PASID_EXEC : 0;
  return BigInt(execute | (host.pasid?.privileged ? IOMMU_HW_CAP_PCI_PASID_PRIV : 0));
}
