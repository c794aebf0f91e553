/**
 * Error numbers of the generic Linux ABI (x86 and arm64 agree on all of these).
 *
 * The values are positive here; functions inside the runtime return them negated. Only numbers that some
 * iommufd or VFIO path, or one of this project's locks, can produce are listed. ENOIOCTLCMD and the other
 * kernel-internal numbers from 512 up never reach a caller and are absent: user space sees ENOTTY.
 *
 * @source include/uapi/asm-generic/errno-base.h, include/uapi/asm-generic/errno.h
 */

export const EPERM = 1;
export const ENOENT = 2;
export const ESRCH = 3;
export const EINTR = 4;
export const EIO = 5;
export const ENXIO = 6;
export const E2BIG = 7;
export const EBADF = 9;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EFAULT = 14;
export const EBUSY = 16;
export const EEXIST = 17;
export const ENODEV = 19;
export const EINVAL = 22;
export const EMFILE = 24;
export const ENOTTY = 25;
export const ENOSPC = 28;
export const ESPIPE = 29;
export const ERANGE = 34;
/** The same number as EDEADLK; iommufd spells it this way, so {@link errnoName} does too. */
export const EDEADLOCK = 35;
export const ENOSYS = 38;
/** Of a test ioctl: the pages are not those that were expected. */
export const EBADE = 52;
export const EOVERFLOW = 75;
/** A file descriptor that is open but is not an iommufd (VFIO bind). Not EBADF. */
export const EBADFD = 77;
export const EMSGSIZE = 90;
export const EOPNOTSUPP = 95;
export const EADDRINUSE = 98;
export const ETIMEDOUT = 110;
export const ECANCELED = 125;
export const EOWNERDEAD = 130;
export const ENOTRECOVERABLE = 131;

const NUMBERS = {
  EPERM,
  ENOENT,
  ESRCH,
  EINTR,
  EIO,
  ENXIO,
  E2BIG,
  EBADF,
  EAGAIN,
  ENOMEM,
  EACCES,
  EFAULT,
  EBUSY,
  EEXIST,
  ENODEV,
  EINVAL,
  EMFILE,
  ENOTTY,
  ENOSPC,
  ESPIPE,
  ERANGE,
  EDEADLOCK,
  ENOSYS,
  EBADE,
  EOVERFLOW,
  EBADFD,
  EMSGSIZE,
  EOPNOTSUPP,
  EADDRINUSE,
  ETIMEDOUT,
  ECANCELED,
  EOWNERDEAD,
  ENOTRECOVERABLE,
};

const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(NUMBERS).map(([name, n]) => [n, name]));

/**
 * The symbolic name of an error number.
 * @param n  a positive errno, as in `22`
 * @returns `'EINVAL'`; `'errno 22000'` for a number that is not listed, so that a message can always be built
 */
export function errnoName(n: number): string {
  return NAMES.get(n) ?? `errno ${n}`;
}
