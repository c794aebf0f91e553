/**
 * A driver's own struct behind a generic one: `data_len`, `data_uptr` of an ioctl. struct iommu_user_data.
 *
 * The driver copies, not the core: only it knows which lengths are right, and a wrong one is -EINVAL before any
 * byte is looked at.
 *
 * @source include/linux/iommu.h __iommu_copy_struct_from_user, __iommu_copy_struct_to_user
 */
import { E2BIG, EFAULT, EINVAL } from '../../uapi/abi/errno.js';
import type { Fields, Struct, StructInput, StructValue } from '../../uapi/abi/struct.js';

/** Where a process keeps the data. */
export interface UserCopy {
  copyIn(va: bigint, into: Uint8Array): number;
  copyOut(va: bigint, from: Uint8Array): number;
}

export interface UserData {
  /** What kind of data the caller says it is, an enum of the ioctl's. */
  readonly type: number;
  /** As the caller says, unchecked; more than 0. */
  readonly lenBytes: number;
  /** The first bytes of it. @returns 0 | -EFAULT */
  copyIn(into: Uint8Array): number;
  /** Over the first bytes of it. @returns 0 | -EFAULT */
  copyOut(from: Uint8Array): number;
}

/** @returns the data of an ioctl, null when it has none */
export function userData(user: UserCopy, type: number, va: bigint, lenBytes: number): UserData | null {
  if (lenBytes === 0) return null;
  return {
    type,
    lenBytes,
    copyIn: (into) => user.copyIn(va, into),
    copyOut: (from) => user.copyOut(va, from),
  };
}

/**
 * iommu_copy_struct_from_user: the caller's struct, zero-extended when it is of an older size.
 * @param type  what `data.type` has to be
 * @returns it | -EINVAL another type or length | -EFAULT
 */
export function copyStructFromUser<F extends Fields>(
  struct: Struct<F>,
  data: UserData,
  type: number,
): StructValue<F> | number {
  const { lenBytes } = data;
  if (data.type !== type || lenBytes < struct.minSize || lenBytes > struct.size) return -EINVAL;
  const bytes = new Uint8Array(struct.size);
  return data.copyIn(bytes.subarray(0, lenBytes)) < 0 ? -EFAULT : struct.decode(bytes);
}

/**
 * iommu_copy_struct_to_user: as much of the struct as the caller has room for.
 * @returns 0 | -EINVAL another type or length | -EFAULT
 */
export function copyStructToUser<F extends Fields>(
  struct: Struct<F>,
  value: Partial<StructInput<F>>,
  data: UserData,
  type: number,
): number {
  const { lenBytes } = data;
  if (data.type !== type || lenBytes < struct.minSize || lenBytes > struct.size) return -EINVAL;
  return data.copyOut(struct.toBytes(value).subarray(0, lenBytes)) < 0 ? -EFAULT : 0;
}

/** Entries that an invalidation is given: struct iommu_user_data_array. */
export interface UserDataArray {
  readonly type: number;
  /** Bytes of one entry, as the caller says, unchecked. */
  readonly entryLen: number;
  readonly count: number;
  /** Entries that took effect; the caller is told. */
  handled: number;
  /** The first bytes of entry `index`. @returns 0 | -EFAULT */
  copyIn(index: number, into: Uint8Array): number;
}

/** No entry is longer; the tail of one would have to be read only to see that it is zero. */
const MAX_ENTRY_BYTES = 4096;

/**
 * iommu_copy_struct_from_user_array: one entry, zero-extended when it is of an older size.
 * @returns it | -EINVAL another type or length | -EFAULT
 */
export function copyStructFromUserArray<F extends Fields>(
  struct: Struct<F>,
  array: UserDataArray,
  type: number,
  index: number,
): StructValue<F> | number {
  const { entryLen } = array;
  if (array.type !== type || entryLen < struct.minSize || entryLen > struct.size) return -EINVAL;
  const bytes = new Uint8Array(struct.size);
  return array.copyIn(index, bytes.subarray(0, entryLen)) < 0 ? -EFAULT : struct.decode(bytes);
}

/**
 * iommu_copy_struct_from_full_user_array: all entries, each cut or zero-extended.
 * @returns them | -EINVAL another type, or none | -E2BIG a longer entry does not end in zeroes | -EFAULT
 */
export function copyStructsFromUserArray<F extends Fields>(
  struct: Struct<F>,
  array: UserDataArray,
  type: number,
): StructValue<F>[] | number {
  const { entryLen } = array;
  if (array.type !== type || array.count === 0) return -EINVAL;
  if (entryLen > MAX_ENTRY_BYTES) return -E2BIG;
  const entries: StructValue<F>[] = [];
  const bytes = new Uint8Array(Math.max(entryLen, struct.size));
  for (let i = 0; i < array.count; i++) {
    if (array.copyIn(i, bytes.subarray(0, entryLen)) < 0) return -EFAULT;
    if (bytes.subarray(struct.size, entryLen).some((byte) => byte !== 0)) return -E2BIG;
    entries.push(struct.decode(bytes));
  }
  return entries;
}
