/**
 * IOMMU_VFIO_IOAS: which IOAS stands behind the old VFIO container calls. Linux 7.0.
 *
 * Those calls themselves are in `vfio/container.ts`.
 */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_VFIO_IOAS = _IO(';', 0x88);

export const IOMMU_VFIO_IOAS_GET = 0;
export const IOMMU_VFIO_IOAS_SET = 1;
export const IOMMU_VFIO_IOAS_CLEAR = 2;

/**
 * Gets, sets or forgets the compatibility IOAS.
 *
 * `op`: IOMMU_VFIO_IOAS_*. `ioasId`: in for SET, out for GET, ignored for CLEAR.
 * @returns 0 | -ENODEV GET when there is none | -ENOENT | -EOPNOTSUPP unknown op or reserved
 * @source include/uapi/linux/iommufd.h struct iommu_vfio_ioas
 */
export const VfioIoas = struct(
  'iommu_vfio_ioas',
  { size: 'u32', ioasId: 'u32', op: 'u16', reserved: 'u16' },
  { size: 12, last: 'reserved' },
);
export type VfioIoas = TypeOf<typeof VfioIoas>;
