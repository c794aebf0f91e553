/** A driver's data as a driver gets it, from bytes of the test's own. */
import type { UserData } from '../../runtime/drivers/user-data.js';

export function dataOf(type: number, bytes: Uint8Array): UserData {
  return {
    type,
    lenBytes: bytes.byteLength,
    copyIn: (into) => {
      into.set(bytes.subarray(0, into.byteLength));
      return 0;
    },
    copyOut: (from) => {
      bytes.set(from);
      return 0;
    },
  };
}
