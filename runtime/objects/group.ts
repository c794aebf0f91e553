/**
 * What an iommufd keeps per IOMMU group: for the group as such and for each PASID, which page table it is attached
 * to, and which of its devices asked for it. struct iommufd_group, struct iommufd_attach.
 *
 *   pasid 0 (none)  -> page table, attach handle, devices that attached
 *   pasid 5         -> the same again
 *
 * The devices of a group cannot be told apart, so they all follow the first attach: hardware is pointed at
 * the page table once for the group, each device that attaches after that only adds its reserved regions.
 *
 * An attach handle is one attachment: a fault that came through it belongs to it, and is answered when it ends.
 *
 * Not modelled: software MSI windows (no device raises interrupts), virtual functions.
 *
 * @source drivers/iommu/iommufd/device.c, drivers/iommu/iommu.c iommu_attach_device_pasid, iommu_replace_device_pasid
 */
import { bug } from '../../hw/memory/bug.js';
import { EBUSY, EINVAL, ENOMEM, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import type { IommufdCtx } from '../core/ctx.js';
import type { Domain } from '../drivers/contract.js';
import { type Device, maxPasidsOf } from './device.js';
import { findHwptPaging, type Hwpt, type HwptPaging } from './hwpt.js';

/** Attachment of the group itself (IOMMU_NO_PASID). */
export const NO_PASID = 0;

/** Who attached a group, or a PASID of it, to what. struct iommufd_attach_handle. */
export interface AttachHandle {
  /** The device that attached first: faults are told of as its own. */
  readonly device: Device;
  readonly hwpt: Hwpt;
}

interface Attachment {
  handle: AttachHandle;
  readonly devices: Set<Device>;
}

export class IommufdGroup {
  readonly ctx: IommufdCtx;
  readonly key: string;
  /** Devices of the group that are bound to this iommufd. */
  readonly bound = new Set<Device>();
  /** By PASID. */
  readonly #attachments = new Map<number, Attachment>();
  /** While hardware is moved: what a fault that arrives then belongs to. */
  #moving: { readonly pasid: number; readonly handle: AttachHandle | null } | null = null;

  constructor(ctx: IommufdCtx, key: string) {
    this.ctx = ctx;
    this.key = key;
  }

  /** What the group itself is attached to. */
  get hwpt(): Hwpt | null {
    return this.#attachments.get(NO_PASID)?.handle.hwpt ?? null;
  }

  /** Attachments of the group and of its PASIDs, with who asked for each. */
  attachments(): Iterable<Readonly<Attachment>> {
    return this.#attachments.values();
  }

  /** iommu_attach_handle_get */
  handle(pasid: number): AttachHandle | null {
    if (this.#moving?.pasid === pasid) return this.#moving.handle;
    return this.#attachments.get(pasid)?.handle ?? null;
  }

  /**
   * @returns 0 | -EINVAL the group uses another page table, or the table does not suit the device or the PASID |
   *   -EBUSY attached already | -EADDRINUSE a reserved region is mapped | -ENOMEM | what the driver said
   * @source iommufd_hw_pagetable_attach
   */
  attach(device: Device, hwpt: Hwpt, pasid: number): number {
    const attachment = this.#attachments.get(pasid);
    if (attachment === undefined && (this.#fails('pasid_attach') || this.#fails('attach'))) return -ENOMEM;
    if (attachment?.devices.has(device)) return -EBUSY;
    if (this.#fails('attach_device')) return -ENOMEM;
    if (attachment !== undefined && attachment.handle.hwpt !== hwpt) return -EINVAL;
    const { space } = findHwptPaging(hwpt).ioas.iopt;
    if (pasid === NO_PASID) {
      const reserved = reserveFor(device, findHwptPaging(hwpt));
      if (reserved < 0) return reserved;
    }
    if (attachment === undefined) {
      const handle = this.#newHandle(device, hwpt, pasid);
      const status = typeof handle === 'number' ? handle : this.#point(handle, pasid, null);
      if (status < 0 || typeof handle === 'number') {
        if (pasid === NO_PASID) space.unreserve(device);
        return status;
      }
      this.#attachments.set(pasid, { handle, devices: new Set([device]) });
    } else attachment.devices.add(device);
    hwpt.addUser();
    return 0;
  }

  /**
   * Move the whole group, without a gap where the hardware can. On failure everything stays as it was.
   * @returns the page table that was left, whose use the caller gives up; null when nothing changed | -EINVAL
   *   not attached | -EADDRINUSE | -ENOMEM | what the driver said
   * @source iommufd_device_do_replace
   */
  replace(device: Device, hwpt: Hwpt, pasid: number): Hwpt | null | number {
    const attachment = this.#attachments.get(pasid);
    if (attachment === undefined || !attachment.devices.has(device)) return -EINVAL;
    const old = attachment.handle;
    if (old.hwpt === hwpt) return null;
    const paging = findHwptPaging(hwpt);
    const oldPaging = findHwptPaging(old.hwpt);
    const moves = pasid === NO_PASID && paging.ioas !== oldPaging.ioas;
    if (moves) {
      const status = this.#reserveAll(attachment, paging);
      if (status < 0) return status;
    }
    const handle = this.#newHandle(device, hwpt, pasid);
    const status = typeof handle === 'number' ? handle : this.#point(handle, pasid, old);
    if (status < 0 || typeof handle === 'number') {
      // 7.0 gives the reserved regions up even where both page tables are of one IOAS.
      if (moves || (pasid === NO_PASID && this.ctx.core.compat === '7.0'))
        unreserveAll(attachment.devices, paging);
      return status;
    }
    attachment.handle = handle;
    // 7.0 looks for the faults of the old attachment on the queue of the new page table.
    const queue = (this.ctx.core.compat === '7.0' ? hwpt : old.hwpt).fault;
    queue?.answerAll(old);
    if (moves) unreserveAll(attachment.devices, oldPaging);
    const count = attachment.devices.size;
    for (let i = 0; i < count; i++) hwpt.addUser();
    // One use of the old table is left for the caller to give up.
    for (let i = 1; i < count; i++) old.hwpt.dropUser();
    return old.hwpt;
  }

  /** @returns the page table that was left, whose use the caller gives up, or null when not attached */
  detach(device: Device, pasid: number): Hwpt | null {
    const attachment = this.#attachments.get(pasid);
    if (attachment === undefined || !attachment.devices.delete(device)) return null;
    const { handle } = attachment;
    if (attachment.devices.size === 0) {
      this.#attachments.delete(pasid);
      for (const other of this.bound) this.#mustMove(other, pasid, null);
      handle.hwpt.fault?.answerAll(handle);
    }
    if (pasid === NO_PASID) findHwptPaging(handle.hwpt).ioas.iopt.space.unreserve(device);
    return handle.hwpt;
  }

  /** A device joins: it is blocked, or follows what the group is attached to. @returns 0 | -errno */
  bind(device: Device): number {
    const followed: number[] = [];
    let status = 0;
    for (const [pasid, { handle }] of this.#attachments) {
      status = move(device, pasid, handle.hwpt.domain);
      if (status < 0) break;
      followed.push(pasid);
    }
    if (status === 0 && this.hwpt === null) status = move(device, NO_PASID, null);
    if (status === 0) this.bound.add(device);
    else for (const pasid of followed) move(device, pasid, null);
    return status;
  }

  unbind(device: Device): void {
    for (const { devices } of this.#attachments.values())
      if (devices.has(device)) bug(`device ${device.id} unbound while attached`);
    if (!this.bound.delete(device)) bug(`device ${device.id} is not bound`);
    for (const pasid of this.#attachments.keys()) if (pasid !== NO_PASID) move(device, pasid, null);
    move(device, NO_PASID, null);
    if (this.bound.size === 0) this.ctx.groups.delete(this.key);
  }

  #fails(site: string): boolean {
    return this.ctx.core.allocFails(site);
  }

  /** What comes before hardware: does the page table suit the PASID? @source iommufd_hwpt_attach_device */
  #newHandle(device: Device, hwpt: Hwpt, pasid: number): AttachHandle | number {
    const suits = this.#pasidCompat(hwpt, pasid);
    if (suits < 0) return suits;
    return this.#fails('attach_handle') ? -ENOMEM : { device, hwpt };
  }

  /** @source iommufd_hwpt_pasid_compat */
  #pasidCompat(hwpt: Hwpt, pasid: number): number {
    if (hwpt.pasidCompat) {
      const own = pasid === NO_PASID ? null : this.hwpt;
      return own === null || own.pasidCompat ? 0 : -EINVAL;
    }
    if (pasid !== NO_PASID) return -EINVAL;
    return [...this.#attachments.keys()].some((other) => other !== NO_PASID) ? -EINVAL : 0;
  }

  /** Points every bound device at a domain; when one refuses, all go back to what they had. */
  #point(handle: AttachHandle, pasid: number, before: AttachHandle | null): number {
    const { domain } = handle.hwpt;
    if (pasid !== NO_PASID) {
      const suits = this.#pasidSuits(handle, pasid, before === null);
      if (suits < 0) return suits;
    }
    if (this.#fails('attach_entry')) return -ENOMEM;
    this.#moving = { pasid, handle };
    const moved: Device[] = [];
    let status = 0;
    for (const device of this.bound) {
      status = move(device, pasid, domain);
      if (status < 0) break;
      moved.push(device);
    }
    this.#moving = null;
    if (status < 0) for (const other of moved) this.#mustMove(other, pasid, before?.hwpt.domain ?? null);
    return status;
  }

  /** Devices without PASIDs do not count: they send none. @source iommu_attach_device_pasid */
  #pasidSuits({ device, hwpt }: AttachHandle, pasid: number, first: boolean): number {
    const { iommu } = device;
    if (iommu.attachPasid === undefined) return -EOPNOTSUPP;
    if (hwpt.domain.kind === 'nested' && !iommu.nestsPasids) return -EOPNOTSUPP;
    if (hwpt.domain.driver !== iommu.driver) return -EINVAL;
    if (!first) return 0;
    for (const other of this.bound) {
      const max = maxPasidsOf(other.host);
      if (max > 0 && pasid >= max) return -EINVAL;
    }
    return 0;
  }

  /** Going back to what worked, or to blocked. A driver that refuses leaves the device where it is. */
  #mustMove(device: Device, pasid: number, domain: Domain | null): void {
    const status = move(device, pasid, domain);
    if (status === 0) return;
    this.ctx.context.log(`iommufd: ${device.host.name} could not be moved back (${status}), blocking it`);
    if (domain !== null) move(device, pasid, null);
  }

  #reserveAll({ devices }: Attachment, paging: HwptPaging): number {
    for (const device of devices) {
      const status = reserveFor(device, paging);
      if (status < 0) {
        unreserveAll(devices, paging);
        return status;
      }
    }
    return 0;
  }
}

/** Hardware, for one device. */
function move({ iommu, host }: Device, pasid: number, domain: Domain | null): number {
  if (pasid === NO_PASID) return iommu.attach(host, domain);
  if (maxPasidsOf(host) === 0) return 0;
  return iommu.attachPasid?.(host, pasid, domain) ?? 0;
}

function unreserveAll(devices: ReadonlySet<Device>, paging: HwptPaging): void {
  for (const device of devices) paging.ioas.iopt.space.unreserve(device);
}

/** A device's reserved regions become unusable in the IOAS. @source iopt_table_enforce_dev_resv_regions */
function reserveFor(device: Device, paging: HwptPaging): number {
  const { space } = paging.ioas.iopt;
  if (device.ctx.core.allocFails('enforce_resv_regions')) return -EINVAL;
  for (const { firstPage, lastPage } of device.iommu.reservedRegions(device.host)) {
    const status = space.reserve(firstPage, lastPage, device);
    if (status < 0) {
      space.unreserve(device);
      return status;
    }
  }
  return 0;
}
