/**
 * IOMMU_HWPT_INVALIDATE without the core: everything it touches lies in shared memory (the object table, the
 * vIOMMU's record, user memory, the command queue), so it runs on whatever thread calls it.
 *
 * @source drivers/iommu/iommufd/hw_pagetable.c iommufd_hwpt_invalidate,
 *   include/linux/iommu.h iommu_copy_struct_from_full_user_array
 */
import { E2BIG, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import type { HwptInvalidate } from '../../uapi/iommufd/hwpt-invalidate.js';
import type { SharedInvalidator } from '../drivers/contract.js';
import type { UserDataArray } from '../drivers/user-data.js';
import type { Compat } from './context.js';
import type { CoreInvalidator } from './iommufd-object.js';
import type { SharedObjects } from './object-table.js';
import {
  driverKey,
  OBJ_ANY,
  OBJ_HWPT_NESTED,
  OBJ_VIOMMU,
  VIOMMU_DRIVER,
  VIOMMU_SHARED_BASE,
} from './objects-layout.js';

/** Where entries are copied from. */
export interface ReadableUser {
  copyIn(va: bigint, into: Uint8Array): number;
}

/** KMALLOC_MAX_SIZE: Linux allocates the whole array and fails above this. */
const MAX_ARRAY_BYTES = 4 * 1024 * 1024;
const PAGE_BYTES = 4096;
/** As later kernels bound it: the tail of a longer one would have to be read just to see that it is zero. */
const MAX_ENTRY_BYTES = PAGE_BYTES;

export interface InvalidationOptions {
  /** Default 'fixed'. */
  readonly compat?: Compat | undefined;
  /** On the core's thread: IommufdCore.allocFails. */
  readonly allocFails?: (site: string) => boolean;
  /** On the core's thread: the driver's half of an object, for drivers that need that thread. */
  readonly onCore?: (id: number) => CoreInvalidator | null;
}

export class Invalidations {
  readonly #objects: SharedObjects;
  readonly #user: ReadableUser;
  readonly #byDriver = new Map<number, SharedInvalidator>();
  readonly #options: InvalidationOptions;
  readonly #handled = new Uint32Array(1);
  readonly #tail = new Uint8Array(PAGE_BYTES);
  /** Grown when a call needs more. */
  #entries = new Uint8Array(4096);

  /** @param invalidators  by driver name */
  constructor(
    objects: SharedObjects,
    user: ReadableUser,
    invalidators: ReadonlyMap<string, SharedInvalidator>,
    options: InvalidationOptions = {},
  ) {
    this.#objects = objects;
    this.#user = user;
    this.#options = options;
    for (const [driver, invalidator] of invalidators) this.#byDriver.set(driverKey(driver), invalidator);
  }

  /**
   * @param cmd  entryNum := how many entries were handled, whatever the result (7.0: all, at -ENOMEM)
   * @returns 0 | -EOPNOTSUPP | -EINVAL | -ENOENT | -EFAULT | -E2BIG | -ENOMEM | what the driver said
   */
  execute(cmd: HwptInvalidate): number {
    const count = cmd.entryNum;
    cmd.entryNum = 0;
    if (cmd.reserved !== 0) return -EOPNOTSUPP;
    if (count !== 0 && (cmd.dataUptr === 0n || cmd.entryLen === 0)) return -EINVAL;
    const found = this.#objects.get(cmd.hwptId, OBJ_ANY);
    if (found < 0) return found;
    const status = this.#onObject(cmd, count);
    this.#objects.put(cmd.hwptId);
    return status;
  }

  #onObject(cmd: HwptInvalidate, count: number): number {
    const type = this.#objects.typeOf(cmd.hwptId);
    if (type !== OBJ_VIOMMU && type !== OBJ_HWPT_NESTED) return -EINVAL;
    const invalidator =
      type === OBJ_VIOMMU ? this.#byDriver.get(this.#objects.payload(cmd.hwptId, VIOMMU_DRIVER)) : undefined;
    if (invalidator === undefined) return this.#byCore(cmd, count);
    // As in Linux the array is allocated first: it can be too long before it is of the wrong type.
    const stride = invalidator.entryBytes;
    if (count * stride > MAX_ARRAY_BYTES || this.#allocFails(count)) return this.#noMemory(cmd, count);
    if (cmd.dataType !== invalidator.dataType || count === 0) return -EINVAL;
    const copied = this.#copyEntries(cmd, count, stride);
    if (copied < 0) return copied;
    this.#handled[0] = 0;
    const base = this.#objects.payload(cmd.hwptId, VIOMMU_SHARED_BASE) >>> 0;
    const entries = this.#entries.subarray(0, count * stride);
    const status = invalidator.cacheInvalidate(base, entries, stride, count, this.#handled);
    cmd.entryNum = this.#handled[0]!;
    return status;
  }

  #byCore(cmd: HwptInvalidate, count: number): number {
    const invalidator = this.#options.onCore?.(cmd.hwptId);
    if (invalidator?.cacheInvalidate === undefined) return -EOPNOTSUPP;
    const { dataType: type, entryLen, dataUptr } = cmd;
    const copyIn = (index: number, into: Uint8Array) =>
      this.#user.copyIn(dataUptr + BigInt(index) * BigInt(entryLen), into);
    const array: UserDataArray = { type, entryLen, count, handled: 0, copyIn };
    const status = invalidator.cacheInvalidate(array);
    if (status === -ENOMEM) return this.#noMemory(cmd, count);
    cmd.entryNum = array.handled;
    return status;
  }

  /** An array of no entries is none. */
  #allocFails(count: number): boolean {
    return count > 0 && this.#options.allocFails?.('invalidation array') === true;
  }

  /** Nothing was handled. 7.0 leaves the count as the caller gave it. */
  #noMemory(cmd: HwptInvalidate, count: number): number {
    if (this.#options.compat === '7.0') cmd.entryNum = count;
    return -ENOMEM;
  }

  /** The caller's entries, each cut or zero-extended to `stride` bytes, before any of them takes effect. */
  #copyEntries(cmd: HwptInvalidate, count: number, stride: number): number {
    const bytes = count * stride;
    if (bytes > this.#entries.byteLength) this.#entries = new Uint8Array(bytes);
    const { entryLen, dataUptr } = cmd;
    if (entryLen === stride)
      return this.#user.copyIn(dataUptr, this.#entries.subarray(0, bytes)) < 0 ? -EFAULT : 0;
    if (entryLen > MAX_ENTRY_BYTES) return -E2BIG;
    const head = Math.min(entryLen, stride);
    this.#entries.fill(0, 0, bytes);
    for (let i = 0; i < count; i++) {
      const at = dataUptr + BigInt(i) * BigInt(entryLen);
      const status = this.#checkZeroed(at + BigInt(head), entryLen - head);
      if (status < 0) return status;
      const entry = this.#entries.subarray(i * stride, i * stride + head);
      if (this.#user.copyIn(at, entry) < 0) return -EFAULT;
    }
    return 0;
  }

  /** check_zeroed_user: what comes first decides. @returns 0 | -E2BIG | -EFAULT */
  #checkZeroed(va: bigint, bytes: number): number {
    for (let done = 0; done < bytes; ) {
      const at = va + BigInt(done);
      const part = this.#tail.subarray(0, Math.min(bytes - done, PAGE_BYTES - Number(at & 0xfffn)));
      if (this.#user.copyIn(at, part) < 0) return -EFAULT;
      if (part.some((byte) => byte !== 0)) return -E2BIG;
      done += part.byteLength;
    }
    return 0;
  }
}
