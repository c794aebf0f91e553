/** The container calls of VFIO on an iommufd, as a program makes them. */
import type { StructInput } from '../../uapi/abi/struct.js';
import {
  VFIO_CHECK_EXTENSION,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VfioIommuType1DmaMap,
  VfioIommuType1DmaUnmap,
  VfioIommuType1Info,
} from '../../uapi/vfio/container.js';
import type { Program } from './program.js';

export const TYPE1 = 1;
export const TYPE1v2 = 3;
export const APERTURE_START = 0x100_0000n;

const numberArgument = (value: number) => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer);

export const getApiVersion = (p: Program): number => p.fd.ioctl(VFIO_GET_API_VERSION, new Uint8Array(0));
/** Takes a number, not an address. */
export const checkExtension = (p: Program, extension: number): number =>
  p.fd.ioctl(VFIO_CHECK_EXTENSION, numberArgument(extension));
/** @returns errno */
export const setIommu = (p: Program, type: number): number =>
  -p.fd.ioctl(VFIO_SET_IOMMU, numberArgument(type)) || 0;

export const mapDma = (p: Program, fields: Partial<StructInput<(typeof VfioIommuType1DmaMap)['fields']>>) =>
  p.call(VFIO_IOMMU_MAP_DMA, VfioIommuType1DmaMap, { argsz: VfioIommuType1DmaMap.size, ...fields });

export const unmapDma = (
  p: Program,
  fields: Partial<StructInput<(typeof VfioIommuType1DmaUnmap)['fields']>>,
) => p.call(VFIO_IOMMU_UNMAP_DMA, VfioIommuType1DmaUnmap, { argsz: VfioIommuType1DmaUnmap.size, ...fields });

/** GET_INFO with room for `argsz` bytes in memory full of 0xaa. @returns also all the memory */
export function getInfo(p: Program, argsz: number) {
  const bytes = new Uint8Array(4096).fill(0xaa);
  bytes.fill(0, 0, Math.max(argsz, 4));
  VfioIommuType1Info.put(bytes, 'argsz', argsz);
  const ret = p.fd.ioctl(VFIO_IOMMU_GET_INFO, bytes);
  return { errno: -ret || 0, out: VfioIommuType1Info.decode(bytes), bytes };
}
