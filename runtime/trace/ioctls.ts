/**
 * Every request number that an iommufd, a VFIO container or a VFIO device file is asked with, its name, its struct,
 * and where the memory is that the struct points at.
 *
 * Some numbers mean one thing to a VFIO device and another to a container; here they are the container's, as no
 * other device call with those numbers concerns an IOMMU. The names of the others are understood all the same.
 */
import { _IO } from '../../uapi/abi/ioctl.js';
import type { Fields, Struct } from '../../uapi/abi/struct.js';
import { HwInfoAmd, HwptAmdGuest } from '../../uapi/drivers/amd.js';
import {
  HwInfoSelftest,
  HwptInvalidateSelftest,
  HwptSelftest,
  IOMMU_HW_INFO_TYPE_SELFTEST,
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,
  IOMMU_VIOMMU_TYPE_SELFTEST,
  ViommuInvalidateSelftest,
  ViommuSelftest,
} from '../../uapi/drivers/selftest.js';
import { HwInfoArmSmmuv3, HwptArmSmmuv3, ViommuArmSmmuv3Invalidate } from '../../uapi/drivers/smmuv3.js';
import { HwInfoTegra241Cmdqv, ViommuTegra241Cmdqv } from '../../uapi/drivers/tegra241.js';
import { HwInfoVtd, HwptVtdS1, HwptVtdS1Invalidate } from '../../uapi/drivers/vtd.js';
import {
  HwInfo,
  IOMMU_GET_HW_INFO,
  IOMMU_HW_INFO_TYPE_AMD,
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
  IOMMU_HW_INFO_TYPE_INTEL_VTD,
  IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV,
} from '../../uapi/iommufd/hw-info.js';
import {
  HwptAlloc,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_DATA_AMD_GUEST,
  IOMMU_HWPT_DATA_ARM_SMMUV3,
  IOMMU_HWPT_DATA_VTD_S1,
} from '../../uapi/iommufd/hwpt.js';
import { HwptGetDirtyBitmap, IOMMU_HWPT_GET_DIRTY_BITMAP } from '../../uapi/iommufd/hwpt-dirty.js';
import {
  HwptInvalidate,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
} from '../../uapi/iommufd/hwpt-invalidate.js';
import {
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_IOVA_RANGES,
  IoasAllowIovas,
  IoasIovaRanges,
  IovaRange,
} from '../../uapi/iommufd/ioas.js';
import { IOCTLS } from '../../uapi/iommufd/ioctl-table.js';
import { IOMMU_TEST_CMD, TestCmd } from '../../uapi/iommufd/test.js';
import {
  IOMMU_VIOMMU_ALLOC,
  IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
  ViommuAlloc,
} from '../../uapi/iommufd/viommu.js';
import * as cdev from '../../uapi/vfio/cdev.js';
import * as container from '../../uapi/vfio/container.js';
import { type NamedValues, NO_NAMES, VFIO_EXTENSIONS } from './field-names.js';

export type AnyStruct = Struct<Fields>;

export interface TracedIoctl {
  readonly name: string;
  readonly cmd: number;
  /** Absent: nothing is known of its argument. */
  readonly struct?: AnyStruct;
  /** It takes a number, of these. */
  readonly argument?: NamedValues;
}

/** VFIO calls of which no struct is declared, from VFIO_BASE on; those below replace what they overlap. */
const NUMBERED =
  'VFIO_GET_API_VERSION VFIO_CHECK_EXTENSION VFIO_SET_IOMMU VFIO_GROUP_GET_STATUS VFIO_GROUP_SET_CONTAINER ' +
  'VFIO_GROUP_UNSET_CONTAINER VFIO_GROUP_GET_DEVICE_FD VFIO_DEVICE_GET_INFO VFIO_DEVICE_GET_REGION_INFO ' +
  'VFIO_DEVICE_GET_IRQ_INFO VFIO_DEVICE_SET_IRQS VFIO_DEVICE_RESET VFIO_DEVICE_GET_PCI_HOT_RESET_INFO ' +
  'VFIO_DEVICE_PCI_HOT_RESET VFIO_DEVICE_QUERY_GFX_PLANE VFIO_DEVICE_GET_GFX_DMABUF VFIO_DEVICE_IOEVENTFD ' +
  'VFIO_DEVICE_FEATURE VFIO_DEVICE_BIND_IOMMUFD VFIO_DEVICE_ATTACH_IOMMUFD_PT VFIO_DEVICE_DETACH_IOMMUFD_PT ' +
  'VFIO_MIG_GET_PRECOPY_INFO';
/** The same numbers on POWER, and on other files: strace may know a call under these alone. */
const ALIASES: Readonly<Record<string, number>> = {
  VFIO_IOMMU_SPAPR_TCE_GET_INFO: 12,
  VFIO_IOMMU_ENABLE: 15,
  VFIO_IOMMU_DISABLE: 16,
  VFIO_IOMMU_SPAPR_REGISTER_MEMORY: 17,
  VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY: 18,
  VFIO_IOMMU_SPAPR_TCE_CREATE: 19,
  VFIO_IOMMU_SPAPR_TCE_REMOVE: 20,
  VFIO_EEH_PE_OP: 21,
};

function table(): TracedIoctl[] {
  const vfio = NUMBERED.split(' ').map(
    (name, i): TracedIoctl => ({ name, cmd: _IO(';', cdev.VFIO_BASE + i) }),
  );
  const known = (name: string, cmd: number, struct: unknown): TracedIoctl => ({
    name,
    cmd,
    struct: struct as AnyStruct,
  });
  return [
    ...vfio,
    ...IOCTLS.map(({ name, cmd, struct }) => known(name, cmd, struct)),
    known('IOMMU_TEST_CMD', IOMMU_TEST_CMD, TestCmd),
    { name: 'VFIO_GET_API_VERSION', cmd: container.VFIO_GET_API_VERSION, argument: NO_NAMES },
    { name: 'VFIO_CHECK_EXTENSION', cmd: container.VFIO_CHECK_EXTENSION, argument: VFIO_EXTENSIONS },
    { name: 'VFIO_SET_IOMMU', cmd: container.VFIO_SET_IOMMU, argument: VFIO_EXTENSIONS },
    known('VFIO_DEVICE_GET_INFO', cdev.VFIO_DEVICE_GET_INFO, cdev.VfioDeviceInfo),
    known('VFIO_DEVICE_BIND_IOMMUFD', cdev.VFIO_DEVICE_BIND_IOMMUFD, cdev.VfioDeviceBindIommufd),
    known(
      'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
      cdev.VFIO_DEVICE_ATTACH_IOMMUFD_PT,
      cdev.VfioDeviceAttachIommufdPt,
    ),
    known(
      'VFIO_DEVICE_DETACH_IOMMUFD_PT',
      cdev.VFIO_DEVICE_DETACH_IOMMUFD_PT,
      cdev.VfioDeviceDetachIommufdPt,
    ),
    known('VFIO_IOMMU_GET_INFO', container.VFIO_IOMMU_GET_INFO, container.VfioIommuType1Info),
    known('VFIO_IOMMU_MAP_DMA', container.VFIO_IOMMU_MAP_DMA, container.VfioIommuType1DmaMap),
    known('VFIO_IOMMU_UNMAP_DMA', container.VFIO_IOMMU_UNMAP_DMA, container.VfioIommuType1DmaUnmap),
    known('VFIO_IOMMU_DIRTY_PAGES', container.VFIO_IOMMU_DIRTY_PAGES, container.VfioIommuType1DirtyBitmap),
  ];
}

const ROWS = table();
const BY_CMD = new Map(ROWS.map((row) => [row.cmd, row]));
const BY_NAME = new Map(ROWS.map(({ name, cmd }) => [name, cmd]));
for (const [name, nr] of Object.entries(ALIASES)) BY_NAME.set(name, _IO(';', cdev.VFIO_BASE + nr));

/** Everything of which something is known, one row a number. */
export const TRACED_IOCTLS: readonly TracedIoctl[] = [...BY_CMD.values()];

export function tracedIoctl(cmd: number): TracedIoctl | undefined {
  return BY_CMD.get(cmd);
}

/** @param name  as a header, or strace, spells it */
export function cmdOfName(name: string): number | undefined {
  return BY_NAME.get(name);
}

/** Memory that a struct points at. */
export interface PointedAt {
  /** User address. */
  readonly address: bigint;
  readonly bytes: number;
  /** What is there; null: bytes of no known struct. */
  readonly struct: AnyStruct | null;
  /** Bytes from one element of an array to the next; 0: there is one struct. */
  readonly stride: number;
}

const any = (struct: unknown): AnyStruct => struct as AnyStruct;

const HWPT_DATA: ReadonlyMap<number, AnyStruct> = new Map([
  [IOMMU_HWPT_DATA_VTD_S1, any(HwptVtdS1)],
  [IOMMU_HWPT_DATA_ARM_SMMUV3, any(HwptArmSmmuv3)],
  [IOMMU_HWPT_DATA_AMD_GUEST, any(HwptAmdGuest)],
  [IOMMU_HWPT_DATA_SELFTEST, any(HwptSelftest)],
]);
const HW_INFO: ReadonlyMap<number, AnyStruct> = new Map([
  [IOMMU_HW_INFO_TYPE_INTEL_VTD, any(HwInfoVtd)],
  [IOMMU_HW_INFO_TYPE_ARM_SMMUV3, any(HwInfoArmSmmuv3)],
  [IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV, any(HwInfoTegra241Cmdqv)],
  [IOMMU_HW_INFO_TYPE_AMD, any(HwInfoAmd)],
  [IOMMU_HW_INFO_TYPE_SELFTEST, any(HwInfoSelftest)],
]);
const INVALIDATIONS: ReadonlyMap<number, AnyStruct> = new Map([
  [IOMMU_HWPT_INVALIDATE_DATA_VTD_S1, any(HwptVtdS1Invalidate)],
  [IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3, any(ViommuArmSmmuv3Invalidate)],
]);
const VIOMMU_DATA: ReadonlyMap<number, AnyStruct> = new Map([
  [IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV, any(ViommuTegra241Cmdqv)],
  [IOMMU_VIOMMU_TYPE_SELFTEST, any(ViommuSelftest)],
]);
const UUID_BYTES = 16;

/** The mock's two have one number: what tells them apart is how long they are. */
function invalidation(dataType: number, entryLen: number): AnyStruct | null {
  if (dataType !== IOMMU_HWPT_INVALIDATE_DATA_SELFTEST) return INVALIDATIONS.get(dataType) ?? null;
  return any(entryLen < ViommuInvalidateSelftest.size ? HwptInvalidateSelftest : ViommuInvalidateSelftest);
}

/**
 * What a call reads through its struct.
 * @param bytes  the struct as the caller passed it, whatever its length
 */
export function dataOf(cmd: number, bytes: Uint8Array): PointedAt | null {
  switch (cmd) {
    case IOMMU_HWPT_ALLOC: {
      const { dataUptr, dataLen, dataType } = whole(HwptAlloc, bytes);
      return at(dataUptr, dataLen, HWPT_DATA.get(dataType) ?? null);
    }
    case IOMMU_HWPT_INVALIDATE: {
      const { dataUptr, entryLen, entryNum, dataType } = whole(HwptInvalidate, bytes);
      return at(dataUptr, entryLen * entryNum, invalidation(dataType, entryLen), entryLen);
    }
    case IOMMU_IOAS_ALLOW_IOVAS: {
      const { allowedIovas, numIovas } = whole(IoasAllowIovas, bytes);
      return at(allowedIovas, numIovas * IovaRange.size, any(IovaRange), IovaRange.size);
    }
    case cdev.VFIO_DEVICE_BIND_IOMMUFD: {
      const { flags, tokenUuidPtr } = whole(cdev.VfioDeviceBindIommufd, bytes);
      return (flags & cdev.VFIO_DEVICE_BIND_FLAG_TOKEN) === 0 ? null : at(tokenUuidPtr, UUID_BYTES, null);
    }
    default:
      return null;
  }
}

/**
 * What a call that succeeded has written through its struct.
 * @param before  the struct as the caller passed it
 * @param after   and as it is now
 */
export function outDataOf(cmd: number, before: Uint8Array, after: Uint8Array): PointedAt | null {
  switch (cmd) {
    case IOMMU_GET_HW_INFO: {
      const { dataUptr, dataLen: room } = whole(HwInfo, before);
      const { dataLen, dataType } = whole(HwInfo, after);
      return at(dataUptr, Math.min(room, dataLen), HW_INFO.get(dataType) ?? null);
    }
    case IOMMU_VIOMMU_ALLOC: {
      const { type, dataUptr, dataLen } = whole(ViommuAlloc, before);
      return at(dataUptr, dataLen, VIOMMU_DATA.get(type) ?? null);
    }
    case IOMMU_IOAS_IOVA_RANGES: {
      const { allowedIovas, numIovas: room } = whole(IoasIovaRanges, before);
      const { numIovas } = whole(IoasIovaRanges, after);
      const bytes = Math.min(room, numIovas) * IovaRange.size;
      return at(allowedIovas, bytes, any(IovaRange), IovaRange.size);
    }
    case IOMMU_HWPT_GET_DIRTY_BITMAP: {
      const { data, length, pageSize } = whole(HwptGetDirtyBitmap, before);
      return pageSize === 0n ? null : at(data, Number((length / pageSize + 63n) / 64n) * 8, null);
    }
    default:
      return null;
  }
}

function at(address: bigint, bytes: number, struct: AnyStruct | null, stride = 0): PointedAt | null {
  return bytes === 0 ? null : { address, bytes, struct, stride };
}

/** Decodes a struct of any length: what is missing is 0. */
function whole<F extends Fields>(struct: Struct<F>, bytes: Uint8Array) {
  if (bytes.byteLength >= struct.size) return struct.decode(bytes);
  const padded = new Uint8Array(struct.size);
  padded.set(bytes);
  return struct.decode(padded);
}
