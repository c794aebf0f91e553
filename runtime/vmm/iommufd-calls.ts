/**
 * The ioctls a VMM makes, typed, over any transport. Each returns the new ID, or 0, or -errno; nothing throws,
 * because a VMM decides by errno (an EINVAL from VDEVICE_ALLOC means: try another vIOMMU).
 */

import { EOPNOTSUPP } from '../../uapi/abi/errno.js';
import { HwInfoArmSmmuv3, HwptArmSmmuv3 } from '../../uapi/drivers/smmuv3.js';
import { ViommuTegra241Cmdqv } from '../../uapi/drivers/tegra241.js';
import { Destroy, IOMMU_DESTROY } from '../../uapi/iommufd/destroy.js';
import { HwInfo, IOMMU_GET_HW_INFO, IOMMU_HW_INFO_TYPE_ARM_SMMUV3 } from '../../uapi/iommufd/hw-info.js';
import {
  HwptAlloc,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_DATA_ARM_SMMUV3,
} from '../../uapi/iommufd/hwpt.js';
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  IoasAlloc,
  IoasMap,
  IoasUnmap,
} from '../../uapi/iommufd/ioas.js';
import { IOMMU_VDEVICE_ALLOC, VdeviceAlloc } from '../../uapi/iommufd/vdevice.js';
import {
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
  VeventqAlloc,
} from '../../uapi/iommufd/veventq.js';
import {
  IOMMU_VIOMMU_ALLOC,
  IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
  ViommuAlloc,
} from '../../uapi/iommufd/viommu.js';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VfioDeviceAttachIommufdPt,
  VfioDeviceBindIommufd,
  VfioDeviceDetachIommufdPt,
} from '../../uapi/vfio/cdev.js';
import type { Scratch } from './scratch.js';
import type { VmmTransport } from './transport.js';

/** What GET_HW_INFO says of the SMMU behind a device. */
export interface SmmuHwInfo {
  /** SMMU_IDR0 to IDR5, raw. */
  readonly idr: readonly number[];
  readonly iidr: number;
  readonly aidr: number;
  /** IOMMU_HW_CAP_*. */
  readonly capabilities: bigint;
}

/** A vIOMMU that has a VINTF. */
export interface CmdqvViommu {
  readonly id: number;
  /** What mmap() of the iommufd takes: the page of the VINTF's registers. */
  readonly vintf: { readonly offset: bigint; readonly length: bigint };
}

export class IommufdCalls {
  readonly #transport: VmmTransport;
  readonly #scratch: Scratch;

  constructor(transport: VmmTransport, scratch: Scratch) {
    this.#transport = transport;
    this.#scratch = scratch;
  }

  ioasAlloc(): number {
    const bytes = IoasAlloc.toBytes({ size: IoasAlloc.size });
    const status = this.#transport.ioctl(IOMMU_IOAS_ALLOC, bytes);
    return status < 0 ? status : IoasAlloc.getField(bytes, 'outIoasId');
  }

  /** Maps readable and writable at a fixed IOVA. @returns 0 | -errno */
  ioasMap(ioasId: number, userVa: bigint, lengthBytes: bigint, iova: bigint): number {
    const flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
    const bytes = IoasMap.toBytes({ size: IoasMap.size, flags, ioasId, userVa, length: lengthBytes, iova });
    return this.#transport.ioctl(IOMMU_IOAS_MAP, bytes);
  }

  ioasUnmap(ioasId: number, iova: bigint, lengthBytes: bigint): number {
    const bytes = IoasUnmap.toBytes({ size: IoasUnmap.size, ioasId, iova, length: lengthBytes });
    return this.#transport.ioctl(IOMMU_IOAS_UNMAP, bytes);
  }

  /** A stage 2 that vIOMMUs can stand on. @returns hwpt ID | -errno */
  nestParentAlloc(devId: number, ioasId: number): number {
    return this.#hwptAlloc({
      size: HwptAlloc.size,
      flags: IOMMU_HWPT_ALLOC_NEST_PARENT,
      devId,
      ptId: ioasId,
    });
  }

  /**
   * A nested table from a guest's STE.
   * @param ste  words 0 and 1 of it
   * @returns hwpt ID | -EIO the STE is not allowed | -errno
   */
  nestedAlloc(devId: number, viommuId: number, ste: readonly [bigint, bigint]): number {
    const { call } = this.#scratch;
    const { u8 } = this.#transport.memory;
    HwptArmSmmuv3.encode({ ste }, u8.subarray(call.linear, call.linear + HwptArmSmmuv3.size));
    return this.#hwptAlloc({
      size: HwptAlloc.size,
      devId,
      ptId: viommuId,
      dataType: IOMMU_HWPT_DATA_ARM_SMMUV3,
      dataLen: HwptArmSmmuv3.size,
      dataUptr: call.va,
    });
  }

  #hwptAlloc(fields: Parameters<typeof HwptAlloc.toBytes>[0]): number {
    const bytes = HwptAlloc.toBytes(fields);
    const status = this.#transport.ioctl(IOMMU_HWPT_ALLOC, bytes);
    return status < 0 ? status : HwptAlloc.getField(bytes, 'outHwptId');
  }

  /** @returns vIOMMU ID | -EINVAL the parent belongs to another SMMU | -errno */
  viommuAlloc(devId: number, hwptId: number): number {
    const bytes = ViommuAlloc.toBytes({
      size: ViommuAlloc.size,
      type: IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
      devId,
      hwptId,
    });
    const status = this.#transport.ioctl(IOMMU_VIOMMU_ALLOC, bytes);
    return status < 0 ? status : ViommuAlloc.getField(bytes, 'outViommuId');
  }

  /**
   * A vIOMMU with command queues of its own.
   * @returns its ID and what to mmap of it | -EOPNOTSUPP the hardware has none | as viommuAlloc | -ENOSPC
   */
  viommuAllocCmdqv(devId: number, hwptId: number): CmdqvViommu | number {
    const { call } = this.#scratch;
    const { u8 } = this.#transport.memory;
    const data = u8.subarray(call.linear, call.linear + ViommuTegra241Cmdqv.size);
    data.fill(0);
    const bytes = ViommuAlloc.toBytes({
      size: ViommuAlloc.size,
      type: IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
      devId,
      hwptId,
      dataLen: ViommuTegra241Cmdqv.size,
      dataUptr: call.va,
    });
    const status = this.#transport.ioctl(IOMMU_VIOMMU_ALLOC, bytes);
    if (status < 0) return status;
    const { outVintfMmapOffset, outVintfMmapLength } = ViommuTegra241Cmdqv.decode(data);
    const id = ViommuAlloc.getField(bytes, 'outViommuId');
    return { id, vintf: { offset: outVintfMmapOffset, length: outVintfMmapLength } };
  }

  /** @returns vDEVICE ID | -EINVAL the device is behind another IOMMU | -EEXIST | -errno */
  vdeviceAlloc(viommuId: number, devId: number, virtId: number): number {
    const bytes = VdeviceAlloc.toBytes({ size: VdeviceAlloc.size, viommuId, devId, virtId: BigInt(virtId) });
    const status = this.#transport.ioctl(IOMMU_VDEVICE_ALLOC, bytes);
    return status < 0 ? status : VdeviceAlloc.getField(bytes, 'outVdeviceId');
  }

  /** @returns the queue's object ID and file descriptor | -errno */
  veventqAlloc(viommuId: number, depth: number): { id: number; fd: number } | number {
    const bytes = VeventqAlloc.toBytes({
      size: VeventqAlloc.size,
      viommuId,
      type: IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
      veventqDepth: depth,
    });
    const status = this.#transport.ioctl(IOMMU_VEVENTQ_ALLOC, bytes);
    if (status < 0) return status;
    return {
      id: VeventqAlloc.getField(bytes, 'outVeventqId'),
      fd: VeventqAlloc.getField(bytes, 'outVeventqFd'),
    };
  }

  destroy(id: number): number {
    return this.#transport.ioctl(IOMMU_DESTROY, Destroy.toBytes({ size: Destroy.size, id }));
  }

  /** @returns what the SMMU can do | -EOPNOTSUPP another kind of IOMMU | -errno */
  hwInfo(devId: number): SmmuHwInfo | number {
    const { call } = this.#scratch;
    const bytes = HwInfo.toBytes({
      size: HwInfo.size,
      devId,
      dataLen: HwInfoArmSmmuv3.size,
      dataUptr: call.va,
    });
    const status = this.#transport.ioctl(IOMMU_GET_HW_INFO, bytes);
    if (status < 0) return status;
    if (HwInfo.getField(bytes, 'dataType') !== IOMMU_HW_INFO_TYPE_ARM_SMMUV3) return -EOPNOTSUPP;
    const { u8 } = this.#transport.memory;
    const { idr, iidr, aidr } = HwInfoArmSmmuv3.decode(u8.subarray(call.linear, call.linear + call.bytes));
    return { idr, iidr, aidr, capabilities: HwInfo.getField(bytes, 'outCapabilities') };
  }

  /** @returns device ID | -errno */
  bind(deviceIndex: number): number {
    const bytes = VfioDeviceBindIommufd.toBytes({
      argsz: VfioDeviceBindIommufd.size,
      iommufd: this.#transport.iommufd,
    });
    const status = this.#transport.vfio(deviceIndex, VFIO_DEVICE_BIND_IOMMUFD, bytes);
    return status < 0 ? status : VfioDeviceBindIommufd.getField(bytes, 'outDevid');
  }

  /** Attach, or replace without a gap. @returns 0 | -errno */
  attach(deviceIndex: number, ptId: number): number {
    const bytes = VfioDeviceAttachIommufdPt.toBytes({ argsz: VfioDeviceAttachIommufdPt.size, ptId });
    return this.#transport.vfio(deviceIndex, VFIO_DEVICE_ATTACH_IOMMUFD_PT, bytes);
  }

  detach(deviceIndex: number): number {
    const bytes = VfioDeviceDetachIommufdPt.toBytes({ argsz: VfioDeviceDetachIommufdPt.size });
    return this.#transport.vfio(deviceIndex, VFIO_DEVICE_DETACH_IOMMUFD_PT, bytes);
  }
}
