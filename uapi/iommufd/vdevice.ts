/** IOMMU_VDEVICE_ALLOC: a device as its VM's IOMMU knows it. Linux 7.0. */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_VDEVICE_ALLOC = _IO(';', 0x91);

/**
 * Gives a bound device its virtual ID in a vIOMMU.
 *
 * `virtId`: vSID (SMMUv3), vDeviceID (AMD) or vRID (VT-d), unique in the vIOMMU.
 * @returns 0 | -EINVAL the device is behind another IOMMU | -EEXIST the device or the ID has one already |
 *   -ENOENT | -ENOMEM
 * @source include/uapi/linux/iommufd.h struct iommu_vdevice_alloc
 */
export const VdeviceAlloc = struct(
  'iommu_vdevice_alloc',
  { size: 'u32', viommuId: 'u32', devId: 'u32', outVdeviceId: 'u32', virtId: 'u64' },
  { size: 24, last: 'virtId' },
);
export type VdeviceAlloc = TypeOf<typeof VdeviceAlloc>;
