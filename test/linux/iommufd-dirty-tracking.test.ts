/** iommufd_dirty_tracking: dirty bits of buffers from 8 KiB to 128 MiB, in small pages and in huge ones. */
import { EINVAL, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import { HwptSelftest } from '../../uapi/drivers/selftest.js';
import { HwInfo, IOMMU_GET_HW_INFO } from '../../uapi/iommufd/hw-info.js';
import {
  HwptGetDirtyBitmap,
  HwptSetDirtyTracking,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
} from '../../uapi/iommufd/hwpt-dirty.js';
import { IOMMU_OPTION, Option } from '../../uapi/iommufd/option.js';
import {
  IOMMU_TEST_OP_DIRTY,
  IOMMU_TEST_OP_PASID_ATTACH,
  IOMMU_TEST_OP_PASID_DETACH,
  TestDirty,
  TestPasidAttach,
  TestPasidDetach,
} from '../../uapi/iommufd/test.js';
import { fixture } from './fixture.js';
import { Program } from './program.js';

const MEMORY = '320MiB';

const APERTURE_START = 0x100_0000n;
const MOCK_PAGE_SIZE = 2048;
const MOCK_HUGE_PAGE_SIZE = 512 * 2048;
const [IOMMUPT_DEFAULT, IOMMUPT_HUGE] = [0, 1];
const ALLOC_DIRTY_TRACKING = 2;
const ALLOC_PASID = 8;
const [NO_DIRTY, PASID] = [1, 4];
const NO_CLEAR = 1;
const DATA_SELFTEST = 0xdead;
const MIB = 2 ** 20;

interface Variant {
  readonly bytes: number;
  readonly huge?: boolean;
}

interface Self {
  readonly p: Program;
  readonly variant: Variant;
  readonly buffer: bigint;
  /** User address of room for the bitmap, and a page more. */
  readonly bitmap: bigint;
  readonly bits: number;
  readonly ioasId: number;
  readonly idevId: number;
}

function made<R extends { errno: number }>(p: Program, result: R): R {
  p.t.is(result.errno, 0);
  return result;
}

function setDirtyTracking(p: Program, hwptId: number, flags: number): void {
  p.ok(p.call(IOMMU_HWPT_SET_DIRTY_TRACKING, HwptSetDirtyTracking, { hwptId, flags }));
}

const pasidAttach = (p: Program, stdevId: number, pasid: number, ptId: number) =>
  p.test(IOMMU_TEST_OP_PASID_ATTACH, stdevId, TestPasidAttach, { pasid, ptId }).errno;
const pasidDetach = (p: Program, stdevId: number, pasid: number) =>
  p.test(IOMMU_TEST_OP_PASID_DETACH, stdevId, TestPasidDetach, { pasid }).errno;

/** Makes every second page of the table dirty, and reads that twice into a bitmap at `at`. */
function readBack(self: Self, hwptId: number, at: bigint, flags: number): void {
  const { p, variant, bits } = self;
  const { t } = p;
  const pageBits = (variant.huge ? MOCK_HUGE_PAGE_SIZE : MOCK_PAGE_SIZE) / MOCK_PAGE_SIZE;
  const bytes = Math.ceil(bits / 8);
  const set = new Uint8Array(bytes);
  for (let bit = 0; bit < bits; bit += 2 * pageBits) set[bit >> 3]! |= 1 << (bit & 7);
  p.write(at, set);
  const range = {
    iova: APERTURE_START,
    length: BigInt(variant.bytes),
    pageSize: BigInt(MOCK_PAGE_SIZE),
  };
  const dirtied = p.ok(p.test(IOMMU_TEST_OP_DIRTY, hwptId, TestDirty, { ...range, uptr: at }));
  t.is(dirtied.outNrDirty, BigInt(Math.floor(bits / (2 * pageBits)) || 1));
  const read = () => {
    p.write(at, new Uint8Array(bytes));
    p.ok(p.call(IOMMU_HWPT_GET_DIRTY_BITMAP, HwptGetDirtyBitmap, { ...range, hwptId, flags, data: at }));
    return p.read(at, bytes);
  };
  const wrong = (bitmap: Uint8Array, dirty: (bit: number) => boolean) => {
    for (let bit = 0; bit < bits; bit++)
      if (((bitmap[bit >> 3]! >> (bit & 7)) & 1) !== (dirty(bit) ? 1 : 0)) return bit;
    return -1;
  };
  const evenPages = (bit: number) => bit % (2 * pageBits) < pageBits;
  t.is(wrong(read(), evenPages), -1, 'first bit that is not as it was set');
  const again = flags === NO_CLEAR ? evenPages : () => false;
  t.is(wrong(read(), again), -1, 'first bit that is not as expected the second time');
}

function getDirtyBitmap(self: Self, flags: number): void {
  const { p, variant, ioasId, idevId, buffer, bitmap } = self;
  p.ok(p.map(ioasId, buffer, variant.bytes, APERTURE_START));
  const pagetableType = variant.huge ? IOMMUPT_HUGE : IOMMUPT_DEFAULT;
  p.write(p.buffer, HwptSelftest.toBytes({ pagetableType }));
  const data = { type: DATA_SELFTEST, va: p.buffer, len: HwptSelftest.size };
  const hwptId = p.ok(p.hwptAlloc(idevId, ioasId, ALLOC_DIRTY_TRACKING, data)).outHwptId;
  setDirtyTracking(p, hwptId, 1);
  for (const offset of [0n, 2048n, 0xff1n]) readBack(self, hwptId, bitmap + offset, flags);
  p.t.is(p.destroy(hwptId), 0);
}

fixture('iommufd_dirty_tracking', {
  variants: {
    domain_dirty8k: { bytes: 8 * 1024 },
    domain_dirty16k: { bytes: 16 * 1024 },
    domain_dirty64k: { bytes: 64 * 1024 },
    domain_dirty128k: { bytes: 128 * 1024 },
    domain_dirty320k: { bytes: 320 * 1024 },
    domain_dirty64M: { bytes: 64 * MIB },
    domain_dirty64M_huge: { bytes: 64 * MIB, huge: true },
    domain_dirty128M: { bytes: 128 * MIB },
    domain_dirty128M_huge: { bytes: 128 * MIB, huge: true },
  },
  setup: (t, variant: Variant): Self => {
    const p = new Program(t, MEMORY);
    const buffer = p.alloc(Math.max(variant.bytes, 2 * MIB), { chunkLg2: variant.huge ? 21 : 12 });
    const bits = variant.bytes / MOCK_PAGE_SIZE;
    const bitmap = p.alloc(Math.ceil(bits / 8) + 4096);
    const ioasId = p.ioasAlloc();
    if (!variant.huge)
      p.ok(p.call(IOMMU_OPTION, Option, { optionId: 1, op: 0, objectId: ioasId, val64: 0n }));
    const { deviceId } = made(p, p.mockDomain(ioasId));
    return { p, variant, buffer, bitmap, bits, ioasId, idevId: deviceId };
  },
  teardown: (_t, { p }) => p.finish(),
  tests: {
    enforce_dirty: (t, { p, ioasId, idevId }) => {
      const tracking = p.ok(p.hwptAlloc(idevId, ioasId, ALLOC_DIRTY_TRACKING)).outHwptId;
      const able = made(p, p.mockDomain(tracking));
      t.is(p.mockDomain(tracking, NO_DIRTY).errno, EINVAL);
      t.is(p.destroy(able.stdevId), 0);
      t.is(p.destroy(tracking), 0);
      const other = p.ioasAlloc();
      const unable = made(p, p.mockDomain(other, NO_DIRTY));
      t.is(p.hwptAlloc(unable.deviceId, other, ALLOC_DIRTY_TRACKING).errno, EOPNOTSUPP);
      t.is(p.destroy(unable.stdevId), 0);
    },

    set_dirty_tracking: (t, { p, ioasId, idevId }) => {
      const hwptId = p.ok(p.hwptAlloc(idevId, ioasId, ALLOC_DIRTY_TRACKING)).outHwptId;
      const { stdevId } = made(p, p.mockDomain(hwptId));
      setDirtyTracking(p, hwptId, 1);
      setDirtyTracking(p, hwptId, 0);
      t.is(p.destroy(stdevId), 0);
      t.is(p.destroy(hwptId), 0);
    },

    pasid_set_dirty_tracking: (t, { p, ioasId, idevId }) => {
      const flags = ALLOC_PASID | ALLOC_DIRTY_TRACKING;
      const hwptId = p.ok(p.hwptAlloc(idevId, ioasId, flags)).outHwptId;
      const able = made(p, p.mockDomain(hwptId, PASID));
      t.is(pasidAttach(p, able.stdevId, 100, hwptId), 0);
      setDirtyTracking(p, hwptId, 1);
      setDirtyTracking(p, hwptId, 0);
      t.is(pasidDetach(p, able.stdevId, 100), 0);
      t.is(p.destroy(able.stdevId), 0);
      const unable = made(p, p.mockDomain(p.ioasAlloc(), PASID | NO_DIRTY));
      t.is(pasidAttach(p, unable.stdevId, 100, hwptId), EINVAL);
      t.is(p.destroy(unable.stdevId), 0);
      t.is(p.destroy(hwptId), 0);
    },

    device_dirty_capability: (t, { p, ioasId, idevId }) => {
      const hwptId = p.ok(p.hwptAlloc(idevId, ioasId)).outHwptId;
      const { stdevId } = made(p, p.mockDomain(hwptId));
      const { outCapabilities } = p.ok(p.call(IOMMU_GET_HW_INFO, HwInfo, { devId: idevId }));
      t.is(outCapabilities & 1n, 1n);
      t.is(p.destroy(stdevId), 0);
      t.is(p.destroy(hwptId), 0);
    },

    get_dirty_bitmap: (_t, self) => getDirtyBitmap(self, 0),
    get_dirty_bitmap_no_clear: (_t, self) => getDirtyBitmap(self, NO_CLEAR),
  },
});
