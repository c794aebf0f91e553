/**
 * Every iommufd ioctl of Linux 7.0, as data: number, name, struct.
 *
 * What a dispatcher does with a row (`row` = IOCTLS[nr - 0x80]):
 *
 *     nr outside the table          the VFIO container calls, or ENOTTY
 *     cmd !== row.cmd               ENOTTY: same nr, but other type, direction or size bits
 *     first u32 not readable        EFAULT
 *     size < row.struct.minSize     EINVAL
 *     size > row.struct.size        bytes past it must be 0, else E2BIG
 *     size < row.struct.size        the rest counts as 0
 *
 * and after the handler, whose outputs are copied back for min(size, row.struct.size) bytes. The table says
 * nothing about handlers. IOMMU_TEST_CMD (0xa0, only in kernels built for self-test) has no row.
 *
 * @source drivers/iommu/iommufd/main.c iommufd_ioctl_ops
 */

import { _IOC_NR } from '../abi/ioctl.js';
import type { Fields, Struct } from '../abi/struct.js';
import { Destroy, IOMMU_DESTROY } from './destroy.js';
import { FaultAlloc, IOMMU_FAULT_QUEUE_ALLOC } from './fault.js';
import { HwInfo, IOMMU_GET_HW_INFO } from './hw-info.js';
import { HwQueueAlloc, IOMMU_HW_QUEUE_ALLOC } from './hw-queue.js';
import { HwptAlloc, IOMMU_HWPT_ALLOC } from './hwpt.js';
import {
  HwptGetDirtyBitmap,
  HwptSetDirtyTracking,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
} from './hwpt-dirty.js';
import { HwptInvalidate, IOMMU_HWPT_INVALIDATE } from './hwpt-invalidate.js';
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_UNMAP,
  IoasAlloc,
  IoasAllowIovas,
  IoasChangeProcess,
  IoasCopy,
  IoasIovaRanges,
  IoasMap,
  IoasMapFile,
  IoasUnmap,
} from './ioas.js';
import { IOMMU_OPTION, Option } from './option.js';
import { IOMMU_VDEVICE_ALLOC, VdeviceAlloc } from './vdevice.js';
import { IOMMU_VEVENTQ_ALLOC, VeventqAlloc } from './veventq.js';
import { IOMMU_VFIO_IOAS, VfioIoas } from './vfio-ioas.js';
import { IOMMU_VIOMMU_ALLOC, ViommuAlloc } from './viommu.js';

/** The `nr` of the first row. */
export const IOMMUFD_CMD_BASE = 0x80;

export interface IoctlRow {
  readonly nr: number;
  /** As in the header: `'IOMMU_IOAS_MAP'`. */
  readonly name: string;
  /** The whole request number. */
  readonly cmd: number;
  readonly struct: Struct<Fields>;
}

function row(name: string, cmd: number, struct: Struct<Fields>): IoctlRow {
  return { nr: _IOC_NR(cmd), name, cmd, struct };
}

/** Ordered by `nr` without gaps, from {@link IOMMUFD_CMD_BASE}. */
export const IOCTLS: readonly IoctlRow[] = [
  row('IOMMU_DESTROY', IOMMU_DESTROY, Destroy),
  row('IOMMU_IOAS_ALLOC', IOMMU_IOAS_ALLOC, IoasAlloc),
  row('IOMMU_IOAS_ALLOW_IOVAS', IOMMU_IOAS_ALLOW_IOVAS, IoasAllowIovas),
  row('IOMMU_IOAS_COPY', IOMMU_IOAS_COPY, IoasCopy),
  row('IOMMU_IOAS_IOVA_RANGES', IOMMU_IOAS_IOVA_RANGES, IoasIovaRanges),
  row('IOMMU_IOAS_MAP', IOMMU_IOAS_MAP, IoasMap),
  row('IOMMU_IOAS_UNMAP', IOMMU_IOAS_UNMAP, IoasUnmap),
  row('IOMMU_OPTION', IOMMU_OPTION, Option),
  row('IOMMU_VFIO_IOAS', IOMMU_VFIO_IOAS, VfioIoas),
  row('IOMMU_HWPT_ALLOC', IOMMU_HWPT_ALLOC, HwptAlloc),
  row('IOMMU_GET_HW_INFO', IOMMU_GET_HW_INFO, HwInfo),
  row('IOMMU_HWPT_SET_DIRTY_TRACKING', IOMMU_HWPT_SET_DIRTY_TRACKING, HwptSetDirtyTracking),
  row('IOMMU_HWPT_GET_DIRTY_BITMAP', IOMMU_HWPT_GET_DIRTY_BITMAP, HwptGetDirtyBitmap),
  row('IOMMU_HWPT_INVALIDATE', IOMMU_HWPT_INVALIDATE, HwptInvalidate),
  row('IOMMU_FAULT_QUEUE_ALLOC', IOMMU_FAULT_QUEUE_ALLOC, FaultAlloc),
  row('IOMMU_IOAS_MAP_FILE', IOMMU_IOAS_MAP_FILE, IoasMapFile),
  row('IOMMU_VIOMMU_ALLOC', IOMMU_VIOMMU_ALLOC, ViommuAlloc),
  row('IOMMU_VDEVICE_ALLOC', IOMMU_VDEVICE_ALLOC, VdeviceAlloc),
  row('IOMMU_IOAS_CHANGE_PROCESS', IOMMU_IOAS_CHANGE_PROCESS, IoasChangeProcess),
  row('IOMMU_VEVENTQ_ALLOC', IOMMU_VEVENTQ_ALLOC, VeventqAlloc),
  row('IOMMU_HW_QUEUE_ALLOC', IOMMU_HW_QUEUE_ALLOC, HwQueueAlloc),
];
