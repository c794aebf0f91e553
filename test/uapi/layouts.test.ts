/**
 * Every struct against the numbers that a C compiler gives for Linux 7.0's headers (include/uapi/linux/iommufd.h
 * and vfio.h, x86-64). The numbers are restated, none is computed from a declaration.
 */

import test from 'ava';
import * as uapi from '../../uapi/index.js';

interface Declared {
  readonly cName: string;
  readonly size: number;
  readonly minSize: number;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly offsets: Readonly<Record<string, number>>;
}

function isStruct(value: unknown): value is Declared {
  return typeof value === 'object' && value !== null && 'cName' in value && 'offsets' in value;
}

const declared = new Map(
  Object.values(uapi as Record<string, unknown>)
    .filter(isStruct)
    .map((s) => [s.cName, s]),
);

/** C tag, sizeof, offsetof each member in order. */
const LAYOUTS: readonly (readonly [string, number, Readonly<Record<string, number>>])[] = [
  ['iommu_destroy', 8, { size: 0, id: 4 }],
  ['iommu_ioas_alloc', 12, { size: 0, flags: 4, outIoasId: 8 }],
  ['iommu_iova_range', 16, { start: 0, last: 8 }],
  [
    'iommu_ioas_iova_ranges',
    32,
    { size: 0, ioasId: 4, numIovas: 8, reserved: 12, allowedIovas: 16, outIovaAlignment: 24 },
  ],
  ['iommu_ioas_allow_iovas', 24, { size: 0, ioasId: 4, numIovas: 8, reserved: 12, allowedIovas: 16 }],
  ['iommu_ioas_map', 40, { size: 0, flags: 4, ioasId: 8, reserved: 12, userVa: 16, length: 24, iova: 32 }],
  ['iommu_ioas_map_file', 40, { size: 0, flags: 4, ioasId: 8, fd: 12, start: 16, length: 24, iova: 32 }],
  [
    'iommu_ioas_copy',
    40,
    { size: 0, flags: 4, dstIoasId: 8, srcIoasId: 12, length: 16, dstIova: 24, srcIova: 32 },
  ],
  ['iommu_ioas_unmap', 24, { size: 0, ioasId: 4, iova: 8, length: 16 }],
  ['iommu_option', 24, { size: 0, optionId: 4, op: 8, reserved: 10, objectId: 12, val64: 16 }],
  ['iommu_vfio_ioas', 12, { size: 0, ioasId: 4, op: 8, reserved: 10 }],
  ['iommu_hwpt_vtd_s1', 24, { flags: 0, pgtblAddr: 8, addrWidth: 16, reserved: 20 }],
  ['iommu_hwpt_arm_smmuv3', 16, { ste: 0 }],
  ['iommu_hwpt_amd_guest', 32, { dte: 0 }],
  [
    'iommu_hwpt_alloc',
    48,
    {
      size: 0,
      flags: 4,
      devId: 8,
      ptId: 12,
      outHwptId: 16,
      reserved: 20,
      dataType: 24,
      dataLen: 28,
      dataUptr: 32,
      faultId: 40,
      reserved2: 44,
    },
  ],
  ['iommu_hw_info_vtd', 24, { flags: 0, reserved: 4, capReg: 8, ecapReg: 16 }],
  ['iommu_hw_info_arm_smmuv3', 40, { flags: 0, reserved: 4, idr: 8, iidr: 32, aidr: 36 }],
  ['iommu_hw_info_tegra241_cmdqv', 8, { flags: 0, version: 4, log2vcmdqs: 5, log2vsids: 6, reserved: 7 }],
  ['iommu_hw_info_amd', 16, { efr: 0, efr2: 8 }],
  [
    'iommu_hw_info',
    40,
    {
      size: 0,
      flags: 4,
      devId: 8,
      dataLen: 12,
      dataUptr: 16,
      dataType: 24,
      outMaxPasidLog2: 28,
      reserved: 29,
      outCapabilities: 32,
    },
  ],
  ['iommu_hwpt_set_dirty_tracking', 16, { size: 0, flags: 4, hwptId: 8, reserved: 12 }],
  [
    'iommu_hwpt_get_dirty_bitmap',
    48,
    { size: 0, hwptId: 4, flags: 8, reserved: 12, iova: 16, length: 24, pageSize: 32, data: 40 },
  ],
  ['iommu_hwpt_vtd_s1_invalidate', 24, { addr: 0, npages: 8, flags: 16, reserved: 20 }],
  ['iommu_viommu_arm_smmuv3_invalidate', 16, { cmd: 0 }],
  [
    'iommu_hwpt_invalidate',
    32,
    { size: 0, hwptId: 4, dataUptr: 8, dataType: 16, entryLen: 20, entryNum: 24, reserved: 28 },
  ],
  [
    'iommu_hwpt_pgfault',
    40,
    { flags: 0, devId: 4, pasid: 8, grpid: 12, perm: 16, reserved: 20, addr: 24, length: 32, cookie: 36 },
  ],
  ['iommu_hwpt_page_response', 8, { cookie: 0, code: 4 }],
  ['iommu_fault_alloc', 16, { size: 0, flags: 4, outFaultId: 8, outFaultFd: 12 }],
  ['iommu_viommu_tegra241_cmdqv', 16, { outVintfMmapOffset: 0, outVintfMmapLength: 8 }],
  [
    'iommu_viommu_alloc',
    40,
    {
      size: 0,
      flags: 4,
      type: 8,
      devId: 12,
      hwptId: 16,
      outViommuId: 20,
      dataLen: 24,
      reserved: 28,
      dataUptr: 32,
    },
  ],
  ['iommu_vdevice_alloc', 24, { size: 0, viommuId: 4, devId: 8, outVdeviceId: 12, virtId: 16 }],
  ['iommu_ioas_change_process', 8, { size: 0, reserved: 4 }],
  ['iommufd_vevent_header', 8, { flags: 0, sequence: 4 }],
  ['iommu_vevent_arm_smmuv3', 32, { evt: 0 }],
  ['iommu_vevent_tegra241_cmdqv', 16, { lvcmdqErrMap: 0 }],
  [
    'iommu_veventq_alloc',
    32,
    {
      size: 0,
      flags: 4,
      viommuId: 8,
      type: 12,
      veventqDepth: 16,
      outVeventqId: 20,
      outVeventqFd: 24,
      reserved: 28,
    },
  ],
  [
    'iommu_hw_queue_alloc',
    40,
    {
      size: 0,
      flags: 4,
      viommuId: 8,
      type: 12,
      index: 16,
      outHwQueueId: 20,
      nestingParentIova: 24,
      length: 32,
    },
  ],
  ['vfio_device_bind_iommufd', 24, { argsz: 0, flags: 4, iommufd: 8, outDevid: 12, tokenUuidPtr: 16 }],
  ['vfio_device_attach_iommufd_pt', 16, { argsz: 0, flags: 4, ptId: 8, pasid: 12 }],
  ['vfio_device_detach_iommufd_pt', 12, { argsz: 0, flags: 4, pasid: 8 }],
  ['vfio_device_info', 24, { argsz: 0, flags: 4, numRegions: 8, numIrqs: 12, capOffset: 16, pad: 20 }],
  ['vfio_iommu_type1_info', 24, { argsz: 0, flags: 4, iovaPgsizes: 8, capOffset: 16, pad: 20 }],
  ['vfio_info_cap_header', 8, { id: 0, version: 2, next: 4 }],
  ['vfio_iommu_type1_info_cap_iova_range', 16, { id: 0, version: 2, next: 4, nrIovas: 8, reserved: 12 }],
  ['vfio_iova_range', 16, { start: 0, end: 8 }],
  ['vfio_iommu_type1_info_dma_avail', 12, { id: 0, version: 2, next: 4, avail: 8 }],
  ['vfio_iommu_type1_dma_map', 32, { argsz: 0, flags: 4, vaddr: 8, iova: 16, size: 24 }],
  ['vfio_iommu_type1_dma_unmap', 24, { argsz: 0, flags: 4, iova: 8, size: 16 }],
  ['vfio_iommu_type1_dirty_bitmap', 8, { argsz: 0, flags: 4 }],
];

for (const [cName, size, offsets] of LAYOUTS) {
  test(`layout: ${cName} is ${size} bytes with every field where C has it`, (t) => {
    const s = declared.get(cName);
    t.truthy(s, 'not exported');
    t.is(s?.size, size);
    t.deepEqual(Object.entries(s?.offsets ?? {}), Object.entries(offsets));
  });
}

test('layout: every exported struct is checked here', (t) => {
  t.deepEqual([...declared.keys()].sort(), LAYOUTS.map(([cName]) => cName).sort());
});

test('layout: arrays have the element type and count of the header', (t) => {
  const arrays: [string, string, [string, number]][] = [];
  for (const s of declared.values()) {
    for (const [field, kind] of Object.entries(s.fields)) {
      if (Array.isArray(kind)) arrays.push([s.cName, field, [kind[0], kind[1]]]);
    }
  }
  t.deepEqual(
    arrays.sort((a, b) => (a[0] < b[0] ? -1 : 1)),
    [
      ['iommu_hw_info', 'reserved', ['u8', 3]],
      ['iommu_hw_info_arm_smmuv3', 'idr', ['u32', 6]],
      ['iommu_hwpt_amd_guest', 'dte', ['u64', 4]],
      ['iommu_hwpt_arm_smmuv3', 'ste', ['u64', 2]],
      ['iommu_vevent_arm_smmuv3', 'evt', ['u64', 4]],
      ['iommu_vevent_tegra241_cmdqv', 'lvcmdqErrMap', ['u64', 2]],
      ['iommu_viommu_arm_smmuv3_invalidate', 'cmd', ['u64', 2]],
    ],
  );
});

test('layout: only the two file descriptor inputs are signed', (t) => {
  const signed: string[] = [];
  for (const s of declared.values()) {
    for (const [field, kind] of Object.entries(s.fields)) {
      if (kind === 's32') signed.push(`${s.cName}.${field}`);
    }
  }
  t.deepEqual(signed.sort(), ['iommu_ioas_map_file.fd', 'vfio_device_bind_iommufd.iommufd']);
});
