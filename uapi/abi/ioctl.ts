/**
 * Encoding of ioctl request numbers (the asm-generic layout, used by x86 and arm64).
 *
 *     31 30 29          16 15       8 7        0
 *     +----+--------------+----------+----------+
 *     | dir|     size     |   type   |    nr    |
 *     +----+--------------+----------+----------+
 *
 * iommufd and VFIO use `_IO` only: direction and size stay 0 because the struct carries its own length in
 * its first u32, which is what lets it grow without changing its number. A request that differs in any bit
 * is another request, and is answered ENOTTY.
 *
 * Not modelled: the layouts of MIPS, PowerPC and SPARC.
 *
 * @source include/uapi/asm-generic/ioctl.h
 */

/** `';'`, the type byte shared by iommufd and VFIO. */
export const IOMMUFD_TYPE = 0x3b;

export interface IoctlFields {
  /** 0 none, 1 write, 2 read, 3 both; from user space's side. */
  readonly dir: number;
  /** Bytes of the argument as encoded, 14 bits; 0 for `_IO`. */
  readonly size: number;
  readonly type: number;
  readonly nr: number;
}

/**
 * Request number of an ioctl without an encoded argument.
 * @param type  the type byte, or the character that stands for it (`';'`)
 * @param nr    0..255
 * @throws RangeError when either does not fit its byte
 */
export function _IO(type: number | string, nr: number): number {
  const typeByte = typeof type === 'number' ? type : type.length === 1 ? type.charCodeAt(0) : -1;
  if (!isByte(typeByte)) throw new RangeError(`_IO: type ${JSON.stringify(type)} is not one byte`);
  if (!isByte(nr)) throw new RangeError(`_IO: nr ${nr} is not one byte`);
  return (typeByte << 8) | nr;
}

/** The `nr` byte of a request number; any number is accepted, as the request comes from a guest. */
export function _IOC_NR(cmd: number): number {
  return cmd & 0xff;
}

/** Takes a request number apart. Only its low 32 bits count, as in the kernel. */
export function decodeIoctl(cmd: number): IoctlFields {
  return {
    dir: (cmd >>> 30) & 0x3,
    size: (cmd >>> 16) & 0x3fff,
    type: (cmd >>> 8) & 0xff,
    nr: cmd & 0xff,
  };
}

function isByte(n: number): boolean {
  return Number.isInteger(n) && n >= 0 && n <= 0xff;
}
