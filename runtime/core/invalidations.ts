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
/** No future entry is longer; the tail of a longer one would have to be read just to see that it is zero. */
const MAX_ENTRY_BYTES = 4096;

export class Invalidations {
  readonly #objects: SharedObjects;
  readonly #user: ReadableUser;
  readonly #byDriver = new Map<number, SharedInvalidator>();
  readonly #onCore: ((id: number) => CoreInvalidator | null) | undefined;
  readonly #handled = new Uint32Array(1);
  /** Grown when a call needs more. */
  #entries = new Uint8Array(4096);

  /**
   * @param invalidators  by driver name
   * @param onCore  on the core's thread: the driver's half of an object, for drivers that need that thread
   */
  constructor(
    objects: SharedObjects,
    user: ReadableUser,
    invalidators: ReadonlyMap<string, SharedInvalidator>,
    onCore?: (id: number) => CoreInvalidator | null,
  ) {
    this.#objects = objects;
    this.#user = user;
    this.#onCore = onCore;
    for (const [driver, invalidator] of invalidators) this.#byDriver.set(driverKey(driver), invalidator);
  }

  /**
   * @param cmd  entryNum := how many entries were handled, whatever the result
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
    const stride = invalidator.entryBytes(cmd.dataType);
    if (stride < 0) return stride;
    if (count === 0) return -EINVAL;
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
    const invalidator = this.#onCore?.(cmd.hwptId);
    if (invalidator?.cacheInvalidate === undefined) return -EOPNOTSUPP;
    const { dataType: type, entryLen, dataUptr } = cmd;
    const copyIn = (index: number, into: Uint8Array) =>
      this.#user.copyIn(dataUptr + BigInt(index) * BigInt(entryLen), into);
    const array: UserDataArray = { type, entryLen, count, handled: 0, copyIn };
    const status = invalidator.cacheInvalidate(array);
    cmd.entryNum = array.handled;
    return status;
  }

  /** The caller's entries, each cut or zero-extended to `stride` bytes, before any of them takes effect. */
  #copyEntries(cmd: HwptInvalidate, count: number, stride: number): number {
    const bytes = count * stride;
    if (bytes > MAX_ARRAY_BYTES) return -ENOMEM;
    if (bytes > this.#entries.byteLength) this.#entries = new Uint8Array(bytes);
    const { entryLen, dataUptr } = cmd;
    if (entryLen === stride)
      return this.#user.copyIn(dataUptr, this.#entries.subarray(0, bytes)) < 0 ? -EFAULT : 0;
    if (entryLen > MAX_ENTRY_BYTES) return -E2BIG;
    const entry = new Uint8Array(Math.max(entryLen, stride));
    for (let i = 0; i < count; i++) {
      const at = dataUptr + BigInt(i) * BigInt(entryLen);
      entry.fill(0);
      if (this.#user.copyIn(at, entry.subarray(0, entryLen)) < 0) return -EFAULT;
      for (let tail = stride; tail < entryLen; tail++) if (entry[tail] !== 0) return -E2BIG;
      this.#entries.set(entry.subarray(0, stride), i * stride);
    }
    return 0;
  }
}
