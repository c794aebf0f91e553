/** A small machine with a vIOMMU for a guest: what the scenarios about objects set up, unexplored. */
import { CMD_CFGI_CD, CMD_TLBI_NH_ASID } from '../../../hw/smmuv3/command.js';
import type { IommufdFd } from '../../../runtime/core/fd.js';
import type { Machine } from '../../../runtime/machine.js';
import type { MachineConfig } from '../../../runtime/machine-schema.js';
import type { VfioDevice } from '../../../runtime/objects/vfio-device.js';
import { IOMMU_HWPT_ALLOC_NEST_PARENT } from '../../../uapi/iommufd/hwpt.js';
import {
  HwptInvalidate,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
} from '../../../uapi/iommufd/hwpt-invalidate.js';
import { IOMMU_VIOMMU_TYPE_ARM_SMMUV3 } from '../../../uapi/iommufd/viommu.js';

export const LABELS = ['0000:01:00.0', '0000:02:00.0'] as const;

export const SMALL: MachineConfig = {
  iommus: [{ name: 'smmu0', model: 'smmuv3', cmdqLog2: 7, evtqLog2: 5, priqLog2: 4 }],
  devices: LABELS.map((bdf) => ({ bdf, iommu: 'smmu0' })),
};

export interface Guest {
  readonly fd: IommufdFd;
  readonly vfios: readonly VfioDevice[];
  readonly devIds: readonly number[];
  readonly ioasId: number;
  readonly parentId: number;
  readonly viommuId: number;
  /** What the driver said of the vIOMMU, where its type has something to say. */
  readonly out: Uint8Array;
}

interface GuestOptions {
  /** How many are bound to it, from the first on. Default 1. */
  readonly devices?: number;
  /** IOMMU_VIOMMU_TYPE_*, and room for what its driver says. Default: an SMMUv3. */
  readonly type?: number;
  readonly data?: Uint8Array;
}

export function makeGuest(machine: Machine, options: GuestOptions = {}): Guest {
  const { devices = 1, type = IOMMU_VIOMMU_TYPE_ARM_SMMUV3, data = new Uint8Array(0) } = options;
  const fd = machine.openIommufd();
  const vfios = LABELS.slice(0, devices).map((label) => machine.openVfio(label));
  const devIds = vfios.map((vfio) => vfio.bindIommufd(fd).devId);
  const devId = devIds[0]!;
  const { ioasId } = fd.ioasAlloc();
  const parentId = fd.hwptAlloc({ devId, ptId: ioasId, flags: IOMMU_HWPT_ALLOC_NEST_PARENT }).hwptId;
  const { viommuId, data: out } = fd.viommuAlloc({ devId, hwptId: parentId, type, data });
  return { fd, vfios, devIds, ioasId, parentId, viommuId, out };
}

/** A command of the guest's: CFGI_CD with a SubstreamID to know it by, as the host has none of its own. */
export function cfgiCd(vsid: number, mark: number): readonly number[] {
  return [(CMD_CFGI_CD | (mark << 12)) >>> 0, vsid, 1, 0];
}

/** TLBI_NH_ASID with a mark for its ASID, of which the host has none in the guest's VMID. */
export const tlbiAsid = (mark: number): readonly number[] => [CMD_TLBI_NH_ASID, (mark << 16) >>> 0, 0, 0];

/** @returns the mark of such a command, 0 for any other */
export function markOf(words: Uint32Array): number {
  const opcode = words[0]! & 0xff;
  if (opcode === CMD_CFGI_CD) return words[0]! >>> 12;
  return opcode === CMD_TLBI_NH_ASID ? words[1]! >>> 16 : 0;
}

/** struct iommu_hwpt_invalidate; the commands lie in user memory from here on. */
export function invalidation(
  machine: Machine,
  viommuId: number,
  commands: readonly (readonly number[])[],
): Uint8Array {
  const dataUptr = machine.user.alloc('4KiB');
  const entries = new Uint8Array(Uint32Array.from(commands.flat()).buffer);
  machine.user.copyOut(dataUptr, entries);
  return HwptInvalidate.toBytes({
    size: HwptInvalidate.size,
    hwptId: viommuId,
    dataUptr,
    dataType: IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
    entryLen: 16,
    entryNum: commands.length,
  });
}
