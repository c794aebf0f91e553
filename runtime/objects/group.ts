/**
 * What an iommufd keeps per IOMMU group: which page table the group is attached to, and which of its devices
 * asked for it. struct iommufd_group, struct iommufd_attach.
 *
 * The devices of a group cannot be told apart, so they all follow the first attach: hardware is pointed at
 * the page table once for the group, each device that attaches after that only adds its reserved regions.
 *
 * Not modelled: PASIDs, software MSI windows.
 *
 * @source drivers/iommu/iommufd/device.c
 */
import { bug } from '../../hw/memory/bug.js';
import { EBUSY, EINVAL } from '../../uapi/abi/errno.js';
import type { IommufdCtx } from '../core/ctx.js';
import type { Domain } from '../drivers/contract.js';
import type { Device } from './device.js';
import { findHwptPaging, type Hwpt, type HwptPaging } from './hwpt.js';

export class IommufdGroup {
  readonly ctx: IommufdCtx;
  readonly key: string;
  /** Devices of the group that are bound to this iommufd. */
  readonly bound = new Set<Device>();
  /** Of those, the ones that have attached. */
  readonly #attached = new Set<Device>();
  #hwpt: Hwpt | null = null;

  constructor(ctx: IommufdCtx, key: string) {
    this.ctx = ctx;
    this.key = key;
  }

  get hwpt(): Hwpt | null {
    return this.#hwpt;
  }

  /**
   * @returns 0 | -EINVAL the group uses another page table, or the domain does not suit the device |
   *   -EBUSY attached already | -EADDRINUSE a reserved region is mapped | what the driver said
   * @source iommufd_hw_pagetable_attach
   */
  attach(device: Device, hwpt: Hwpt): number {
    if (this.#attached.has(device)) return -EBUSY;
    const old = this.#hwpt;
    if (old !== null && old !== hwpt) return -EINVAL;
    const paging = findHwptPaging(hwpt);
    const reserved = reserveFor(device, paging);
    if (reserved < 0) return reserved;
    if (old === null) {
      const status = this.#point(hwpt.domain, null);
      if (status < 0) {
        paging.ioas.iopt.space.unreserve(device);
        return status;
      }
      this.#hwpt = hwpt;
    }
    this.#attached.add(device);
    hwpt.addUser();
    return 0;
  }

  /**
   * Move the whole group, without a gap where the hardware can. On failure everything stays as it was.
   * @returns the page table that was left, whose use the caller gives up; null when nothing changed | -EINVAL
   *   not attached | -EADDRINUSE | what the driver said
   * @source iommufd_device_do_replace
   */
  replace(device: Device, hwpt: Hwpt): Hwpt | null | number {
    const old = this.#hwpt;
    if (old === null || !this.#attached.has(device)) return -EINVAL;
    if (old === hwpt) return null;
    const paging = findHwptPaging(hwpt);
    const oldPaging = findHwptPaging(old);
    const moves = paging.ioas !== oldPaging.ioas;
    if (moves) {
      const status = this.#reserveAll(paging);
      if (status < 0) return status;
    }
    const status = this.#point(hwpt.domain, old.domain);
    if (status < 0) {
      if (moves) this.#unreserveAll(paging);
      return status;
    }
    if (moves) this.#unreserveAll(oldPaging);
    this.#hwpt = hwpt;
    const count = this.#attached.size;
    for (let i = 0; i < count; i++) hwpt.addUser();
    // One use of the old table is left for the caller to give up.
    for (let i = 1; i < count; i++) old.dropUser();
    return old;
  }

  /** @returns the page table that was left, whose use the caller gives up, or null when not attached */
  detach(device: Device): Hwpt | null {
    const hwpt = this.#hwpt;
    if (hwpt === null || !this.#attached.delete(device)) return null;
    if (this.#attached.size === 0) {
      this.#block();
      this.#hwpt = null;
    }
    findHwptPaging(hwpt).ioas.iopt.space.unreserve(device);
    return hwpt;
  }

  /** A device joins: it is blocked, or follows what the group is attached to. @returns 0 | -errno */
  bind(device: Device): number {
    const status = device.iommu.attach(device.host, this.#hwpt?.domain ?? null);
    if (status === 0) this.bound.add(device);
    return status;
  }

  unbind(device: Device): void {
    if (this.#attached.has(device)) bug(`device ${device.id} unbound while attached`);
    if (!this.bound.delete(device)) bug(`device ${device.id} is not bound`);
    device.iommu.attach(device.host, null);
    if (this.bound.size === 0) this.ctx.groups.delete(this.key);
  }

  /** Points every bound device at a domain; when one refuses, all go back to what they had. */
  #point(domain: Domain, before: Domain | null): number {
    const moved: Device[] = [];
    for (const device of this.bound) {
      const status = device.iommu.attach(device.host, domain);
      if (status === 0) {
        moved.push(device);
        continue;
      }
      for (const other of moved) this.#mustAttach(other, before);
      return status;
    }
    return 0;
  }

  #block(): void {
    for (const device of this.bound) this.#mustAttach(device, null);
  }

  /** Going back to what worked, or to blocked. A driver that refuses leaves the device where it is. */
  #mustAttach(device: Device, domain: Domain | null): void {
    const status = device.iommu.attach(device.host, domain);
    if (status === 0) return;
    this.ctx.context.log(`iommufd: ${device.host.name} could not be moved back (${status}), blocking it`);
    if (domain !== null) device.iommu.attach(device.host, null);
  }

  #reserveAll(paging: HwptPaging): number {
    for (const device of this.#attached) {
      const status = reserveFor(device, paging);
      if (status < 0) {
        this.#unreserveAll(paging);
        return status;
      }
    }
    return 0;
  }

  #unreserveAll(paging: HwptPaging): void {
    for (const device of this.#attached) paging.ioas.iopt.space.unreserve(device);
  }
}

/** A device's reserved regions become unusable in the IOAS. @source iopt_table_enforce_dev_resv_regions */
function reserveFor(device: Device, paging: HwptPaging): number {
  const { space } = paging.ioas.iopt;
  for (const { firstPage, lastPage } of device.iommu.reservedRegions(device.host)) {
    const status = space.reserve(firstPage, lastPage, device);
    if (status < 0) {
      space.unreserve(device);
      return status;
    }
  }
  return 0;
}
