/**
 * An in-kernel user of an IOAS: an emulated device that reads and writes through IOVAs, or the queue of a guest
 * whose pages must stay where they are. Not made by an ioctl; a driver, the test ioctl or an embedder creates it
 * (`IommufdFd.createAccess`). struct iommufd_access.
 *
 *   create -> attach(IOAS) -> pinPages / unpinPages / rw -> detach -> destroy
 *
 * Whoever pins is told of an unmap (`unmap`) and lets go before that returns; one that does not makes the unmap
 * fail with -EDEADLOCK. An *internal* access is told nothing: what it has pinned is locked, an unmap of it is -EBUSY.
 *
 * @source drivers/iommu/iommufd/device.c, include/linux/iommufd.h
 */
import { bug } from '../../hw/memory/bug.js';
import { EBUSY, EINVAL, ENOENT, EOVERFLOW } from '../../uapi/abi/errno.js';
import { type IommufdCtx, REMOVE_WAIT } from '../core/ctx.js';
import { IommufdObject } from '../core/iommufd-object.js';
import { OBJ_ACCESS, OBJ_IOAS } from '../core/objects-layout.js';
import type { IoptAccess } from '../iova/access-list.js';
import { PAGE_SIZE, U64_MAX } from '../iova/area.js';
import { pinRange, rwRange, unpinRange } from '../iova/area-access.js';
import type { Ioas } from './ioas.js';

/** struct iommufd_access_ops. */
export interface AccessOps {
  /** It will pin pages, so mappings must consist of whole pages. */
  readonly needsPinPages?: boolean;
  /**
   * Something is about to be unmapped: unpin every range that touches [iova, iova + length) before returning.
   * Called with (0, 2^64 - 1) when the access leaves an IOAS. Without it pinPages() is -EINVAL.
   */
  unmap?(iova: bigint, length: bigint): void;
}

export class Access extends IommufdObject implements IoptAccess {
  readonly iovaAlignment: number;
  /** Null: internal. */
  readonly #ops: AccessOps | null;
  /** Where new pins come from; null while it changes. */
  #ioas: Ioas | null = null;
  /** Where pins can be given back. */
  #ioasUnpin: Ioas | null = null;
  /** What it has pinned and not given back: how often, by `iova/last`. */
  readonly #pins = new Map<string, { readonly iova: bigint; readonly last: bigint; count: number }>();
  /** `unmap` is under way: it is not told again from within. */
  #notifying = false;

  private constructor(ctx: IommufdCtx, id: number, ops: AccessOps | null) {
    super(ctx, id, OBJ_ACCESS);
    this.#ops = ops;
    this.iovaAlignment = ops === null || ops.needsPinPages ? PAGE_SIZE : 1;
  }

  /**
   * The access holds the iommufd open until destroyAccess().
   * @returns it | -ENOMEM
   * @source iommufd_access_create
   */
  static create(ctx: IommufdCtx, ops: AccessOps): Access | number {
    const access = Access.#make(ctx, ops);
    if (typeof access !== 'number') ctx.getFile();
    return access;
  }

  /** For another object of the same iommufd, which destroys it. @source iommufd_access_create_internal */
  static createInternal(ctx: IommufdCtx): Access | number {
    return Access.#make(ctx, null);
  }

  static #make(ctx: IommufdCtx, ops: AccessOps | null): Access | number {
    const id = ctx.reserve(OBJ_ACCESS);
    if (id < 0) return id;
    const access = new Access(ctx, id, ops);
    // Its creator is a user until destroyAccess(): IOMMU_DESTROY of it is -EBUSY.
    access.addUser();
    ctx.publish(access);
    return access;
  }

  get internal(): boolean {
    return this.#ops === null;
  }

  /** The IOAS it is attached to. */
  get ioas(): Ioas | null {
    return this.#ioas;
  }

  /**
   * @returns 0 | -EINVAL attached already | -ENOENT no such IOAS | -EADDRINUSE a mapping is smaller than the pages
   *   that it wants to pin | -ENOMEM
   */
  attach(ioasId: number): number {
    return this.#ioas === null ? this.#changeToId(ioasId) : -EINVAL;
  }

  /** attach() of an internal access, whose owner holds the IOAS. @returns as attach() */
  attachInternal(ioas: Ioas): number {
    return this.#ioas === null ? this.#change(ioas) : -EINVAL;
  }

  /** Move to another IOAS; the owner is told to let go of everything. @returns as attach() | -ENOENT not attached */
  replace(ioasId: number): number {
    return this.#ioas === null ? -ENOENT : this.#changeToId(ioasId);
  }

  /** Nothing happens to one that is not attached. */
  detach(): void {
    if (this.#ioas !== null) this.#change(null);
  }

  /**
   * Pin what is mapped at [iova, iova + length); it does not move until unpinPages() of the same range.
   * @param iova   a multiple of 4 KiB
   * @param out    the frame of each page is appended
   * @param flags  ACCESS_RW_WRITE or 0
   * @returns 0 | -EINVAL length 0, unaligned, an unmap is under way, or made without `needsPinPages` or `unmap` |
   *   -EOVERFLOW | -ENOENT not attached, or a hole | -EPERM the mapping does not allow it | -EFAULT | -ENOMEM
   */
  pinPages(iova: bigint, length: bigint, out: number[], flags = 0): number {
    const canPin = this.#ops === null || this.#ops.unmap !== undefined;
    if (this.iovaAlignment !== PAGE_SIZE || !canPin) return -EINVAL;
    if (length === 0n) return -EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return -EOVERFLOW;
    if (this.#ioas === null) return -ENOENT;
    const status = pinRange(this.#ioas.iopt.space, iova, last, out, flags, this.internal);
    if (status < 0) return status;
    const pin = this.#pins.get(`${iova}/${last}`);
    if (pin === undefined) this.#pins.set(`${iova}/${last}`, { iova, last, count: 1 });
    else pin.count++;
    return 0;
  }

  /**
   * Undo pinPages() of exactly this range.
   * @returns 0 | -EINVAL it is not pinned so, or the access is not attached: nothing happens. Linux warns
   */
  unpinPages(iova: bigint, length: bigint): number {
    const last = iova + length - 1n;
    const key = `${iova}/${last}`;
    const pin = this.#pins.get(key);
    if (pin === undefined || this.#ioasUnpin === null) return -EINVAL;
    if (--pin.count === 0) this.#pins.delete(key);
    const status = unpinRange(this.#ioasUnpin.iopt.space, iova, last, this.internal);
    if (status < 0) bug(`IOVA ${iova} to ${last} is not pinned, but access ${this.id} holds it`);
    return 0;
  }

  /**
   * Copy between `data` and what is mapped at `iova`, without pinning.
   * @param flags  ACCESS_RW_WRITE: into the mapping; ACCESS_RW_KTHREAD, ACCESS_RW_SLOW_PATH: by which way
   * @returns 0 | -EINVAL nothing to copy, an unmap is under way, or a dma-buf | -EOVERFLOW | -ENOENT not attached, or
   *   a hole | -EPERM | -EFAULT
   */
  rw(iova: bigint, data: Uint8Array, flags = 0): number {
    if (data.byteLength === 0) return -EINVAL;
    if (iova + BigInt(data.byteLength) - 1n > U64_MAX) return -EOVERFLOW;
    if (this.#ioas === null) return -ENOENT;
    return rwRange(this.#ioas.iopt.space, iova, data, flags);
  }

  notifyUnmap(iova: bigint, length: bigint): void {
    if (this.#ops?.unmap === undefined) return;
    // One that is being destroyed has let go already.
    if (this.#notifying || !this.ctx.lock(this)) return;
    this.#notifying = true;
    try {
      this.#ops.unmap(iova, length);
      if (this.ctx.core.bugs['access-unmap-without-wait']) this.#dropPins(this.#ioasUnpin!);
    } finally {
      this.#notifying = false;
      this.ctx.put(this);
    }
  }

  /**
   * The end of what create() began. Its owner has let go of every pin, or does so when told.
   * @returns 0 | -EBUSY from within its own `unmap`, which Linux waits for 60 s
   * @source iommufd_access_destroy
   */
  destroyAccess(): number {
    return this.#notifying ? -EBUSY : this.ctx.destroyHeld(this, REMOVE_WAIT);
  }

  override destroy(): void {
    this.detach();
    if (!this.internal) this.ctx.putFile();
  }

  /** What the owner did not give back when it was told; Linux warns, and the IOAS cannot be emptied any more. */
  #dropPins({ iopt }: Ioas): void {
    if (this.#pins.size === 0) return;
    this.ctx.context.log(`iommufd: access ${this.id} leaves an IOAS with pages pinned`);
    for (const { iova, last, count } of this.#pins.values())
      for (let i = 0; i < count; i++) unpinRange(iopt.space, iova, last, this.internal);
    this.#pins.clear();
  }

  #changeToId(ioasId: number): number {
    const ioas = this.ctx.get<Ioas>(ioasId, OBJ_IOAS);
    if (ioas === undefined) return -ENOENT;
    const status = this.#change(ioas);
    this.ctx.put(ioas);
    return status;
  }

  /** @source iommufd_access_change_ioas */
  #change(ioas: Ioas | null): number {
    const current = this.#ioas;
    // It is changing already: called from `unmap`.
    if (current !== this.#ioasUnpin) return -EBUSY;
    if (current === ioas) return 0;
    // No new pins from here on; those there are can be given back.
    this.#ioas = null;
    if (ioas !== null) {
      const status = ioas.iopt.addAccess(this);
      if (status < 0) {
        this.#ioas = current;
        return status;
      }
      ioas.addUser();
    }
    if (current !== null) {
      this.#ops?.unmap?.(0n, U64_MAX);
      this.#dropPins(current);
      current.iopt.removeAccess(this);
      current.dropUser();
    }
    this.#ioas = ioas;
    this.#ioasUnpin = ioas;
    return 0;
  }
}
