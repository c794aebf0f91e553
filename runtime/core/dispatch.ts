/**
 * iommufd's ioctl table and the one dispatcher in front of it. It alone checks the size and the tail of the
 * caller's struct, and alone publishes (on success) or aborts (on failure) what a handler has made.
 *
 * @source drivers/iommu/iommufd/main.c iommufd_fops_ioctl, iommufd_ioctl_ops
 */
import { bug } from '../../hw/memory/bug.js';
import { EFAULT, ENOTTY } from '../../uapi/abi/errno.js';
import { _IOC_NR } from '../../uapi/abi/ioctl.js';
import type { Fields, Struct } from '../../uapi/abi/struct.js';
import { Destroy, IOMMU_DESTROY } from '../../uapi/iommufd/destroy.js';
import { FaultAlloc, IOMMU_FAULT_QUEUE_ALLOC } from '../../uapi/iommufd/fault.js';
import { HwInfo, IOMMU_GET_HW_INFO } from '../../uapi/iommufd/hw-info.js';
import { HwQueueAlloc, IOMMU_HW_QUEUE_ALLOC } from '../../uapi/iommufd/hw-queue.js';
import { HwptAlloc, IOMMU_HWPT_ALLOC } from '../../uapi/iommufd/hwpt.js';
import {
  HwptGetDirtyBitmap,
  HwptSetDirtyTracking,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
} from '../../uapi/iommufd/hwpt-dirty.js';
import { HwptInvalidate, IOMMU_HWPT_INVALIDATE } from '../../uapi/iommufd/hwpt-invalidate.js';
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
} from '../../uapi/iommufd/ioas.js';
import { IOCTLS, IOMMUFD_CMD_BASE } from '../../uapi/iommufd/ioctl-table.js';
import { IOMMU_OPTION, Option } from '../../uapi/iommufd/option.js';
import { IOMMU_TEST_CMD, TestCmd } from '../../uapi/iommufd/test.js';
import { IOMMU_VDEVICE_ALLOC, VdeviceAlloc } from '../../uapi/iommufd/vdevice.js';
import { IOMMU_VEVENTQ_ALLOC, VeventqAlloc } from '../../uapi/iommufd/veventq.js';
import { IOMMU_VFIO_IOAS, VfioIoas } from '../../uapi/iommufd/vfio-ioas.js';
import { IOMMU_VIOMMU_ALLOC, ViommuAlloc } from '../../uapi/iommufd/viommu.js';
import { ioasChangeProcess } from '../objects/change-process.js';
import { getHwInfo } from '../objects/device.js';
import { hwptGetDirtyBitmap, hwptSetDirtyTracking } from '../objects/dirty.js';
import { faultAlloc } from '../objects/fault.js';
import { hwQueueAlloc } from '../objects/hw-queue.js';
import { hwptAlloc, hwptInvalidate } from '../objects/hwpt.js';
import {
  ioasAlloc,
  ioasAllowIovas,
  ioasCopy,
  ioasIovaRanges,
  ioasMap,
  ioasMapDirect,
  ioasUnmap,
  ioasUnmapDirect,
  NOT_DIRECT,
} from '../objects/ioas.js';
import { ioasMapFile } from '../objects/map-file.js';
import { option } from '../objects/option.js';
import { vdeviceAlloc } from '../objects/vdevice.js';
import { veventqAlloc } from '../objects/veventq.js';
import { vfioIoas, vfioIoctl } from '../objects/vfio-compat.js';
import { viommuAlloc } from '../objects/viommu.js';
import { testIoctl } from '../test-ioctl/test-ioctl.js';
import type { IommufdCtx } from './ctx.js';
import { copyStructIn, structSize } from './struct-copy.js';
import { Ucmd } from './ucmd.js';

type Handler<F extends Fields> = (ucmd: Ucmd<F>) => number;
/** Serves the commonest calls from a whole struct's bytes; NOT_DIRECT leaves one to the handler. */
type Direct = (ctx: IommufdCtx, bytes: Uint8Array) => number;

interface Row {
  readonly cmd: number;
  readonly struct: Struct<Fields>;
  readonly execute: Handler<Fields>;
  readonly direct: Direct | undefined;
}

function row<F extends Fields>(cmd: number, struct: Struct<F>, execute: Handler<F>, direct?: Direct): Row {
  return {
    cmd,
    struct: struct as unknown as Struct<Fields>,
    execute: execute as unknown as Handler<Fields>,
    direct,
  };
}

const BUILT: readonly Row[] = [
  row(IOMMU_DESTROY, Destroy, (ucmd) => ucmd.ctx.destroyId(ucmd.cmd.id)),
  row(IOMMU_IOAS_ALLOC, IoasAlloc, ioasAlloc),
  row(IOMMU_IOAS_ALLOW_IOVAS, IoasAllowIovas, ioasAllowIovas),
  row(IOMMU_IOAS_COPY, IoasCopy, ioasCopy),
  row(IOMMU_IOAS_IOVA_RANGES, IoasIovaRanges, ioasIovaRanges),
  row(IOMMU_IOAS_MAP, IoasMap, ioasMap, ioasMapDirect),
  row(IOMMU_IOAS_UNMAP, IoasUnmap, ioasUnmap, ioasUnmapDirect),
  row(IOMMU_OPTION, Option, option),
  row(IOMMU_IOAS_MAP_FILE, IoasMapFile, ioasMapFile),
  row(IOMMU_IOAS_CHANGE_PROCESS, IoasChangeProcess, ioasChangeProcess),
  row(IOMMU_VFIO_IOAS, VfioIoas, vfioIoas),
  row(IOMMU_HWPT_ALLOC, HwptAlloc, hwptAlloc),
  row(IOMMU_GET_HW_INFO, HwInfo, getHwInfo),
  row(IOMMU_HWPT_SET_DIRTY_TRACKING, HwptSetDirtyTracking, hwptSetDirtyTracking),
  row(IOMMU_HWPT_GET_DIRTY_BITMAP, HwptGetDirtyBitmap, hwptGetDirtyBitmap),
  row(IOMMU_HWPT_INVALIDATE, HwptInvalidate, hwptInvalidate),
  row(IOMMU_FAULT_QUEUE_ALLOC, FaultAlloc, faultAlloc),
  row(IOMMU_VIOMMU_ALLOC, ViommuAlloc, viommuAlloc),
  row(IOMMU_VDEVICE_ALLOC, VdeviceAlloc, vdeviceAlloc),
  row(IOMMU_VEVENTQ_ALLOC, VeventqAlloc, veventqAlloc),
  row(IOMMU_HW_QUEUE_ALLOC, HwQueueAlloc, hwQueueAlloc),
];

/** By nr. */
const TABLE: readonly Row[] = IOCTLS.map(
  ({ cmd, name }) => BUILT.find((built) => built.cmd === cmd) ?? bug(`${name} has no handler`),
);

/** Far from the others, and only where the machine has it. */
const TEST_ROW = row(IOMMU_TEST_CMD, TestCmd, testIoctl);
const TEST_NR = _IOC_NR(IOMMU_TEST_CMD);

/** Between the last ioctl and the test ioctl: Linux's table has empty rows there, which are looked up like others. */
function isGap(nr: number, ctx: IommufdCtx): boolean {
  return nr > IOMMUFD_CMD_BASE && nr < TEST_NR && ctx.context.mock !== undefined;
}

/**
 * @param bytes  the caller's memory from the struct's first byte on; it may end anywhere. Of VFIO calls that take a
 *   number: its 8 bytes
 * @returns >= 0 | -ENOTTY unknown request | -EFAULT bytes end too soon | -EINVAL size | -E2BIG non-zero tail |
 *   what the handler says
 */
export function dispatch(ctx: IommufdCtx, cmd: number, bytes: Uint8Array): number {
  const nr = _IOC_NR(cmd);
  const tests = nr === TEST_NR && ctx.context.mock !== undefined;
  const entry = tests ? TEST_ROW : TABLE[nr - IOMMUFD_CMD_BASE];
  if (entry === undefined && !isGap(nr, ctx)) return vfioIoctl(ctx, cmd, bytes);
  if (bytes.byteLength < 4) return -EFAULT;
  if (entry === undefined) return -ENOTTY;
  if (entry.cmd !== cmd) return -ENOTTY;
  const userSize = structSize(bytes);
  const whole = userSize === entry.struct.size && bytes.byteLength >= userSize;
  if (entry.direct !== undefined && whole && !ctx.core.current.structReadOnly) {
    const status = entry.direct(ctx, bytes);
    if (status !== NOT_DIRECT) return status;
  }
  const value = copyStructIn(entry.struct, bytes, userSize);
  if (typeof value === 'number') return value;
  const ucmd = new Ucmd(ctx, entry.struct, value, bytes, userSize);
  const status = entry.execute(ucmd);
  if (ucmd.newObject !== null) {
    if (status < 0) ctx.abort(ucmd.newObject);
    else ctx.publish(ucmd.newObject);
  }
  return status;
}
