/**
 * IOMMU_FAULT_QUEUE_ALLOC and the records that its file descriptor carries. Linux 7.0.
 *
 * read() yields {@link HwptPgfault} records, whole groups only; write() takes {@link HwptPageResponse}, one a
 * group. Both want a count that is a multiple of the record and answer -ESPIPE otherwise.
 */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_FAULT_QUEUE_ALLOC = _IO(';', 0x8e);

/**
 * A new fault queue.
 *
 * `flags`: 0. `outFaultFd`: a file descriptor.
 * @returns 0 | -EOPNOTSUPP any flag | -EMFILE | -ENOMEM
 * @source include/uapi/linux/iommufd.h struct iommu_fault_alloc
 */
export const FaultAlloc = struct(
  'iommu_fault_alloc',
  { size: 'u32', flags: 'u32', outFaultId: 'u32', outFaultFd: 'u32' },
  { size: 16, last: 'outFaultFd' },
);
export type FaultAlloc = TypeOf<typeof FaultAlloc>;

/** `pasid` means something. */
export const IOMMU_PGFAULT_FLAGS_PASID_VALID = 1 << 0;
/** The last record of its group; its cookie is the one to answer. */
export const IOMMU_PGFAULT_FLAGS_LAST_PAGE = 1 << 1;

export const IOMMU_PGFAULT_PERM_READ = 1 << 0;
export const IOMMU_PGFAULT_PERM_WRITE = 1 << 1;
/** The PASID prefix had Execute Requested. */
export const IOMMU_PGFAULT_PERM_EXEC = 1 << 2;
/** The PASID prefix had Privileged Mode Requested. */
export const IOMMU_PGFAULT_PERM_PRIV = 1 << 3;

/**
 * One faulting page.
 *
 * `devId`: the device as VFIO bind named it. `grpid`: PCI page request group. `perm`: IOMMU_PGFAULT_PERM_*.
 * `addr`: bytes. `length`: bytes the device hopes for, 0 for no hint. `cookie`: the kernel's name for the group.
 * @source include/uapi/linux/iommufd.h struct iommu_hwpt_pgfault
 */
export const HwptPgfault = struct(
  'iommu_hwpt_pgfault',
  {
    flags: 'u32',
    devId: 'u32',
    pasid: 'u32',
    grpid: 'u32',
    perm: 'u32',
    reserved: 'u32',
    addr: 'u64',
    length: 'u32',
    cookie: 'u32',
  },
  { size: 40 },
);
export type HwptPgfault = TypeOf<typeof HwptPgfault>;

/** Handled: try the access again. */
export const IOMMUFD_PAGE_RESP_SUCCESS = 0;
/** Cannot be handled: do not try again. */
export const IOMMUFD_PAGE_RESP_INVALID = 1;

/**
 * The answer to a group.
 *
 * `cookie`: as read. `code`: IOMMUFD_PAGE_RESP_*. A wrong one of either is -EINVAL from write().
 * @source include/uapi/linux/iommufd.h struct iommu_hwpt_page_response
 */
export const HwptPageResponse = struct(
  'iommu_hwpt_page_response',
  { cookie: 'u32', code: 'u32' },
  { size: 8 },
);
export type HwptPageResponse = TypeOf<typeof HwptPageResponse>;
