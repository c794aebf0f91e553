/**
 * What an iommufd answers of VFIO's container API: the type1 calls, on its compatibility IOAS, and the ioctl that says
 * which IOAS that is. `/dev/vfio/vfio` is an iommufd on which programs call nothing else.
 *
 *     TYPE1v2   unmaps whole mappings; pages of any size
 *     TYPE1     unmaps any part of one: 4 KiB IO pages, and areas are cut at both ends before they are unmapped
 *
 * The argument of three calls is a number and no pointer: here its 8 bytes, little-endian.
 *
 * Not modelled: devices without an IOMMU (VFIO_NOIOMMU_IOMMU), as a kernel without CONFIG_VFIO_NOIOMMU.
 *
 * @source drivers/iommu/iommufd/vfio_compat.c
 */
import { EFAULT, EINVAL, ENODEV, ENOENT, ENOTTY, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import { u32At } from '../../uapi/abi/struct.js';
import {
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
  type VfioIoas,
} from '../../uapi/iommufd/vfio-ioas.js';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_CC_IOMMU,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  VfioInfoCapHeader,
  VfioIommuType1DmaMap,
  VfioIommuType1DmaUnmap,
  VfioIommuType1Info,
  VfioIommuType1InfoCapIovaRange,
  VfioIommuType1InfoDmaAvail,
  VfioIovaRange,
} from '../../uapi/vfio/container.js';
import type { IommufdCtx } from '../core/ctx.js';
import { OBJ_IOAS } from '../core/objects-layout.js';
import type { UcmdOf } from '../core/ucmd.js';
import { IOMMU_READ, IOMMU_WRITE } from '../drivers/contract.js';
import { PAGE_SIZE, U64_MAX } from '../iova/area.js';
import { Ioas } from './ioas.js';

/** @returns the compatibility IOAS, to be given back with ctx.put(), or undefined (ENODEV) */
function compatIoas(ctx: IommufdCtx): Ioas | undefined {
  const ioas = ctx.vfioIoas;
  return ioas !== null && ctx.objects.get(ioas.id, OBJ_IOAS) === 0 ? (ioas as Ioas) : undefined;
}

/** @returns its ID | -ENODEV there is none. @source iommufd_vfio_compat_ioas_get_id */
export function compatIoasId(ctx: IommufdCtx): number {
  const ioas = compatIoas(ctx);
  if (ioas === undefined) return -ENODEV;
  ctx.put(ioas);
  return ioas.id;
}

/**
 * Makes a compatibility IOAS, unless there is one: what putting the first group of devices into a container does. It
 * is like any other IOAS, and goes with the iommufd at the latest.
 * @returns 0 | -ENOMEM
 * @source iommufd_vfio_compat_ioas_create
 */
export function createCompatIoas(ctx: IommufdCtx): number {
  const id = ctx.reserve(OBJ_IOAS);
  if (id < 0) return id;
  const ioas = new Ioas(ctx, id);
  const existing = compatIoas(ctx);
  if (existing !== undefined) {
    ctx.put(existing);
    ctx.abort(ioas);
    return 0;
  }
  ctx.vfioIoas = ioas;
  ctx.publish(ioas);
  return 0;
}

/** IOMMU_VFIO_IOAS. @source iommufd_vfio_ioas */
export function vfioIoas(ucmd: UcmdOf<typeof VfioIoas>): number {
  const { ctx, cmd } = ucmd;
  if (cmd.reserved !== 0) return -EOPNOTSUPP;
  switch (cmd.op) {
    case IOMMU_VFIO_IOAS_GET: {
      const id = compatIoasId(ctx);
      if (id < 0) return id;
      cmd.ioasId = id;
      return ucmd.respond();
    }
    case IOMMU_VFIO_IOAS_SET: {
      const ioas = ctx.get<Ioas>(cmd.ioasId, OBJ_IOAS);
      if (ioas === undefined) return -ENOENT;
      ctx.vfioIoas = ioas;
      ctx.put(ioas);
      return 0;
    }
    case IOMMU_VFIO_IOAS_CLEAR:
      ctx.vfioIoas = null;
      return 0;
    default:
      return -EOPNOTSUPP;
  }
}

/**
 * A request outside iommufd's own numbers.
 * @param bytes  what the argument points at, outputs are written in place; of calls that take a number, the number
 * @returns >= 0 | -ENOTTY
 * @source iommufd_vfio_ioctl
 */
export function vfioIoctl(ctx: IommufdCtx, cmd: number, bytes: Uint8Array): number {
  switch (cmd) {
    case VFIO_GET_API_VERSION:
      return VFIO_API_VERSION;
    case VFIO_SET_IOMMU:
      return setIommu(ctx, numberIn(bytes));
    case VFIO_CHECK_EXTENSION:
      return checkExtension(ctx, numberIn(bytes));
    case VFIO_IOMMU_GET_INFO:
      return getInfo(ctx, bytes);
    case VFIO_IOMMU_MAP_DMA:
      return mapDma(ctx, bytes);
    case VFIO_IOMMU_UNMAP_DMA:
      return unmapDma(ctx, bytes);
    default:
      return -ENOTTY;
  }
}

/** An argument that is a number, with what is missing 0; beyond 2^53 it is inexact, and none that is known. */
function numberIn(bytes: Uint8Array): number {
  const whole = new Uint8Array(8);
  whole.set(bytes.subarray(0, 8));
  return u32At(whole, 4) * 2 ** 32 + u32At(whole, 0);
}

/** @source iommufd_vfio_set_iommu */
function setIommu(ctx: IommufdCtx, type: number): number {
  if (type !== VFIO_TYPE1_IOMMU && type !== VFIO_TYPE1v2_IOMMU) return -EINVAL;
  const ioas = compatIoas(ctx);
  if (ioas === undefined) return -ENODEV;
  const status = type === VFIO_TYPE1_IOMMU ? ioas.iopt.disableLargePages() : 0;
  ctx.put(ioas);
  return status;
}

/** @source iommufd_vfio_check_extension */
function checkExtension(ctx: IommufdCtx, extension: number): number {
  switch (extension) {
    case VFIO_TYPE1_IOMMU:
    case VFIO_TYPE1v2_IOMMU:
    case VFIO_UNMAP_ALL:
      return 1;
    case VFIO_DMA_CC_IOMMU: {
      const ioas = compatIoas(ctx);
      if (ioas === undefined) return -ENODEV;
      ctx.put(ioas);
      return [...ioas.hwpts].every((hwpt) => hwpt.enforceCacheCoherency) ? 1 : 0;
    }
    default:
      return 0;
  }
}

/** @source iommufd_vfio_map_dma */
function mapDma(ctx: IommufdCtx, bytes: Uint8Array): number {
  if (bytes.byteLength < VfioIommuType1DmaMap.minSize) return -EFAULT;
  const { argsz, flags, vaddr, iova, size } = VfioIommuType1DmaMap.decode(bytes);
  if (argsz < VfioIommuType1DmaMap.minSize) return -EINVAL;
  if ((flags & ~(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)) !== 0) return -EINVAL;
  const ioas = compatIoas(ctx);
  if (ioas === undefined) return -ENODEV;
  const prot =
    ((flags & VFIO_DMA_MAP_FLAG_READ) !== 0 ? IOMMU_READ : 0) |
    ((flags & VFIO_DMA_MAP_FLAG_WRITE) !== 0 ? IOMMU_WRITE : 0);
  const where = ioas.iopt.mapUserPages(vaddr, size, iova, prot);
  ctx.put(ioas);
  return where < 0n ? Number(where) : 0;
}

/** @source iommufd_vfio_unmap_dma */
function unmapDma(ctx: IommufdCtx, bytes: Uint8Array): number {
  if (bytes.byteLength < VfioIommuType1DmaUnmap.minSize) return -EFAULT;
  const { argsz, flags, iova, size } = VfioIommuType1DmaUnmap.decode(bytes);
  if (argsz < VfioIommuType1DmaUnmap.minSize || (flags & ~VFIO_DMA_UNMAP_FLAG_ALL) !== 0) return -EINVAL;
  const ioas = compatIoas(ctx);
  if (ioas === undefined) return -ENODEV;
  const result =
    (flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0 ? unmapAll(ioas, iova, size) : unmapRange(ioas, iova, size);
  ctx.put(ioas);
  if (typeof result === 'number') return result;
  // Written on failure too: some may have gone.
  VfioIommuType1DmaUnmap.put(bytes, 'size', result.bytes);
  return result.status;
}

type Unmapped = { readonly status: number; readonly bytes: bigint };

/** @returns -errno alone when nothing is to be told of what was unmapped */
function unmapAll({ iopt }: Ioas, iova: bigint, size: bigint): Unmapped | number {
  return iova !== 0n || size !== 0n ? -EINVAL : iopt.unmapAll();
}

function unmapRange({ iopt }: Ioas, iova: bigint, size: bigint): Unmapped | number {
  if (!iopt.largePages) {
    // The last bytes of what stays before and of what goes; the arithmetic is that of 64 bits.
    const last = BigInt.asUintN(64, iova + size - 1n);
    const status = iopt.cutIova(iova === 0n ? [last] : [last, iova - 1n]);
    if (status < 0) return status;
  }
  return iopt.unmap(iova, size);
}

/** @returns a bitmap of the sizes that every domain has. @source iommufd_get_pagesizes */
function pageSizes({ iopt }: Ioas): bigint {
  const subPage = BigInt(PAGE_SIZE - 1);
  let sizes = U64_MAX;
  for (const { pageSizesLg2 } of iopt.domains)
    sizes &= pageSizesLg2.reduce((bits, lg2) => bits | (1n << BigInt(lg2)), 0n);
  // Smaller ones are hidden, as VFIO always did.
  if ((sizes & subPage) !== 0n) sizes = (sizes & ~subPage) | BigInt(PAGE_SIZE);
  const alignment = BigInt(iopt.space.alignment);
  return sizes > alignment ? sizes : alignment;
}

/** A capability: what follows its header, in pieces that are written each if it fits. */
interface Capability {
  readonly bytes: number;
  /** @param room  bytes there are from the header on */
  write(put: (at: number, piece: Uint8Array) => boolean, room: number): boolean;
}

function dmaAvail(): Capability {
  const bytes = VfioIommuType1InfoDmaAvail.size;
  // Linux's limit is that of the memory cgroup; the largest number keeps everybody who counts happy.
  const cap = VfioIommuType1InfoDmaAvail.toBytes({
    id: VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
    version: 1,
    avail: 0xffff_ffff,
  });
  return { bytes, write: (put, room) => room < bytes || put(0, cap) };
}

/** @source iommufd_fill_cap_iova */
function iovaRanges({ iopt }: Ioas): Capability {
  const head = VfioIommuType1InfoCapIovaRange.size;
  const ranges = [...iopt.space.usableRanges()];
  const bytes = head + ranges.length * VfioIovaRange.size;
  const cap = VfioIommuType1InfoCapIovaRange.toBytes({
    id: VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    version: 1,
    nrIovas: ranges.length,
  });
  return {
    bytes,
    write(put, room) {
      for (const [i, { start, last }] of ranges.entries()) {
        const at = head + i * VfioIovaRange.size;
        if (room < at + VfioIovaRange.size) break;
        if (!put(at, VfioIovaRange.toBytes({ start, end: last }))) return false;
      }
      return room < bytes || put(0, cap);
    },
  };
}

/**
 * The struct, and behind it the chain of capabilities as far as `argsz` reaches; each is linked from the one before.
 * @source iommufd_vfio_iommu_get_info
 */
function getInfo(ctx: IommufdCtx, bytes: Uint8Array): number {
  if (bytes.byteLength < VfioIommuType1Info.minSize) return -EFAULT;
  const argsz = u32At(bytes, VfioIommuType1Info.offsets.argsz);
  if (argsz < VfioIommuType1Info.minSize) return -EINVAL;
  const ioas = compatIoas(ctx);
  if (ioas === undefined) return -ENODEV;
  const status = fillInfo(ioas, bytes, argsz);
  ctx.put(ioas);
  return status;
}

function fillInfo(ioas: Ioas, bytes: Uint8Array, argsz: number): number {
  const put = (at: number, piece: Uint8Array): boolean => {
    if (at + piece.byteLength > bytes.byteLength) return false;
    bytes.set(piece, at);
    return true;
  };
  let total: number = VfioIommuType1Info.size;
  let previous = 0;
  for (const capability of [dmaAvail(), iovaRanges(ioas)]) {
    const at = total;
    const room = Math.max(0, argsz - at);
    if (!capability.write((offset, piece) => put(at + offset, piece), room)) return -EFAULT;
    if (previous > 0 && argsz >= at) {
      const next = previous + VfioInfoCapHeader.offsets.next;
      if (next + 4 > bytes.byteLength) return -EFAULT;
      VfioInfoCapHeader.put(bytes, 'next', at, previous);
    }
    previous = at;
    total += Math.ceil(capability.bytes / 8) * 8;
  }
  const info = VfioIommuType1Info.toBytes({
    argsz: total,
    flags: VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
    iovaPgsizes: pageSizes(ioas),
    capOffset: argsz >= total ? VfioIommuType1Info.size : 0,
  });
  return put(0, info.subarray(0, Math.min(argsz, info.byteLength))) ? 0 : -EFAULT;
}
