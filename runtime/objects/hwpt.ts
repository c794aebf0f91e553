/**
 * Hardware page tables: kernel-managed over an IOAS (paging), or a guest's over a nest parent (nested).
 * struct iommufd_hw_pagetable, iommufd_hwpt_paging, iommufd_hwpt_nested.
 *
 * An automatic paging table is made by an attach to an IOAS, is as good as any other automatic one, and goes with its
 * last device; a manual one (HWPT_ALLOC) is never picked, and stays.
 *
 * @source drivers/iommu/iommufd/hw_pagetable.c
 */
import { EFAULT, EINVAL, ENOENT, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import { IOMMU_HW_CAP_DIRTY_TRACKING } from '../../uapi/iommufd/hw-info.js';
import {
  type HwptAlloc,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_FAULT_ID_VALID,
} from '../../uapi/iommufd/hwpt.js';
import type { HwptInvalidate } from '../../uapi/iommufd/hwpt-invalidate.js';
import type { IommufdCtx } from '../core/ctx.js';
import { IommufdObject } from '../core/iommufd-object.js';
import {
  NESTED_VIOMMU_ID,
  OBJ_ANY,
  OBJ_DEVICE,
  OBJ_FAULT,
  OBJ_HWPT_NESTED,
  OBJ_HWPT_PAGING,
  OBJ_IOAS,
  OBJ_VIOMMU,
} from '../core/objects-layout.js';
import type { UcmdOf } from '../core/ucmd.js';
import type { Domain, NestedDomain, PagingDomain } from '../drivers/contract.js';
import { type UserData, userData } from '../drivers/user-data.js';
import type { Device } from './device.js';
import type { Fault } from './fault.js';
import type { Ioas } from './ioas.js';
import type { Viommu } from './viommu.js';

const NESTED_FLAGS = IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID;
const PAGING_FLAGS =
  IOMMU_HWPT_ALLOC_NEST_PARENT |
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING |
  IOMMU_HWPT_FAULT_ID_VALID |
  IOMMU_HWPT_ALLOC_PASID;

/** Any page table. struct iommufd_hw_pagetable. */
abstract class HwPagetable extends IommufdObject {
  abstract readonly domain: Domain;
  /** It may be attached to a PASID, or to a device whose PASIDs are attached (ALLOC_PASID). */
  readonly pasidCompat: boolean;
  #fault: Fault | null = null;

  constructor(ctx: IommufdCtx, id: number, type: number, flags: number) {
    super(ctx, id, type);
    this.pasidCompat = (flags & IOMMU_HWPT_ALLOC_PASID) !== 0;
  }

  /** Where its faults go. */
  get fault(): Fault | null {
    return this.#fault;
  }

  /** Before it is published. */
  handleFaults(fault: Fault): void {
    this.#fault = fault;
    this.domain.handlesFaults = true;
    fault.addUser();
  }

  protected destroyCommon(): void {
    this.domain.free();
    this.#fault?.dropUser();
  }
}

export class HwptPaging extends HwPagetable {
  readonly ioas: Ioas;
  readonly domain: PagingDomain;
  readonly nestParent: boolean;
  /** Non-coherent DMA cannot happen through it: decided when it is made, for the device it is made for. */
  readonly enforceCacheCoherency: boolean;
  /** Made by an attach to the IOAS; dies with its last device. */
  auto = false;

  private constructor(ioas: Ioas, id: number, device: Device, domain: PagingDomain, flags: number) {
    super(ioas.ctx, id, OBJ_HWPT_PAGING, flags);
    this.ioas = ioas;
    this.domain = domain;
    this.nestParent = (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
    this.enforceCacheCoherency = device.enforceCacheCoherency;
    ioas.addUser();
  }

  /**
   * A page table that mirrors the IOAS; not published yet.
   * @returns it | -EOPNOTSUPP flags | -ENOMEM | -EADDRINUSE a mapping does not fit it | -EFAULT | what
   *   `first` returned
   * @param first  done when the domain exists and before it is filled; undone by the caller's `undo`
   * @param data   the driver's own
   * @source iommufd_hwpt_paging_alloc
   */
  static alloc(
    ctx: IommufdCtx,
    ioas: Ioas,
    device: Device,
    flags: number,
    first?: { attach(hwpt: HwptPaging): number; undo(): void },
    data: UserData | null = null,
  ): HwptPaging | number {
    if ((flags & ~PAGING_FLAGS) !== 0) return -EOPNOTSUPP;
    if ((flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0 && !canTrackDirty(device)) return -EOPNOTSUPP;
    if ((flags & IOMMU_HWPT_FAULT_ID_VALID) !== 0 && (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0)
      return -EOPNOTSUPP;
    const id = ctx.reserve(OBJ_HWPT_PAGING);
    if (id < 0) return id;
    const domain = device.iommu.allocPaging(device.host, flags & ~IOMMU_HWPT_FAULT_ID_VALID, data);
    if (typeof domain === 'number') {
      ctx.objects.free(id);
      return domain;
    }
    const hwpt = new HwptPaging(ioas, id, device, domain, flags);
    let status = first?.attach(hwpt) ?? 0;
    if (status === 0) {
      status = ioas.iopt.addDomain(domain);
      if (status < 0) first?.undo();
    }
    if (status < 0) {
      ctx.abort(hwpt);
      return status;
    }
    ioas.hwpts.add(hwpt);
    return hwpt;
  }

  /** A device no longer uses it: an automatic one goes with the last. @source iommufd_hw_pagetable_put */
  giveUp(): void {
    // Others still using it is no failure: it stays for them.
    if (this.auto) this.ctx.destroyHeld(this, 0);
    else this.dropUser();
  }

  override destroy(): void {
    if (this.ioas.hwpts.delete(this)) this.ioas.iopt.removeDomain(this.domain);
    this.destroyCommon();
    this.ioas.dropUser();
  }
}

export class HwptNested extends HwPagetable {
  readonly parent: HwptPaging;
  readonly viommu: Viommu | null;
  readonly domain: NestedDomain;

  constructor(id: number, parent: HwptPaging, viommu: Viommu | null, domain: NestedDomain, flags: number) {
    super(parent.ctx, id, OBJ_HWPT_NESTED, flags);
    this.parent = parent;
    this.viommu = viommu;
    this.domain = domain;
    (viommu ?? parent).addUser();
    this.ctx.objects.setPayload(id, NESTED_VIOMMU_ID, viommu?.id ?? 0);
  }

  override get invalidator(): NestedDomain {
    return this.domain;
  }

  giveUp(): void {
    this.dropUser();
  }

  override destroy(): void {
    this.destroyCommon();
    (this.viommu ?? this.parent).dropUser();
  }
}

export type Hwpt = HwptPaging | HwptNested;

/** The table that IOVAs of this one end in. @source find_hwpt_paging */
export function findHwptPaging(hwpt: Hwpt): HwptPaging {
  return hwpt instanceof HwptPaging ? hwpt : hwpt.parent;
}

/** @source hw_pagetable.c iommufd_hwpt_alloc */
export function hwptAlloc(ucmd: UcmdOf<typeof HwptAlloc>): number {
  const { ctx, cmd } = ucmd;
  if (cmd.reserved !== 0) return -EOPNOTSUPP;
  if ((cmd.dataType === IOMMU_HWPT_DATA_NONE) !== (cmd.dataLen === 0)) return -EINVAL;
  const device = ctx.get<Device>(cmd.devId, OBJ_DEVICE);
  if (device === undefined) return -ENOENT;
  const target = ctx.get(cmd.ptId, OBJ_ANY);
  if (target === undefined) {
    ctx.put(device);
    return -EINVAL;
  }
  const hwpt = allocOn(ucmd, device, target);
  ctx.put(target);
  ctx.put(device);
  if (typeof hwpt === 'number') return hwpt;
  ucmd.newObject = hwpt;
  if ((cmd.flags & IOMMU_HWPT_FAULT_ID_VALID) !== 0) {
    const fault = ctx.get<Fault>(cmd.faultId, OBJ_FAULT);
    if (fault === undefined) return -ENOENT;
    hwpt.handleFaults(fault);
    ctx.put(fault);
  }
  cmd.outHwptId = hwpt.id;
  return ucmd.respond();
}

function allocOn(ucmd: UcmdOf<typeof HwptAlloc>, device: Device, target: IommufdObject): Hwpt | number {
  const { ctx, cmd } = ucmd;
  switch (target.type) {
    case OBJ_IOAS: {
      return HwptPaging.alloc(ctx, target as Ioas, device, cmd.flags, undefined, dataOf(ucmd));
    }
    case OBJ_HWPT_PAGING:
      return nestedOnParent(ucmd, device, target as HwptPaging);
    case OBJ_VIOMMU:
      return nestedOnViommu(ucmd, device, target as Viommu);
    default:
      return -EINVAL;
  }
}

/** @source iommufd_hwpt_nested_alloc */
function nestedOnParent(
  ucmd: UcmdOf<typeof HwptAlloc>,
  device: Device,
  parent: HwptPaging,
): HwptNested | number {
  const { cmd } = ucmd;
  const { iommu, host } = device;
  if ((cmd.flags & ~NESTED_FLAGS) !== 0 || cmd.dataLen === 0) return -EOPNOTSUPP;
  if (iommu.allocNested === undefined) return -EOPNOTSUPP;
  if (parent.auto || !parent.nestParent || parent.domain.driver !== iommu.driver) return -EINVAL;
  const flags = cmd.flags & ~IOMMU_HWPT_FAULT_ID_VALID;
  return makeNested(
    ucmd,
    parent,
    null,
    (data) => iommu.allocNested?.(host, parent.domain, data, flags) ?? -EOPNOTSUPP,
  );
}

/** @source iommufd_viommu_alloc_hwpt_nested */
function nestedOnViommu(ucmd: UcmdOf<typeof HwptAlloc>, device: Device, viommu: Viommu): HwptNested | number {
  const { cmd } = ucmd;
  if (viommu.iommu !== device.iommu) return -EINVAL;
  if ((cmd.flags & ~NESTED_FLAGS) !== 0 || cmd.dataLen === 0) return -EOPNOTSUPP;
  const flags = cmd.flags & ~IOMMU_HWPT_FAULT_ID_VALID;
  return makeNested(ucmd, viommu.parent, viommu, (data) => viommu.driver.allocNested(data, flags));
}

function makeNested(
  ucmd: UcmdOf<typeof HwptAlloc>,
  parent: HwptPaging,
  viommu: Viommu | null,
  make: (data: UserData) => NestedDomain | number,
): HwptNested | number {
  const { ctx, cmd } = ucmd;
  const data = dataOf(ucmd);
  if (data === null) return -EOPNOTSUPP;
  const id = ctx.reserve(OBJ_HWPT_NESTED);
  if (id < 0) return id;
  const domain = make(data);
  if (typeof domain === 'number') {
    ctx.objects.free(id);
    return domain;
  }
  return new HwptNested(id, parent, viommu, domain, cmd.flags);
}

/** The driver's own data of a call, null when there is none. */
function dataOf({ ctx, cmd }: UcmdOf<typeof HwptAlloc>): UserData | null {
  return userData(ctx.core.current.mm, cmd.dataType, cmd.dataUptr, cmd.dataLen);
}

/** The core's own invalidations go the way that any thread's go. */
export function hwptInvalidate(ucmd: UcmdOf<typeof HwptInvalidate>): number {
  const status = ucmd.ctx.invalidations.execute(ucmd.cmd);
  return ucmd.respond() < 0 ? -EFAULT : status;
}

function canTrackDirty(device: Device): boolean {
  return (device.iommu.hwInfo(device.host).capabilities & BigInt(IOMMU_HW_CAP_DIRTY_TRACKING)) !== 0n;
}
