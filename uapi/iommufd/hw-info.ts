/**
 * IOMMU_GET_HW_INFO: what the IOMMU behind a bound device can do. Linux 7.0.
 *
 * The data that `dataUptr` receives is one of the `HwInfo*` structs of `uapi/drivers/`.
 */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_GET_HW_INFO = _IO(';', 0x8a);

/** Out: the driver reports nothing. */
export const IOMMU_HW_INFO_TYPE_NONE = 0;
/** In: whatever type the driver prefers. */
export const IOMMU_HW_INFO_TYPE_DEFAULT = 0;
export const IOMMU_HW_INFO_TYPE_INTEL_VTD = 1;
export const IOMMU_HW_INFO_TYPE_ARM_SMMUV3 = 2;
export const IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV = 3;
export const IOMMU_HW_INFO_TYPE_AMD = 4;

/** The dirty-tracking ioctls work for this device. */
export const IOMMU_HW_CAP_DIRTY_TRACKING = 1 << 0;
/** PASIDs may carry execute requests; means nothing while `outMaxPasidLog2` is 0. */
export const IOMMU_HW_CAP_PCI_PASID_EXEC = 1 << 1;
/** PASIDs may carry privileged requests; means nothing while `outMaxPasidLog2` is 0. */
export const IOMMU_HW_CAP_PCI_PASID_PRIV = 1 << 2;
/** This device cannot use ATS. Clear means that it might. */
export const IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED = 1 << 3;

/** `dataType` is an input as well. */
export const IOMMU_HW_INFO_FLAG_INPUT_TYPE = 1 << 0;

/**
 * Queries a device's IOMMU.
 *
 * `dataLen`: in, bytes at `dataUptr`; out, bytes that the kernel has, which may be more. What the kernel does
 * not fill of the buffer is zeroed. `dataType`: the header's union of in_data_type (read only with
 * FLAG_INPUT_TYPE) and out_data_type. `outMaxPasidLog2`: bits, 0 for no PASIDs. `outCapabilities`:
 * IOMMU_HW_CAP_*; not written back to callers older than it, whose struct ends at `reserved`.
 * @returns 0 | -EOPNOTSUPP flags, reserved, or a type that the driver lacks | -ENOENT | -EFAULT
 * @source include/uapi/linux/iommufd.h struct iommu_hw_info
 */
export const HwInfo = struct(
  'iommu_hw_info',
  {
    size: 'u32',
    flags: 'u32',
    devId: 'u32',
    dataLen: 'u32',
    dataUptr: 'u64',
    dataType: 'u32',
    outMaxPasidLog2: 'u8',
    reserved: ['u8', 3],
    outCapabilities: 'u64',
  },
  { size: 40, last: 'reserved' },
);
export type HwInfo = TypeOf<typeof HwInfo>;
