/** Reading a caller's struct, whose length says how new the caller is: copy_struct_from_user. */
import { E2BIG, EFAULT, EINVAL } from '../../uapi/abi/errno.js';
import { type Fields, type Struct, type StructValue, u32At } from '../../uapi/abi/struct.js';

/** The first u32 of a struct. Needs 4 bytes. */
export const structSize = (bytes: Uint8Array): number => u32At(bytes, 0);

/**
 * copy_struct_from_user, with iommufd's minimum.
 * @returns the struct, zero-extended when the caller's is older | -EINVAL | -E2BIG | -EFAULT
 */
export function copyStructIn<F extends Fields>(
  struct: Struct<F>,
  bytes: Uint8Array,
  userSize: number,
): StructValue<F> | number {
  if (userSize < struct.minSize) return -EINVAL;
  const readable = Math.min(userSize, bytes.byteLength);
  for (let i = struct.size; i < readable; i++) if (bytes[i] !== 0) return -E2BIG;
  if (bytes.byteLength < userSize) return -EFAULT;
  if (userSize >= struct.size) return struct.decode(bytes);
  const whole = new Uint8Array(struct.size);
  whole.set(bytes.subarray(0, userSize));
  return struct.decode(whole);
}
