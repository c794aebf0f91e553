/**
 * The VFIO container calls: the API that came before iommufd, which an iommufd answers for its compatibility IOAS
 * and which `/dev/vfio/vfio` is. Linux 7.0.
 *
 * Sizing is VFIO's: `argsz` says how long the caller's struct is. Less than `minSize` is EINVAL, the bytes up to
 * `minSize` are read and written, and what lies further is not looked at. Three calls take a number in the place of
 * a pointer: CHECK_EXTENSION and SET_IOMMU, and GET_API_VERSION takes nothing.
 *
 * Not modelled: groups (VFIO_GROUP_*), the POWER calls (VFIO_IOMMU_SPAPR_*, VFIO_EEH_*), whose numbers overlap
 * those of devices, and the migration capability, which iommufd does not give either.
 *
 * @source include/uapi/linux/vfio.h
 */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';
import { VFIO_BASE } from './cdev.js';

export const VFIO_GET_API_VERSION = _IO(';', VFIO_BASE + 0);
export const VFIO_CHECK_EXTENSION = _IO(';', VFIO_BASE + 1);
export const VFIO_SET_IOMMU = _IO(';', VFIO_BASE + 2);
export const VFIO_IOMMU_GET_INFO = _IO(';', VFIO_BASE + 12);
export const VFIO_IOMMU_MAP_DMA = _IO(';', VFIO_BASE + 13);
export const VFIO_IOMMU_UNMAP_DMA = _IO(';', VFIO_BASE + 14);
export const VFIO_IOMMU_DIRTY_PAGES = _IO(';', VFIO_BASE + 17);

/** What GET_API_VERSION answers. */
export const VFIO_API_VERSION = 0;

/** Kinds of IOMMU, and other extensions: the number that CHECK_EXTENSION and SET_IOMMU take. */
export const VFIO_TYPE1_IOMMU = 1;
/** Unmaps whole mappings only. */
export const VFIO_TYPE1v2_IOMMU = 3;
/** DMA is coherent whatever a device asks for. */
export const VFIO_DMA_CC_IOMMU = 4;
/** Was VFIO_TYPE1_NESTING_IOMMU, which is gone. */
export const VFIO_TYPE1_NESTING_IOMMU = 6;
/** No IOMMU at all. */
export const VFIO_NOIOMMU_IOMMU = 8;
export const VFIO_UNMAP_ALL = 9;
export const VFIO_UPDATE_VADDR = 10;

/** In the flags of GET_INFO: `iovaPgsizes` means something. */
export const VFIO_IOMMU_INFO_PGSIZES = 1 << 0;
/** In the flags of GET_INFO: there is a chain of capabilities. */
export const VFIO_IOMMU_INFO_CAPS = 1 << 1;

/**
 * What the container can do, followed by a chain of capabilities as far as `argsz` reaches.
 *
 * `argsz`: in, bytes the caller has; out, bytes that everything takes. `iovaPgsizes`: bitmap of page sizes.
 * `capOffset`: of the first capability from the start of the struct, 0 when the chain did not fit.
 * @returns 0 | -EINVAL argsz | -ENODEV there is no compatibility IOAS | -EFAULT
 * @source include/uapi/linux/vfio.h struct vfio_iommu_type1_info
 */
export const VfioIommuType1Info = struct(
  'vfio_iommu_type1_info',
  { argsz: 'u32', flags: 'u32', iovaPgsizes: 'u64', capOffset: 'u32', pad: 'u32' },
  { size: 24, last: 'iovaPgsizes' },
);
export type VfioIommuType1Info = TypeOf<typeof VfioIommuType1Info>;

/**
 * Precedes every capability.
 *
 * `id`: VFIO_IOMMU_TYPE1_INFO_*. `next`: offset of the next one from the start of the info struct, 0 for none.
 * @source include/uapi/linux/vfio.h struct vfio_info_cap_header
 */
export const VfioInfoCapHeader = struct(
  'vfio_info_cap_header',
  { id: 'u16', version: 'u16', next: 'u32' },
  { size: 8 },
);
export type VfioInfoCapHeader = TypeOf<typeof VfioInfoCapHeader>;

export const VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1;
export const VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3;

/**
 * Which IOVAs can be mapped: `nrIovas` times {@link VfioIovaRange} follow.
 * @source include/uapi/linux/vfio.h struct vfio_iommu_type1_info_cap_iova_range
 */
export const VfioIommuType1InfoCapIovaRange = struct(
  'vfio_iommu_type1_info_cap_iova_range',
  { id: 'u16', version: 'u16', next: 'u32', nrIovas: 'u32', reserved: 'u32' },
  { size: 16 },
);
export type VfioIommuType1InfoCapIovaRange = TypeOf<typeof VfioIommuType1InfoCapIovaRange>;

/**
 * One interval of IOVA space, bytes; `end` is inclusive, whatever its name says.
 * @source include/uapi/linux/vfio.h struct vfio_iova_range
 */
export const VfioIovaRange = struct('vfio_iova_range', { start: 'u64', end: 'u64' }, { size: 16 });
export type VfioIovaRange = TypeOf<typeof VfioIovaRange>;

/**
 * How many more mappings there may be.
 * @source include/uapi/linux/vfio.h struct vfio_iommu_type1_info_dma_avail
 */
export const VfioIommuType1InfoDmaAvail = struct(
  'vfio_iommu_type1_info_dma_avail',
  { id: 'u16', version: 'u16', next: 'u32', avail: 'u32' },
  { size: 12 },
);
export type VfioIommuType1InfoDmaAvail = TypeOf<typeof VfioIommuType1InfoDmaAvail>;

export const VFIO_DMA_MAP_FLAG_READ = 1 << 0;
export const VFIO_DMA_MAP_FLAG_WRITE = 1 << 1;
/** Give a mapping another user address; iommufd refuses it. */
export const VFIO_DMA_MAP_FLAG_VADDR = 1 << 2;

/**
 * Maps user memory.
 *
 * `flags`: VFIO_DMA_MAP_FLAG_*. `vaddr`, `iova`, `size`: bytes.
 * @returns 0 | -EINVAL argsz, flags, alignment, reserved | -ENODEV no compatibility IOAS | -EEXIST | -EFAULT |
 *   -ENOMEM
 * @source include/uapi/linux/vfio.h struct vfio_iommu_type1_dma_map
 */
export const VfioIommuType1DmaMap = struct(
  'vfio_iommu_type1_dma_map',
  { argsz: 'u32', flags: 'u32', vaddr: 'u64', iova: 'u64', size: 'u64' },
  { size: 32 },
);
export type VfioIommuType1DmaMap = TypeOf<typeof VfioIommuType1DmaMap>;

export const VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 1 << 0;
/** Everything; `iova` and `size` are 0. */
export const VFIO_DMA_UNMAP_FLAG_ALL = 1 << 1;
export const VFIO_DMA_UNMAP_FLAG_VADDR = 1 << 2;

/**
 * Unmaps. Of a TYPE1 container any part of a mapping; of TYPE1v2 whole mappings.
 *
 * `flags`: VFIO_DMA_UNMAP_FLAG_ALL or 0. `size`: in, bytes to unmap; out, bytes unmapped, also on failure.
 * @returns 0 also when nothing was mapped there | -EINVAL argsz, flags | -ENODEV no compatibility IOAS |
 *   -ENOENT a mapping would be cut | -EFAULT
 * @source include/uapi/linux/vfio.h struct vfio_iommu_type1_dma_unmap
 */
export const VfioIommuType1DmaUnmap = struct(
  'vfio_iommu_type1_dma_unmap',
  { argsz: 'u32', flags: 'u32', iova: 'u64', size: 'u64' },
  { size: 24 },
);
export type VfioIommuType1DmaUnmap = TypeOf<typeof VfioIommuType1DmaUnmap>;

/**
 * Dirty tracking of the container, which iommufd answers with ENOTTY: it has HWPT_GET_DIRTY_BITMAP instead.
 * @source include/uapi/linux/vfio.h struct vfio_iommu_type1_dirty_bitmap
 */
export const VfioIommuType1DirtyBitmap = struct(
  'vfio_iommu_type1_dirty_bitmap',
  { argsz: 'u32', flags: 'u32' },
  { size: 8 },
);
export type VfioIommuType1DirtyBitmap = TypeOf<typeof VfioIommuType1DirtyBitmap>;
