/**
 * I/O address space: allocation, the ranges it may use, mapping, copying, unmapping. Linux 7.0.
 *
 * Ranges in the API are (iova, length) except {@link IovaRange}, whose `last` is inclusive. All addresses and
 * lengths are bytes. Struct fields without `out` that the kernel also writes say so.
 */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_IOAS_ALLOC = _IO(';', 0x81);
export const IOMMU_IOAS_ALLOW_IOVAS = _IO(';', 0x82);
export const IOMMU_IOAS_COPY = _IO(';', 0x83);
export const IOMMU_IOAS_IOVA_RANGES = _IO(';', 0x84);
export const IOMMU_IOAS_MAP = _IO(';', 0x85);
export const IOMMU_IOAS_UNMAP = _IO(';', 0x86);
export const IOMMU_IOAS_MAP_FILE = _IO(';', 0x8f);
export const IOMMU_IOAS_CHANGE_PROCESS = _IO(';', 0x92);

/**
 * A new, empty IOAS.
 *
 * `flags`: 0.
 * @returns 0 | -EOPNOTSUPP any flag | -ENOMEM
 * @source include/uapi/linux/iommufd.h struct iommu_ioas_alloc
 */
export const IoasAlloc = struct(
  'iommu_ioas_alloc',
  { size: 'u32', flags: 'u32', outIoasId: 'u32' },
  { size: 12, last: 'outIoasId' },
);
export type IoasAlloc = TypeOf<typeof IoasAlloc>;

/**
 * One interval of IOVA space, bytes; `last` inclusive. The element of both arrays below.
 * @source include/uapi/linux/iommufd.h struct iommu_iova_range
 */
export const IovaRange = struct('iommu_iova_range', { start: 'u64', last: 'u64' }, { size: 16 });
export type IovaRange = TypeOf<typeof IovaRange>;

/**
 * Which IOVAs can be mapped now: apertures of the attached devices less their reserved regions.
 *
 * `numIovas`: in, elements of the array; out, ranges that exist. `allowedIovas`: user address of an array of
 * {@link IovaRange}, filled as far as it reaches. `outIovaAlignment`: bytes, 1 to PAGE_SIZE.
 * @returns 0 | -EMSGSIZE array too short, outputs written all the same | -EOPNOTSUPP reserved | -ENOENT |
 *   -EFAULT
 * @source include/uapi/linux/iommufd.h struct iommu_ioas_iova_ranges
 */
export const IoasIovaRanges = struct(
  'iommu_ioas_iova_ranges',
  {
    size: 'u32',
    ioasId: 'u32',
    numIovas: 'u32',
    reserved: 'u32',
    allowedIovas: 'u64',
    outIovaAlignment: 'u64',
  },
  { size: 32, last: 'outIovaAlignment' },
);
export type IoasIovaRanges = TypeOf<typeof IoasIovaRanges>;

/**
 * Replaces the list of ranges that must stay mappable; later attaches that would narrow them fail.
 *
 * `allowedIovas`: user address of `numIovas` {@link IovaRange}; 0 elements clear the list.
 * @returns 0 | -EINVAL overlap or start >= last | -EADDRINUSE already reserved | -EOPNOTSUPP reserved |
 *   -ENOENT | -EFAULT | -ENOMEM
 * @source include/uapi/linux/iommufd.h struct iommu_ioas_allow_iovas
 */
export const IoasAllowIovas = struct(
  'iommu_ioas_allow_iovas',
  { size: 'u32', ioasId: 'u32', numIovas: 'u32', reserved: 'u32', allowedIovas: 'u64' },
  { size: 24, last: 'allowedIovas' },
);
export type IoasAllowIovas = TypeOf<typeof IoasAllowIovas>;

/** Map at the given IOVA; without it the kernel picks one and writes it back. */
export const IOMMU_IOAS_MAP_FIXED_IOVA = 1 << 0;
/** DMA may write. */
export const IOMMU_IOAS_MAP_WRITEABLE = 1 << 1;
/** DMA may read. */
export const IOMMU_IOAS_MAP_READABLE = 1 << 2;

/**
 * Maps user memory.
 *
 * `flags`: IOMMU_IOAS_MAP_*. `userVa`, `length`: bytes. `iova`: in with FIXED_IOVA, always out.
 * @returns 0 | -EOPNOTSUPP flags or reserved | -EOVERFLOW address wraps | -EINVAL neither R nor W, length 0,
 *   unaligned, reserved | -EEXIST something is mapped there | -ENOSPC no room | -EFAULT | -ENOMEM | -ENOENT
 * @source include/uapi/linux/iommufd.h struct iommu_ioas_map
 */
export const IoasMap = struct(
  'iommu_ioas_map',
  {
    size: 'u32',
    flags: 'u32',
    ioasId: 'u32',
    reserved: 'u32',
    userVa: 'u64',
    length: 'u64',
    iova: 'u64',
  },
  { size: 40, last: 'iova' },
);
export type IoasMap = TypeOf<typeof IoasMap>;

/**
 * Maps part of a memfd or a dma-buf.
 *
 * `flags`, `length`, `iova`: as {@link IoasMap}. `fd`: file descriptor. `start`: byte offset in the file.
 * There is no reserved field.
 * @returns as {@link IoasMap}, and -EBADF no such file, -EINVAL not a file that can be mapped
 * @source include/uapi/linux/iommufd.h struct iommu_ioas_map_file
 */
export const IoasMapFile = struct(
  'iommu_ioas_map_file',
  { size: 'u32', flags: 'u32', ioasId: 'u32', fd: 's32', start: 'u64', length: 'u64', iova: 'u64' },
  { size: 40, last: 'iova' },
);
export type IoasMapFile = TypeOf<typeof IoasMapFile>;

/**
 * Maps in one IOAS what another has mapped, sharing the pinned pages.
 *
 * `flags`: IOMMU_IOAS_MAP_*. `dstIova`: in with FIXED_IOVA, always out. Note that `length` precedes the IOVAs.
 * @returns 0 | -ENOENT the source range has a hole, or no such IOAS | -EPERM writeable copy of read-only pages |
 *   and as {@link IoasMap}
 * @source include/uapi/linux/iommufd.h struct iommu_ioas_copy
 */
export const IoasCopy = struct(
  'iommu_ioas_copy',
  {
    size: 'u32',
    flags: 'u32',
    dstIoasId: 'u32',
    srcIoasId: 'u32',
    length: 'u64',
    dstIova: 'u64',
    srcIova: 'u64',
  },
  { size: 40, last: 'srcIova' },
);
export type IoasCopy = TypeOf<typeof IoasCopy>;

/**
 * Unmaps whole mappings; the range may cover several but cut none.
 *
 * `length`: in, bytes to unmap; out, bytes unmapped. (0, U64_MAX) is everything, and succeeds when empty.
 * @returns 0 | -ENOENT nothing there, or a mapping would be cut | -EBUSY a queue holds it | -EDEADLOCK a user
 *   does not let go | -EINVAL | -EOVERFLOW
 * @source include/uapi/linux/iommufd.h struct iommu_ioas_unmap
 */
export const IoasUnmap = struct(
  'iommu_ioas_unmap',
  { size: 'u32', ioasId: 'u32', iova: 'u64', length: 'u64' },
  { size: 24, last: 'length' },
);
export type IoasUnmap = TypeOf<typeof IoasUnmap>;

/**
 * Moves the pinned-memory charge of every IOAS of this fd to the calling process.
 * @returns 0 | -EINVAL some mapping is not of a file | -EOPNOTSUPP reserved | -ENOMEM over the limit
 * @source include/uapi/linux/iommufd.h struct iommu_ioas_change_process
 */
export const IoasChangeProcess = struct(
  'iommu_ioas_change_process',
  { size: 'u32', reserved: 'u32' },
  { size: 8, last: 'reserved' },
);
export type IoasChangeProcess = TypeOf<typeof IoasChangeProcess>;
