/**
 * A program over one open iommufd with the mock IOMMU behind its test ioctl: what Linux's test programs are. Every call
 * says its errno and the caller's struct as the ioctl left it, so that a test judges both.
 */
import type { ExecutionContext } from 'ava';
import type { IommufdFd } from '../../runtime/core/fd.js';
import { createMachine, type Machine } from '../../runtime/machine.js';
import type { Fields, Struct, StructInput, StructValue } from '../../uapi/abi/struct.js';
import { Destroy, IOMMU_DESTROY } from '../../uapi/iommufd/destroy.js';
import { FaultAlloc, IOMMU_FAULT_QUEUE_ALLOC } from '../../uapi/iommufd/fault.js';
import { HwptAlloc, IOMMU_HWPT_ALLOC } from '../../uapi/iommufd/hwpt.js';
import { HwptInvalidate, IOMMU_HWPT_INVALIDATE } from '../../uapi/iommufd/hwpt-invalidate.js';
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_UNMAP,
  IoasAlloc,
  IoasAllowIovas,
  IoasCopy,
  IoasIovaRanges,
  IoasMap,
  IoasMapFile,
  IoasUnmap,
  IovaRange,
} from '../../uapi/iommufd/ioas.js';
import * as uapi from '../../uapi/iommufd/test.js';

export const PAGE_SIZE = 4096;
export const PAGE = 4096n;
export const HUGEPAGE_SIZE = 2 ** 21;
export const BUFFER_SIZE = 16 * PAGE_SIZE;
export const U64_MAX = 0xffff_ffff_ffff_ffffn;

export const FIXED = 1;
export const WRITEABLE = 2;
export const READABLE = 4;

/** What a call left: errno (0: success), what it returned, and its struct. */
export interface Result<F extends Fields> {
  readonly errno: number;
  readonly ret: number;
  readonly out: StructValue<F>;
}

type Input<F extends Fields> = Partial<StructInput<F>>;

export class Program {
  readonly machine: Machine;
  readonly t: ExecutionContext;
  fd: IommufdFd;
  /** BUFFER_SIZE bytes on a huge page's boundary. */
  readonly buffer: bigint;
  readonly #freed: (readonly [bigint, number])[] = [];
  readonly #memfds = new Set<number>();

  /** On a machine of its own: what a test leaves behind is not seen by the next. */
  constructor(t: ExecutionContext, memory = '64MiB') {
    this.t = t;
    const iommus = [{ name: 'smmu0', model: 'smmuv3' }] as const;
    this.machine = createMachine({ memory, iommus: [...iommus], devices: [] }, { testIoctl: true });
    this.fd = this.machine.openIommufd();
    this.buffer = this.alloc(HUGEPAGE_SIZE);
  }

  /** mmap of anonymous memory; gone with the program. */
  alloc(bytes: number, options: { contiguous?: boolean; chunkLg2?: 12 | 21 } = {}): bigint {
    const va = this.machine.user.alloc(bytes, options);
    this.#freed.push([va, bytes]);
    return va;
  }

  /** munmap. */
  unmapUser(va: bigint, bytes: number): void {
    this.#freed.splice(
      this.#freed.findIndex(([at]) => at === va),
      1,
    );
    this.t.is(this.machine.user.free(va, bytes), 0);
  }

  /** memfd_create of `bytes`, mapped at `va`. Closed by close(), or with the program. */
  memfd(bytes: number): { fd: number; va: bigint; close(): void } {
    const { core, user } = this.machine;
    const { fd, file } = core.memfd(bytes);
    const va = user.map(file);
    this.#freed.push([va, bytes]);
    this.#memfds.add(fd);
    return {
      fd,
      va,
      close: () => {
        this.unmapUser(va, bytes);
        this.#memfds.delete(fd);
        this.closeFd(fd);
      },
    };
  }

  read(va: bigint, bytes: number): Uint8Array {
    const into = new Uint8Array(bytes);
    this.t.is(this.machine.user.copyIn(va, into), 0);
    return into;
  }

  write(va: bigint, bytes: Uint8Array): void {
    this.t.is(this.machine.user.copyOut(va, bytes), 0);
  }

  /** A struct with its size filled in unless given. */
  call<F extends Fields>(cmd: number, struct: Struct<F>, fields: Input<F>): Result<F> {
    const bytes = struct.toBytes(fields);
    // VFIO's first word is argsz, which the caller gives.
    if (Object.keys(struct.fields)[0] === 'size' && fields.size === undefined)
      struct.put(bytes, 'size', struct.size as never);
    const ret = this.fd.ioctl(cmd, bytes);
    return { errno: ret < 0 ? -ret : 0, ret, out: struct.decode(bytes) };
  }

  /** The test ioctl. @param id  iommu_test_cmd.id */
  test<F extends Fields>(
    op: number,
    id: number,
    struct: Struct<F>,
    fields: Input<F>,
  ): Result<F> & { id: number } {
    const payload = new Uint8Array(48);
    struct.encode(struct.create(fields) as StructInput<F>, payload);
    const cmd = this.call(uapi.IOMMU_TEST_CMD, uapi.TestCmd, { op, id, payload: [...payload] });
    const after = Uint8Array.from(cmd.out.payload);
    return { errno: cmd.errno, ret: cmd.ret, out: struct.decode(after), id: cmd.out.id };
  }

  /** Demands success. @returns the struct */
  ok<F extends Fields>(result: Result<F>): StructValue<F> {
    this.t.is(result.errno, 0);
    return result.out;
  }

  destroy(id: number): number {
    return this.call(IOMMU_DESTROY, Destroy, { id }).errno;
  }

  ioasAlloc(): number {
    const { outIoasId } = this.ok(this.call(IOMMU_IOAS_ALLOC, IoasAlloc, {}));
    this.t.not(outIoasId, 0);
    return outIoasId;
  }

  /** Read and write unless `flags` says otherwise; FIXED when an IOVA is given. */
  map(ioasId: number, userVa: bigint, length: number | bigint, iova?: bigint, flags = READABLE | WRITEABLE) {
    const fixed = iova === undefined ? 0 : FIXED;
    const fields = { flags: flags | fixed, ioasId, userVa, length: BigInt(length), iova: iova ?? 0n };
    return this.call(IOMMU_IOAS_MAP, IoasMap, fields);
  }

  mapFile(ioasId: number, fd: number, start: bigint, length: number | bigint, iova?: bigint) {
    const flags = READABLE | WRITEABLE | (iova === undefined ? 0 : FIXED);
    const fields = { flags, ioasId, fd, start, length: BigInt(length), iova: iova ?? 0n };
    return this.call(IOMMU_IOAS_MAP_FILE, IoasMapFile, fields);
  }

  unmap(ioasId: number, iova: bigint, length: number | bigint) {
    return this.call(IOMMU_IOAS_UNMAP, IoasUnmap, { ioasId, iova, length: BigInt(length) });
  }

  /** At a fixed IOVA, writeable. */
  copy(dstIoasId: number, dstIova: bigint, srcIoasId: number, srcIova: bigint, length: number | bigint) {
    const flags = FIXED | WRITEABLE;
    const fields = { flags, dstIoasId, srcIoasId, length: BigInt(length), dstIova, srcIova };
    return this.call(IOMMU_IOAS_COPY, IoasCopy, fields);
  }

  /** Where there is room, read and write. */
  copyAnywhere(dstIoasId: number, srcIoasId: number, srcIova: bigint, length: number) {
    const flags = READABLE | WRITEABLE;
    const fields = { flags, dstIoasId, srcIoasId, length: BigInt(length), dstIova: 0n, srcIova };
    return this.call(IOMMU_IOAS_COPY, IoasCopy, fields);
  }

  /** @returns also the array, as it stands in user memory for `room` ranges */
  iovaRanges(ioasId: number, room: number) {
    const at = this.buffer;
    this.write(at, new Uint8Array(BUFFER_SIZE));
    const result = this.call(IOMMU_IOAS_IOVA_RANGES, IoasIovaRanges, {
      ioasId,
      numIovas: room,
      allowedIovas: at,
    });
    const bytes = this.read(at, 64);
    const ranges = [0, 16, 32, 48].map((offset) => IovaRange.decode(bytes, offset));
    return { ...result, ranges };
  }

  allow(ioasId: number, ranges: readonly { start: bigint; last: bigint }[]): number {
    const bytes = new Uint8Array(16 * ranges.length + 1);
    ranges.forEach((range, i) => {
      IovaRange.encode(range, bytes, 16 * i);
    });
    this.write(this.buffer, bytes);
    const fields = { ioasId, numIovas: ranges.length, allowedIovas: this.buffer };
    return this.call(IOMMU_IOAS_ALLOW_IOVAS, IoasAllowIovas, fields).errno;
  }

  /** @param data  bytes at `data.va`, or null for none */
  hwptAlloc(
    devId: number,
    ptId: number,
    flags = 0,
    data: { type: number; va: bigint; len: number } | null = null,
    faultId = 0,
  ) {
    return this.call(IOMMU_HWPT_ALLOC, HwptAlloc, {
      flags,
      devId,
      ptId,
      dataType: data?.type ?? 0,
      dataLen: data?.len ?? 0,
      dataUptr: data?.va ?? 0n,
      faultId,
    });
  }

  invalidate(hwptId: number, dataType: number, dataUptr: bigint, entryLen: number, entryNum: number) {
    return this.call(IOMMU_HWPT_INVALIDATE, HwptInvalidate, {
      hwptId,
      dataType,
      dataUptr,
      entryLen,
      entryNum,
    });
  }

  faultAlloc(): { faultId: number; fd: number } {
    const { outFaultId, outFaultFd } = this.ok(this.call(IOMMU_FAULT_QUEUE_ALLOC, FaultAlloc, {}));
    return { faultId: outFaultId, fd: outFaultFd };
  }

  closeFd(fd: number): void {
    this.t.is(this.machine.core.own.files.close(fd), 0);
  }

  addReserved(ioasId: number, start: bigint, length: bigint): number {
    return this.test(uapi.IOMMU_TEST_OP_ADD_RESERVED, ioasId, uapi.TestAddReserved, { start, length }).errno;
  }

  /** @param devFlags  given: MOCK_DOMAIN_FLAGS */
  mockDomain(ptId: number, devFlags?: number) {
    const op = devFlags === undefined ? uapi.IOMMU_TEST_OP_MOCK_DOMAIN : uapi.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS;
    const result = this.test(op, ptId, uapi.TestMockDomain, { devFlags: devFlags ?? 0 });
    const { outStdevId: stdevId, outHwptId: hwptId, outIdevId: deviceId } = result.out;
    return { errno: result.errno, stdevId, hwptId, deviceId };
  }

  mockReplace(stdevId: number, ptId: number): number {
    return this.test(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, stdevId, uapi.TestMockDomainReplace, { ptId })
      .errno;
  }

  checkMap(hwptId: number, iova: bigint, length: number | bigint, uptr: bigint): number {
    return this.test(uapi.IOMMU_TEST_OP_MD_CHECK_MAP, hwptId, uapi.TestCheckMap, {
      iova,
      length: BigInt(length),
      uptr,
    }).errno;
  }

  checkRefs(uptr: bigint, length: number, refs: number): void {
    this.t.is(
      this.test(uapi.IOMMU_TEST_OP_MD_CHECK_REFS, 0, uapi.TestCheckRefs, {
        length: BigInt(length),
        uptr,
        refs,
      }).errno,
      0,
      `pinned ${refs} times`,
    );
  }

  /** @returns its descriptor */
  createAccess(ioasId: number, flags = 0): number {
    return this.ok(this.tryCreateAccess(ioasId, flags)).outAccessFd;
  }

  tryCreateAccess(ioasId: number, flags: number) {
    return this.test(uapi.IOMMU_TEST_OP_CREATE_ACCESS, ioasId, uapi.TestCreateAccess, { flags });
  }

  accessPages(access: number, iova: bigint, length: number | bigint, uptr: bigint, flags = 0) {
    return this.test(uapi.IOMMU_TEST_OP_ACCESS_PAGES, access, uapi.TestAccessPages, {
      flags,
      iova,
      length: BigInt(length),
      uptr,
    });
  }

  destroyAccessPages(access: number, accessPagesId: number): number {
    return this.test(uapi.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, access, uapi.TestDestroyAccessPages, {
      accessPagesId,
    }).errno;
  }

  accessRw(access: number, iova: bigint, length: number, uptr: bigint, flags: number): number {
    return this.test(uapi.IOMMU_TEST_OP_ACCESS_RW, access, uapi.TestAccessRw, {
      iova,
      length: BigInt(length),
      uptr,
      flags,
    }).errno;
  }

  accessReplaceIoas(access: number, ioasId: number): number {
    return this.test(uapi.IOMMU_TEST_OP_ACCESS_REPLACE_IOAS, access, uapi.TestAccessReplaceIoas, { ioasId })
      .errno;
  }

  /** Bytes of scratch memory for batches; 65536 is what Linux begins with. */
  memoryLimit(limit: number): void {
    this.t.is(
      this.test(uapi.IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, 0, uapi.TestMemoryLimit, { limit }).errno,
      0,
    );
  }

  checkIotlb(hwptId: number, words: readonly number[]): void {
    words.forEach((iotlb, id) => {
      const { errno } = this.test(uapi.IOMMU_TEST_OP_MD_CHECK_IOTLB, hwptId, uapi.TestCheckIotlb, {
        id,
        iotlb,
      });
      this.t.is(errno, 0, `iotlb word ${id} is ${iotlb.toString(16)}`);
    });
  }

  checkDevCache(deviceId: number, words: readonly number[]): void {
    words.forEach((cache, id) => {
      const { errno } = this.test(uapi.IOMMU_TEST_OP_DEV_CHECK_CACHE, deviceId, uapi.TestCheckDevCache, {
        id,
        cache,
      });
      this.t.is(errno, 0, `cache word ${id} is ${cache.toString(16)}`);
    });
  }

  /** Close and open again; nothing may be pinned any more. */
  reopen(): void {
    this.fd.close();
    this.fd = this.machine.openIommufd();
  }

  /** teardown_iommufd: everything goes with the file, and no page stays pinned. */
  finish(): void {
    this.reopen();
    this.checkRefs(this.buffer, BUFFER_SIZE, 0);
    this.fd.close();
    for (const fd of this.#memfds) this.closeFd(fd);
    for (const [va, bytes] of this.#freed) this.t.is(this.machine.user.free(va, bytes), 0);
  }
}
