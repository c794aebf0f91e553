/** IOMMU_TEST_CMD on a bench with the mock IOMMU: builds the struct by offset, as iommufd_test.h has it. */
import { CoreBench } from './core-bench.js';

export const IOMMU_TEST_CMD = 0x3ba0;
const CMD_BYTES = 72;

export class TestBench extends CoreBench {
  constructor() {
    super({ testIoctl: true });
  }

  /**
   * @param values  the union's members, [offset from its start, width, value] each
   * @returns what the ioctl says, and the struct after it
   */
  run(op: number, id: number, values: readonly (readonly [number, 4 | 8, number | bigint])[] = []) {
    const bytes = new Uint8Array(CMD_BYTES);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, CMD_BYTES, true);
    view.setUint32(4, op, true);
    view.setUint32(8, id, true);
    for (const [at, width, value] of values) {
      if (width === 4) view.setUint32(16 + at, Number(value), true);
      else view.setBigUint64(16 + at, BigInt(value), true);
    }
    const status = this.fd.ioctl(IOMMU_TEST_CMD, bytes);
    return {
      status,
      bytes,
      u32: (at: number) => view.getUint32(16 + at, true),
      u64: (at: number) => view.getBigUint64(16 + at, true),
    };
  }

  /** MOCK_DOMAIN_FLAGS. */
  mockDomain(ptId: number, flags = 0) {
    const { status, u32 } = this.run(12, ptId, [[12, 4, flags]]);
    return { status, stdevId: u32(0), hwptId: u32(4), idevId: u32(8) };
  }

  checkMap(hwptId: number, iova: bigint, length: bigint, uptr: bigint): number {
    return this.run(3, hwptId, [
      [0, 8, iova],
      [8, 8, length],
      [16, 8, uptr],
    ]).status;
  }

  checkRefs(uptr: bigint, length: bigint, refs: number): number {
    return this.run(4, 0, [
      [0, 8, length],
      [8, 8, uptr],
      [16, 4, refs],
    ]).status;
  }

  /** CREATE_ACCESS, which pins. @returns the descriptor, or -errno */
  createAccess(ioasId: number, flags = 1): number {
    const { status, u32 } = this.run(5, ioasId, [[4, 4, flags]]);
    return status < 0 ? status : u32(0);
  }

  accessPages(fd: number, iova: bigint, length: bigint, uptr: bigint, flags = 0) {
    const { status, u32 } = this.run(7, fd, [
      [0, 4, flags],
      [8, 8, iova],
      [16, 8, length],
      [24, 8, uptr],
    ]);
    return { status, item: u32(4) };
  }

  accessRw(fd: number, iova: bigint, length: bigint, uptr: bigint, flags = 0): number {
    return this.run(8, fd, [
      [0, 8, iova],
      [8, 8, length],
      [16, 8, uptr],
      [24, 4, flags],
    ]).status;
  }

  /** Of PASID_ATTACH (18) and PASID_REPLACE (19). @returns the page table in use, or -errno */
  pasid(op: 18 | 19, stdevId: number, pasid: number, ptId: number): number {
    const { status, u32 } = this.run(op, stdevId, [
      [0, 4, pasid],
      [4, 4, ptId],
    ]);
    return status < 0 ? status : u32(4);
  }

  /** Pins on the pages from a user address on. */
  checkPins(va: bigint, pages: number): number {
    let pins = 0;
    for (let i = 0; i < pages; i++) pins += this.user.pinsOf(this.pfnOf(va + BigInt(i) * 4096n));
    return pins;
  }
}
