/**
 * A driver's own struct behind a generic one: `data_len`, `data_uptr` of an ioctl. struct iommu_user_data.
 *
 * The driver copies, not the core: only it knows which lengths are right, and a wrong one is -EINVAL before any
 * byte is looked at.
 *
 * @source include/linux/iommu.h __iommu_copy_struct_from_user, __iommu_copy_struct_to_user
 */
import { EFAULT, EINVAL } from '../../uapi/abi/errno.js';
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
