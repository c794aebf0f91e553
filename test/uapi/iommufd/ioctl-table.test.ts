/** The ioctl table against Linux 7.0's (drivers/iommu/iommufd/main.c), restated. */

import test from 'ava';
import { IOCTLS } from '../../../uapi/iommufd/ioctl-table.js';

/** nr, name, C tag, sizeof, offsetofend of the last field that the oldest caller has. */
const ROWS: readonly (readonly [number, string, string, number, number])[] = [
  [0x80, 'IOMMU_DESTROY', 'iommu_destroy', 8, 8],
  [0x81, 'IOMMU_IOAS_ALLOC', 'iommu_ioas_alloc', 12, 12],
  [0x82, 'IOMMU_IOAS_ALLOW_IOVAS', 'iommu_ioas_allow_iovas', 24, 24],
  [0x83, 'IOMMU_IOAS_COPY', 'iommu_ioas_copy', 40, 40],
  [0x84, 'IOMMU_IOAS_IOVA_RANGES', 'iommu_ioas_iova_ranges', 32, 32],
  [0x85, 'IOMMU_IOAS_MAP', 'iommu_ioas_map', 40, 40],
  [0x86, 'IOMMU_IOAS_UNMAP', 'iommu_ioas_unmap', 24, 24],
  [0x87, 'IOMMU_OPTION', 'iommu_option', 24, 24],
  [0x88, 'IOMMU_VFIO_IOAS', 'iommu_vfio_ioas', 12, 12],
  [0x89, 'IOMMU_HWPT_ALLOC', 'iommu_hwpt_alloc', 48, 24],
  [0x8a, 'IOMMU_GET_HW_INFO', 'iommu_hw_info', 40, 32],
  [0x8b, 'IOMMU_HWPT_SET_DIRTY_TRACKING', 'iommu_hwpt_set_dirty_tracking', 16, 16],
  [0x8c, 'IOMMU_HWPT_GET_DIRTY_BITMAP', 'iommu_hwpt_get_dirty_bitmap', 48, 48],
  [0x8d, 'IOMMU_HWPT_INVALIDATE', 'iommu_hwpt_invalidate', 32, 32],
  [0x8e, 'IOMMU_FAULT_QUEUE_ALLOC', 'iommu_fault_alloc', 16, 16],
  [0x8f, 'IOMMU_IOAS_MAP_FILE', 'iommu_ioas_map_file', 40, 40],
  [0x90, 'IOMMU_VIOMMU_ALLOC', 'iommu_viommu_alloc', 40, 24],
  [0x91, 'IOMMU_VDEVICE_ALLOC', 'iommu_vdevice_alloc', 24, 24],
  [0x92, 'IOMMU_IOAS_CHANGE_PROCESS', 'iommu_ioas_change_process', 8, 8],
  [0x93, 'IOMMU_VEVENTQ_ALLOC', 'iommu_veventq_alloc', 32, 28],
  [0x94, 'IOMMU_HW_QUEUE_ALLOC', 'iommu_hw_queue_alloc', 40, 40],
];

for (const [nr, name, cName, size, minSize] of ROWS) {
  test(`ioctl 0x${nr.toString(16)}: ${name} takes ${minSize} to ${size} bytes of ${cName}`, (t) => {
    const row = IOCTLS[nr - 0x80];
    t.is(row?.nr, nr);
    t.is(row?.name, name);
    t.is(row?.cmd, 0x3b00 + nr);
    t.is(row?.struct.cName, cName);
    t.is(row?.struct.size, size);
    t.is(row?.struct.minSize, minSize);
  });
}

test('ioctl table: 0x80 to 0x94 without gaps and nothing else', (t) => {
  t.is(IOCTLS.length, 21);
  t.deepEqual(
    IOCTLS.map((row) => row.nr),
    Array.from({ length: 21 }, (_, i) => 0x80 + i),
  );
});

test('ioctl table: every struct starts with its u32 size', (t) => {
  for (const { struct } of IOCTLS) {
    t.is(struct.offsets.size, 0, struct.cName);
    t.is(struct.fields.size, 'u32', struct.cName);
  }
});
