/**
 * The three VFIO device ioctls that tie a device to an iommufd, and what a device is. Linux 7.0.
 *
 * Sizing is VFIO's, not iommufd's. The length is `argsz`; less than `minSize` is EINVAL. BIND then treats the
 * rest as iommufd does (a non-zero tail is E2BIG, what is missing is 0). ATTACH and DETACH read `pasid` only
 * when the PASID flag is set, want `argsz` to reach its end then (EINVAL), and never look further.
 *
 * A failing read of the struct is EFAULT. Unknown flags are EINVAL here, where iommufd says EOPNOTSUPP.
 *
 * Not modelled: the rest of VFIO (regions, interrupts, reset, migration, groups). Containers: `container.ts`.
 */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

/** Numbers of the VFIO calls count from here, under the same type byte as iommufd. */
export const VFIO_BASE = 100;

export const VFIO_DEVICE_GET_INFO = _IO(';', VFIO_BASE + 7);
export const VFIO_DEVICE_BIND_IOMMUFD = _IO(';', VFIO_BASE + 18);
export const VFIO_DEVICE_ATTACH_IOMMUFD_PT = _IO(';', VFIO_BASE + 19);
export const VFIO_DEVICE_DETACH_IOMMUFD_PT = _IO(';', VFIO_BASE + 20);

/** `tokenUuidPtr` is given. */
export const VFIO_DEVICE_BIND_FLAG_TOKEN = 1 << 0;
/** `pasid` is given. */
export const VFIO_DEVICE_ATTACH_PASID = 1 << 0;
/** `pasid` is given. */
export const VFIO_DEVICE_DETACH_PASID = 1 << 0;

/**
 * Binds the device to an iommufd and opens it for use; undone by closing the device.
 *
 * `flags`: VFIO_DEVICE_BIND_FLAG_*. `iommufd`: file descriptor. `outDevid`: the device's object ID, the only
 * field written back. `tokenUuidPtr`: user address of 16 bytes; callers may stop before it.
 * @returns 0 | -EINVAL flags, negative fd, bound already, not cache coherent | -EBADF no such fd |
 *   -EBADFD not an iommufd | -EPERM no interrupt isolation | -EFAULT
 * @source include/uapi/linux/vfio.h struct vfio_device_bind_iommufd
 */
export const VfioDeviceBindIommufd = struct(
  'vfio_device_bind_iommufd',
  { argsz: 'u32', flags: 'u32', iommufd: 's32', outDevid: 'u32', tokenUuidPtr: 'u64' },
  { size: 24, last: 'outDevid' },
);
export type VfioDeviceBindIommufd = TypeOf<typeof VfioDeviceBindIommufd>;

/**
 * Attaches the device, or one PASID of it, to a page table. Attached already, it is moved without a gap.
 *
 * `flags`: VFIO_DEVICE_ATTACH_PASID or 0. `ptId`: in, an IOAS or HWPT; out, the HWPT in use, the only field
 * written back. `pasid`: 20 bits.
 * @returns 0 | -EINVAL flags, or the table does not suit the device or its group | -EOPNOTSUPP no PASIDs |
 *   -EBUSY | -EADDRINUSE a reserved region is mapped | -ENOENT | -ENOMEM | -EFAULT
 * @source include/uapi/linux/vfio.h struct vfio_device_attach_iommufd_pt
 */
export const VfioDeviceAttachIommufdPt = struct(
  'vfio_device_attach_iommufd_pt',
  { argsz: 'u32', flags: 'u32', ptId: 'u32', pasid: 'u32' },
  { size: 16, last: 'ptId' },
);
export type VfioDeviceAttachIommufdPt = TypeOf<typeof VfioDeviceAttachIommufdPt>;

/**
 * Detaches the device, or one PASID of it; its DMA is blocked from then on.
 *
 * `flags`: VFIO_DEVICE_DETACH_PASID or 0. Detaching what is not attached succeeds.
 * @returns 0 | -EINVAL flags | -EOPNOTSUPP no PASIDs | -EFAULT
 * @source include/uapi/linux/vfio.h struct vfio_device_detach_iommufd_pt
 */
export const VfioDeviceDetachIommufdPt = struct(
  'vfio_device_detach_iommufd_pt',
  { argsz: 'u32', flags: 'u32', pasid: 'u32' },
  { size: 12, last: 'flags' },
);
export type VfioDeviceDetachIommufdPt = TypeOf<typeof VfioDeviceDetachIommufdPt>;

/** In `flags` of {@link VfioDeviceInfo}: what is behind the file. */
export const VFIO_DEVICE_FLAGS_RESET = 1 << 0;
export const VFIO_DEVICE_FLAGS_PCI = 1 << 1;
export const VFIO_DEVICE_FLAGS_PLATFORM = 1 << 2;
export const VFIO_DEVICE_FLAGS_CAPS = 1 << 7;

/**
 * What a device has. Regions and interrupts count from 0 here, as no device has any.
 *
 * `flags`: VFIO_DEVICE_FLAGS_*. `numRegions`, `numIrqs`: highest index + 1. Callers may stop there.
 * @returns 0 | -EINVAL argsz | -EFAULT
 * @source include/uapi/linux/vfio.h struct vfio_device_info
 */
export const VfioDeviceInfo = struct(
  'vfio_device_info',
  { argsz: 'u32', flags: 'u32', numRegions: 'u32', numIrqs: 'u32', capOffset: 'u32', pad: 'u32' },
  { size: 24, last: 'numIrqs' },
);
export type VfioDeviceInfo = TypeOf<typeof VfioDeviceInfo>;
