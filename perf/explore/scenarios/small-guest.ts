/**
 * A guest as small as it can be: a few pages of RAM behind a nest parent, a stage-1 table for one page written by
 * hand, its Context Descriptor, and a vIOMMU. [IHI0070] 5.4, [DDI0487] D8.3.
 */

import { stage1Cd } from '../../../runtime/drivers/smmuv3/cd.js';
import type { Machine } from '../../../runtime/machine.js';
import { IOMMU_HWPT_DATA_ARM_SMMUV3 } from '../../../uapi/iommufd/hwpt.js';
import { IOMMU_VIOMMU_TYPE_ARM_SMMUV3 } from '../../../uapi/iommufd/viommu.js';
import { PAGE_BYTES, type SmallHost } from './small-host.js';

const NEST_PARENT = 1;
/** The guest's name for its device. */
export const VSID = 5;
export const ASID = 7;
const OAS_48 = 5;

/** Pages of guest RAM, which begins at GPA 0. */
const TABLES = [1, 2, 3, 4] as const;
const CD_PAGE = 5;
export const DATA_PAGE = 6;
const PAGES = 8;
const TABLE = 0b11n;
/** A page: valid, access flag, inner shareable, unprivileged and writable. */
export const LEAF = 0x743n;
/** V, and Config = stage 1 translates. */
export const S1_VSTE = 0b1011n;

/** Word 1: EATS = 1. */
const EATS_FULL = 1n << 28n;

export interface SmallGuest {
  readonly viommuId: number;
  /** The nest parent. */
  readonly parent: number;
  /** Linear offset of a byte of guest RAM. */
  linear(gpa: number): number;
  /** Linear offset of the leaf that maps IOVA 0 to DATA_PAGE. */
  readonly leaf: number;
  /** PA of DATA_PAGE. */
  readonly data: number;
  /** GPA of the CD of that table. */
  readonly cd: number;
  /** A nested HWPT whose CD is at `cd`; with ATS the vSTE lets the device keep translations (EATS = 1). */
  nested(cd: number, ats?: boolean): number;
}

/** @param device  whose vIOMMU it is */
export function smallGuest({ machine, fd, ioasId, devIds }: SmallHost, device = 0): SmallGuest {
  const userVa = machine.user.alloc(PAGES * PAGE_BYTES, { contiguous: true });
  const parent = fd.hwptAlloc({ devId: devIds[device]!, ptId: ioasId, flags: NEST_PARENT }).hwptId;
  fd.ioasMap({ ioasId, userVa, length: PAGES * PAGE_BYTES, iova: 0n });
  const { viommuId } = fd.viommuAlloc({
    devId: devIds[device]!,
    hwptId: parent,
    type: IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  });
  fd.vdeviceAlloc({ viommuId, devId: devIds[device]!, virtId: VSID });
  const ram = machine.user.linearOf(userVa, PAGES * PAGE_BYTES);
  const linear = (gpa: number): number => ram + gpa;
  const { words } = machine.memory;
  TABLES.forEach((page, level) => {
    const next = TABLES[level + 1];
    const entry = next === undefined ? gpaOf(DATA_PAGE) | LEAF : gpaOf(next) | TABLE;
    words.store64(linear(page * PAGE_BYTES), entry);
  });
  const cd = CD_PAGE * PAGE_BYTES;
  writeCd(machine, linear(cd), TABLES[0] * PAGE_BYTES);
  return {
    viommuId,
    parent,
    linear,
    leaf: linear(TABLES[3] * PAGE_BYTES),
    data: ram - machine.memory.ram.linear + machine.memory.ram.basePa + DATA_PAGE * PAGE_BYTES,
    cd,
    nested(at, ats = false) {
      const data = new Uint8Array(16);
      new DataView(data.buffer).setBigUint64(0, S1_VSTE | BigInt(at), true);
      if (ats) new DataView(data.buffer).setBigUint64(8, EATS_FULL, true);
      return fd.hwptAlloc({
        devId: devIds[device]!,
        ptId: viommuId,
        dataType: IOMMU_HWPT_DATA_ARM_SMMUV3,
        data,
      }).hwptId;
    },
  };
}

const gpaOf = (page: number): bigint => BigInt(page * PAGE_BYTES);

/** A CD for the table whose root is at that GPA, as the guest's driver writes it: word by word, the valid bit last. */
export function writeCd({ memory }: Machine, linear: number, root: number): void {
  const cd = stage1Cd({ asid: ASID, root, inputBits: 48, ips: OAS_48 });
  for (let word = cd.length - 1; word >= 0; word--) memory.words.store64(linear + word * 8, cd[word]!);
}
