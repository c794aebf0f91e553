/**
 * An open `/dev/vfio/vfio`, as a program sees it: raw ioctls, typed calls that sit on them, and the way in which
 * devices come into a container. The file is an iommufd (`vfio-compat.ts`), charged for pinned pages as VFIO charges.
 *
 * Not modelled: group files (`/dev/vfio/N`). openDevice() does for a device what VFIO_GROUP_SET_CONTAINER and
 * VFIO_GROUP_GET_DEVICE_FD do together.
 *
 * @source drivers/vfio/group.c vfio_group_ioctl_set_container, vfio_df_group_open
 */
import { IommufdError } from '../../uapi/abi/iommufd-error.js';
import { u32At } from '../../uapi/abi/struct.js';
import {
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VfioInfoCapHeader,
  VfioIommuType1DmaMap,
  VfioIommuType1DmaUnmap,
  VfioIommuType1Info,
  VfioIommuType1InfoCapIovaRange,
  VfioIommuType1InfoDmaAvail,
  VfioIovaRange,
} from '../../uapi/vfio/container.js';
import { type ByteSize, byteSize } from '../core/byte-size.js';
import { checkKeys } from '../core/call-check.js';
import type { IommufdFd } from '../core/fd.js';
import type { HostDevice } from '../drivers/contract.js';
import { compatIoasId, createCompatIoas } from './vfio-compat.js';
import type { VfioDevice } from './vfio-device.js';

export interface DmaMapOptions {
  readonly vaddr: bigint;
  readonly iova: bigint;
  readonly size: ByteSize;
  /** Default true. */
  readonly readable?: boolean;
  /** Default true. */
  readonly writeable?: boolean;
}

export interface ContainerInfo {
  /** Bitmap of page sizes. */
  readonly pageSizes: bigint;
  /** What can be mapped; `last` inclusive. */
  readonly ranges: readonly { start: bigint; last: bigint }[];
  /** Mappings that there may be more of. */
  readonly dmaAvail: number;
}

export class VfioContainer {
  /** The same file, for what VFIO has no call for. */
  readonly iommufd: IommufdFd;

  /** Made by `Machine.openVfioContainer`. */
  constructor(iommufd: IommufdFd) {
    this.iommufd = iommufd;
  }

  /**
   * ioctl(2).
   * @param argument  the caller's struct, outputs are written in place; or a number
   * @returns >= 0 | -errno
   */
  ioctl(cmd: number, argument: Uint8Array | number): number {
    if (typeof argument !== 'number') return this.iommufd.ioctl(cmd, argument);
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(argument), true);
    return this.iommufd.ioctl(cmd, bytes);
  }

  apiVersion(): number {
    return this.#call('VFIO_GET_API_VERSION', VFIO_GET_API_VERSION, 0);
  }

  /** @param extension  VFIO_TYPE1_IOMMU and so on. @returns 0 no | 1 yes @throws IommufdError */
  checkExtension(extension: number): number {
    return this.#call('VFIO_CHECK_EXTENSION', VFIO_CHECK_EXTENSION, extension);
  }

  /** @param type  VFIO_TYPE1_IOMMU | VFIO_TYPE1v2_IOMMU. @throws IommufdError ENODEV no device is in it yet */
  setIommu(type: number): void {
    this.#call('VFIO_SET_IOMMU', VFIO_SET_IOMMU, type);
  }

  /** @throws IommufdError | TypeError */
  mapDma(options: DmaMapOptions): void {
    checkKeys('mapDma', options, ['vaddr', 'iova', 'size', 'readable', 'writeable']);
    const { vaddr, iova, readable = true, writeable = true } = options;
    const bytes = VfioIommuType1DmaMap.toBytes({
      argsz: VfioIommuType1DmaMap.size,
      flags: (readable ? VFIO_DMA_MAP_FLAG_READ : 0) | (writeable ? VFIO_DMA_MAP_FLAG_WRITE : 0),
      vaddr,
      iova,
      size: byteSize(options.size, 'size'),
    });
    this.#call('VFIO_IOMMU_MAP_DMA', VFIO_IOMMU_MAP_DMA, bytes);
  }

  /** @param options  nothing: everything. @returns bytes unmapped @throws IommufdError | TypeError */
  unmapDma(options?: { readonly iova: bigint; readonly size: ByteSize }): { size: bigint } {
    if (options !== undefined) checkKeys('unmapDma', options, ['iova', 'size']);
    const bytes = VfioIommuType1DmaUnmap.toBytes({
      argsz: VfioIommuType1DmaUnmap.size,
      ...(options === undefined
        ? { flags: VFIO_DMA_UNMAP_FLAG_ALL }
        : { iova: options.iova, size: byteSize(options.size, 'size') }),
    });
    this.#call('VFIO_IOMMU_UNMAP_DMA', VFIO_IOMMU_UNMAP_DMA, bytes);
    return { size: VfioIommuType1DmaUnmap.getField(bytes, 'size') };
  }

  /** @throws IommufdError ENODEV no device is in it yet */
  info(): ContainerInfo {
    let bytes = VfioIommuType1Info.toBytes({ argsz: VfioIommuType1Info.size });
    this.#call('VFIO_IOMMU_GET_INFO', VFIO_IOMMU_GET_INFO, bytes);
    const argsz = u32At(bytes, 0);
    bytes = new Uint8Array(argsz);
    VfioIommuType1Info.put(bytes, 'argsz', argsz);
    this.#call('VFIO_IOMMU_GET_INFO', VFIO_IOMMU_GET_INFO, bytes);
    const { iovaPgsizes, capOffset } = VfioIommuType1Info.decode(bytes);
    let dmaAvail = 0;
    const ranges: { start: bigint; last: bigint }[] = [];
    for (let at = capOffset; at !== 0; at = VfioInfoCapHeader.decode(bytes, at).next) {
      const { id } = VfioInfoCapHeader.decode(bytes, at);
      if (id === VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
        dmaAvail = VfioIommuType1InfoDmaAvail.decode(bytes, at).avail;
      if (id === VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) ranges.push(...rangesAt(bytes, at));
    }
    return { pageSizes: iovaPgsizes, ranges, dmaAvail };
  }

  /** The IOAS behind it; null while there is none. */
  get ioasId(): number | null {
    const id = compatIoasId(this.iommufd.ctx);
    return id < 0 ? null : id;
  }

  /**
   * Puts a device into the container, which makes its IOAS with the first, and opens it.
   * @throws IommufdError as bind and attach
   */
  openDevice(device: HostDevice): VfioDevice {
    const { ctx } = this.iommufd;
    const status = createCompatIoas(ctx);
    if (status < 0) throw new IommufdError(-status, 'VFIO_GROUP_SET_CONTAINER', { detail: device.name });
    const vfio = ctx.core.openVfio(device);
    try {
      vfio.bindIommufd(this.iommufd);
      vfio.attach(compatIoasId(ctx));
    } catch (error) {
      vfio.close();
      throw error;
    }
    return vfio;
  }

  close(): void {
    this.iommufd.close();
  }

  #call(name: string, cmd: number, argument: Uint8Array | number): number {
    const status = this.ioctl(cmd, argument);
    if (status < 0) throw new IommufdError(-status, name);
    return status;
  }
}

function rangesAt(bytes: Uint8Array, at: number): { start: bigint; last: bigint }[] {
  const { nrIovas } = VfioIommuType1InfoCapIovaRange.decode(bytes, at);
  return Array.from({ length: nrIovas }, (_, i) => {
    const place = at + VfioIommuType1InfoCapIovaRange.size + i * VfioIovaRange.size;
    const { start, end } = VfioIovaRange.decode(bytes, place);
    return { start, last: end };
  });
}
