/**
 * An open `/dev/iommu`, as a program sees it: `ioctl` with raw struct bytes, and typed calls that sit on it.
 *
 * A typed call builds the struct, calls `ioctl`, and turns -errno into an IommufdError that names the field at
 * fault where the arguments prove it. Arrays and vendor data go through a scratch buffer in user memory,
 * because the ioctls take user addresses.
 *
 * `close()` drops this reference, as close(2) does: bound VFIO devices and open event queues hold the file as
 * well, and the objects go when the last of them goes.
 */
import { requireBytes } from '../../hw/memory/bytes-argument.js';
import { EBADF, EBUSY, EIO, EMSGSIZE } from '../../uapi/abi/errno.js';
import { IommufdError } from '../../uapi/abi/iommufd-error.js';
import type { Fields, Struct, StructInput } from '../../uapi/abi/struct.js';
import { Destroy, IOMMU_DESTROY } from '../../uapi/iommufd/destroy.js';
import { HwInfo, IOMMU_GET_HW_INFO, IOMMU_HW_INFO_FLAG_INPUT_TYPE } from '../../uapi/iommufd/hw-info.js';
import { HwptAlloc, IOMMU_HWPT_ALLOC } from '../../uapi/iommufd/hwpt.js';
import { HwptInvalidate, IOMMU_HWPT_INVALIDATE } from '../../uapi/iommufd/hwpt-invalidate.js';
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  IoasAlloc,
  IoasAllowIovas,
  IoasCopy,
  IoasIovaRanges,
  IoasMap,
  IoasUnmap,
  IovaRange,
} from '../../uapi/iommufd/ioas.js';
import { IOCTLS } from '../../uapi/iommufd/ioctl-table.js';
import { IOMMU_VDEVICE_ALLOC, VdeviceAlloc } from '../../uapi/iommufd/vdevice.js';
import { IOMMU_VEVENTQ_ALLOC, VeventqAlloc } from '../../uapi/iommufd/veventq.js';
import { IOMMU_VIOMMU_ALLOC, ViommuAlloc } from '../../uapi/iommufd/viommu.js';
import { type ByteSize, byteSize } from './byte-size.js';
import { checkKeys, type MapArguments, type Why, whyMap, whyUnmap } from './call-check.js';
import type { IommufdCtx } from './ctx.js';
import { dispatch } from './dispatch.js';
import type { EventFile } from './file-table.js';

export interface MapOptions {
  readonly ioasId: number;
  readonly userVa: bigint;
  readonly length: ByteSize;
  /** Given: map exactly there (FIXED_IOVA). Absent: the core chooses. */
  readonly iova?: bigint;
  /** Default true. */
  readonly readable?: boolean;
  /** Default true. */
  readonly writeable?: boolean;
}

export interface CopyOptions {
  readonly dstIoasId: number;
  readonly srcIoasId: number;
  readonly srcIova: bigint;
  readonly length: ByteSize;
  readonly dstIova?: bigint;
  readonly readable?: boolean;
  readonly writeable?: boolean;
}

export interface HwptAllocOptions {
  readonly devId: number;
  /** An IOAS, a nest parent, or a vIOMMU. */
  readonly ptId: number;
  /** IOMMU_HWPT_ALLOC_*. */
  readonly flags?: number;
  /** IOMMU_HWPT_DATA_*. */
  readonly dataType?: number;
  readonly data?: Uint8Array;
  readonly faultId?: number;
}

export interface InvalidateOptions {
  /** A vIOMMU, or a nested HWPT. */
  readonly hwptId: number;
  readonly dataType: number;
  /** Bytes of one entry. */
  readonly entryLen: number;
  /** Whole entries, one after the other. */
  readonly entries: Uint8Array;
}

/** A vEVENTQ's file descriptor. */
export interface Veventq {
  readonly veventqId: number;
  /** Descriptor number, as the ioctl returned it. */
  readonly fd: number;
  /** Whole records (header, then data) that fit in `maxBytes`; empty when there is none or none fits. */
  read(maxBytes: number): Uint8Array;
  /** Whether a read would find something. */
  poll(): boolean;
  close(): void;
}

const MAP_KEYS = ['ioasId', 'userVa', 'length', 'iova', 'readable', 'writeable'];
const UNMAP_KEYS = ['ioasId', 'iova', 'length'];
const COPY_KEYS = ['dstIoasId', 'srcIoasId', 'srcIova', 'length', 'dstIova', 'readable', 'writeable'];
const HWPT_KEYS = ['devId', 'ptId', 'flags', 'dataType', 'data', 'faultId'];
const INVALIDATE_KEYS = ['hwptId', 'dataType', 'entryLen', 'entries'];
const VIOMMU_KEYS = ['devId', 'hwptId', 'type', 'flags'];
const VDEVICE_KEYS = ['viommuId', 'devId', 'virtId'];
const VEVENTQ_KEYS = ['viommuId', 'type', 'depth'];
const HW_INFO_KEYS = ['devId', 'dataType'];

const RANGE_BYTES = 16;
/** Grown when a call needs more. */
const SCRATCH_BYTES = 4096;

export class IommufdFd {
  /** Descriptor number. */
  readonly fd: number;
  readonly ctx: IommufdCtx;
  #scratchVa = -1n;
  #scratchBytes = 0;
  #open = true;

  /** Made by `IommufdCore.open`. */
  constructor(ctx: IommufdCtx, fd: number) {
    this.ctx = ctx;
    this.fd = fd;
  }

  /** N of the region `objects:N`: what `SharedIommufd` takes on another thread. */
  get index(): number {
    return this.ctx.index;
  }

  /**
   * ioctl(2).
   * @param bytes  the caller's struct, outputs are written in place
   * @returns 0 | -errno
   */
  ioctl(cmd: number, bytes: Uint8Array): number {
    return this.#open ? dispatch(this.ctx, cmd, bytes) : -EBADF;
  }

  ioasAlloc(): { ioasId: number } {
    return { ioasId: this.#call(IOMMU_IOAS_ALLOC, IoasAlloc, {}).outIoasId };
  }

  ioasMap(options: MapOptions): { iova: bigint } {
    checkKeys('ioasMap', options, MAP_KEYS);
    const { ioasId, userVa, iova, readable = true, writeable = true } = options;
    const length = byteSize(options.length, 'length');
    const why: Why = (errno) => {
      const aligned: MapArguments['aligned'] = iova === undefined ? { userVa } : { iova, userVa };
      const fixed = iova === undefined ? undefined : 'iova';
      const args = { readable, writeable, length, aligned, fixed, complete: true };
      return whyMap(errno, args, () => this.#alignment(ioasId));
    };
    const flags = mapFlags(options, iova);
    const fields = { flags, ioasId, userVa, length, iova: iova ?? 0n };
    const out = this.#call(IOMMU_IOAS_MAP, IoasMap, fields, why);
    return { iova: out.iova };
  }

  /** @returns bytes unmapped */
  ioasUnmap(options: { ioasId: number; iova: bigint; length: ByteSize }): { length: bigint } {
    checkKeys('ioasUnmap', options, UNMAP_KEYS);
    const { ioasId, iova } = options;
    const length = byteSize(options.length, 'length');
    const why: Why = (errno) => whyUnmap(errno, length, () => this.#alignment(ioasId));
    const out = this.#call(IOMMU_IOAS_UNMAP, IoasUnmap, { ioasId, iova, length }, why);
    return { length: out.length };
  }

  ioasCopy(options: CopyOptions): { iova: bigint } {
    checkKeys('ioasCopy', options, COPY_KEYS);
    const { dstIoasId, srcIoasId, srcIova, dstIova, readable = true, writeable = true } = options;
    const length = byteSize(options.length, 'length');
    const why: Why = (errno) => {
      const aligned: MapArguments['aligned'] = dstIova === undefined ? {} : { dstIova };
      const fixed = dstIova === undefined ? undefined : 'dstIova';
      // Where the source's pages begin is not known here.
      const args = { readable, writeable, length, aligned, fixed, complete: false };
      return whyMap(errno, args, () => this.#alignment(dstIoasId));
    };
    const flags = mapFlags(options, dstIova);
    const fields = { flags, dstIoasId, srcIoasId, length, dstIova: dstIova ?? 0n, srcIova };
    const out = this.#call(IOMMU_IOAS_COPY, IoasCopy, fields, why);
    return { iova: out.dstIova };
  }

  /** `last` is inclusive. */
  ioasIovaRanges(ioasId: number): { ranges: { start: bigint; last: bigint }[]; alignment: bigint } {
    let numIovas = 64;
    for (;;) {
      const allowedIovas = this.#scratch(numIovas * RANGE_BYTES);
      const bytes = IoasIovaRanges.toBytes({ size: IoasIovaRanges.size, ioasId, numIovas, allowedIovas });
      const ret = this.ioctl(IOMMU_IOAS_IOVA_RANGES, bytes);
      const found = IoasIovaRanges.getField(bytes, 'numIovas');
      if (ret < 0 && found > numIovas) {
        numIovas = found;
        continue;
      }
      if (ret < 0) throw new IommufdError(-ret, 'IOMMU_IOAS_IOVA_RANGES');
      const array = this.#copyBack(allowedIovas, found * RANGE_BYTES);
      const ranges = Array.from({ length: found }, (_, i) => IovaRange.decode(array, i * RANGE_BYTES));
      return { ranges, alignment: IoasIovaRanges.getField(bytes, 'outIovaAlignment') };
    }
  }

  /** `last` is inclusive; an empty list allows everything again. */
  ioasAllowIovas(ioasId: number, ranges: readonly { start: bigint; last: bigint }[]): void {
    const array = new Uint8Array(ranges.length * RANGE_BYTES);
    ranges.forEach((range, i) => {
      IovaRange.encode(range, array, i * RANGE_BYTES);
    });
    this.#call(IOMMU_IOAS_ALLOW_IOVAS, IoasAllowIovas, {
      ioasId,
      numIovas: ranges.length,
      allowedIovas: this.#copyToScratch(array),
    });
  }

  hwptAlloc(options: HwptAllocOptions): { hwptId: number } {
    checkKeys('hwptAlloc', options, HWPT_KEYS);
    const { devId, ptId, flags = 0, dataType = 0, data = new Uint8Array(0), faultId = 0 } = options;
    requireBytes(data, 'data');
    const fields = { flags, devId, ptId, dataType, dataLen: data.byteLength, faultId };
    const dataUptr = this.#copyToScratch(data);
    const out = this.#call(IOMMU_HWPT_ALLOC, HwptAlloc, { ...fields, dataUptr }, (errno) =>
      errno === EIO && data.byteLength > 0
        ? { field: 'data', detail: 'the STE is not one a guest may have' }
        : {},
    );
    return { hwptId: out.outHwptId };
  }

  /**
   * @returns how many entries were handled
   * @throws IommufdError; its `handled` is in the message, as Linux writes entry_num on failure too
   * @throws RangeError `entries` are not whole ones
   */
  hwptInvalidate(options: InvalidateOptions): { handled: number } {
    checkKeys('hwptInvalidate', options, INVALIDATE_KEYS);
    const { hwptId, dataType, entryLen, entries } = options;
    requireBytes(entries, 'entries');
    if (entryLen > 0 && entries.byteLength % entryLen !== 0)
      throw new RangeError(`entries: ${entries.byteLength} bytes are not whole entries of ${entryLen} bytes`);
    const bytes = HwptInvalidate.toBytes({
      size: HwptInvalidate.size,
      hwptId,
      dataUptr: this.#copyToScratch(entries),
      dataType,
      entryLen,
      entryNum: entryLen === 0 ? 0 : entries.byteLength / entryLen,
    });
    const ret = this.ioctl(IOMMU_HWPT_INVALIDATE, bytes);
    const handled = HwptInvalidate.getField(bytes, 'entryNum');
    if (ret < 0)
      throw new IommufdError(-ret, 'IOMMU_HWPT_INVALIDATE', { detail: `${handled} entries handled` });
    return { handled };
  }

  viommuAlloc(options: { devId: number; hwptId: number; type: number; flags?: number }): {
    viommuId: number;
  } {
    checkKeys('viommuAlloc', options, VIOMMU_KEYS);
    const { devId, hwptId, type, flags = 0 } = options;
    return {
      viommuId: this.#call(IOMMU_VIOMMU_ALLOC, ViommuAlloc, { flags, type, devId, hwptId }).outViommuId,
    };
  }

  vdeviceAlloc(options: { viommuId: number; devId: number; virtId: bigint | number }): { vdeviceId: number } {
    checkKeys('vdeviceAlloc', options, VDEVICE_KEYS);
    const { viommuId, devId, virtId } = options;
    const out = this.#call(IOMMU_VDEVICE_ALLOC, VdeviceAlloc, { viommuId, devId, virtId: BigInt(virtId) });
    return { vdeviceId: out.outVdeviceId };
  }

  /** @param options.depth  events kept unread */
  veventqAlloc(options: { viommuId: number; type: number; depth: number }): Veventq {
    checkKeys('veventqAlloc', options, VEVENTQ_KEYS);
    const { viommuId, type, depth } = options;
    const out = this.#call(IOMMU_VEVENTQ_ALLOC, VeventqAlloc, { viommuId, type, veventqDepth: depth });
    const { files } = this.ctx.core;
    const file = files.get(out.outVeventqFd) as EventFile;
    return {
      veventqId: out.outVeventqId,
      fd: out.outVeventqFd,
      read: (maxBytes) => file.read(maxBytes),
      poll: () => file.poll(),
      close: () => {
        if (files.get(out.outVeventqFd) === file) files.close(out.outVeventqFd);
      },
    };
  }

  /** @param options.dataType  ask for this type of data (INPUT_TYPE); absent: the driver's own */
  getHwInfo(options: { devId: number; dataType?: number }): {
    dataType: number;
    data: Uint8Array;
    capabilities: bigint;
    maxPasidLog2: number;
  } {
    checkKeys('getHwInfo', options, HW_INFO_KEYS);
    const dataUptr = this.#scratch(SCRATCH_BYTES);
    const out = this.#call(IOMMU_GET_HW_INFO, HwInfo, {
      flags: options.dataType === undefined ? 0 : IOMMU_HW_INFO_FLAG_INPUT_TYPE,
      devId: options.devId,
      dataLen: SCRATCH_BYTES,
      dataUptr,
      dataType: options.dataType ?? 0,
    });
    return {
      dataType: out.dataType,
      data: this.#copyBack(dataUptr, Math.min(out.dataLen, SCRATCH_BYTES)),
      capabilities: out.outCapabilities,
      maxPasidLog2: out.outMaxPasidLog2,
    };
  }

  destroy(id: number): void {
    this.#call(IOMMU_DESTROY, Destroy, { id }, (errno) =>
      errno === EBUSY ? { detail: 'something still uses it' } : {},
    );
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    if (this.#scratchBytes > 0) this.ctx.context.user.free(this.#scratchVa, this.#scratchBytes);
    this.#scratchBytes = 0;
    this.ctx.core.files.close(this.fd);
  }

  #call<F extends Fields>(cmd: number, struct: Struct<F>, fields: Partial<StructInput<F>>, why?: Why) {
    const bytes = struct.toBytes({ ...fields, size: struct.size } as Partial<StructInput<F>>);
    const ret = this.ioctl(cmd, bytes);
    if (ret < 0) {
      const name = IOCTLS.find((row) => row.cmd === cmd)?.name ?? struct.cName;
      throw new IommufdError(-ret, name, why?.(-ret));
    }
    return struct.decode(bytes);
  }

  /** What addresses in an IOAS must be multiples of, in bytes; or -errno. */
  #alignment(ioasId: number): number {
    const bytes = IoasIovaRanges.toBytes({ size: IoasIovaRanges.size, ioasId });
    const ret = this.ioctl(IOMMU_IOAS_IOVA_RANGES, bytes);
    // No room for the ranges themselves: the rest is filled in all the same.
    if (ret < 0 && ret !== -EMSGSIZE) return ret;
    return Number(IoasIovaRanges.getField(bytes, 'outIovaAlignment'));
  }

  /** User address of at least `bytes` bytes, good until the next call of this. */
  #scratch(bytes: number): bigint {
    if (bytes <= this.#scratchBytes) return this.#scratchVa;
    const { user } = this.ctx.context;
    const size = Math.max(SCRATCH_BYTES, 2 ** Math.ceil(Math.log2(bytes)));
    const va = user.alloc(size);
    if (this.#scratchBytes > 0) user.free(this.#scratchVa, this.#scratchBytes);
    this.#scratchVa = va;
    this.#scratchBytes = size;
    return va;
  }

  #copyToScratch(data: Uint8Array): bigint {
    if (data.byteLength === 0) return 0n;
    const va = this.#scratch(data.byteLength);
    this.ctx.context.user.copyOut(va, data);
    return va;
  }

  #copyBack(va: bigint, bytes: number): Uint8Array {
    const data = new Uint8Array(bytes);
    this.ctx.context.user.copyIn(va, data);
    return data;
  }
}

function mapFlags(options: { readable?: boolean; writeable?: boolean }, iova: bigint | undefined): number {
  const { readable = true, writeable = true } = options;
  return (
    (iova === undefined ? 0 : IOMMU_IOAS_MAP_FIXED_IOVA) |
    (readable ? IOMMU_IOAS_MAP_READABLE : 0) |
    (writeable ? IOMMU_IOAS_MAP_WRITEABLE : 0)
  );
}
