/** Typed calls on page tables and devices. */
import { requireBytes } from '../../../hw/memory/bytes-argument.js';
import { EIO } from '../../../uapi/abi/errno.js';
import { IommufdError } from '../../../uapi/abi/iommufd-error.js';
import { HwInfo, IOMMU_GET_HW_INFO, IOMMU_HW_INFO_FLAG_INPUT_TYPE } from '../../../uapi/iommufd/hw-info.js';
import { HwptAlloc, IOMMU_HWPT_ALLOC, IOMMU_HWPT_FAULT_ID_VALID } from '../../../uapi/iommufd/hwpt.js';
import {
  HwptGetDirtyBitmap,
  HwptSetDirtyTracking,
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
} from '../../../uapi/iommufd/hwpt-dirty.js';
import { HwptInvalidate, IOMMU_HWPT_INVALIDATE } from '../../../uapi/iommufd/hwpt-invalidate.js';
import { type ByteSize, byteSize } from '../byte-size.js';
import { checkKeys } from '../call-check.js';
import { IoasCalls } from './ioas-calls.js';
import { SCRATCH_BYTES } from './ioctl-caller.js';

export interface HwptAllocOptions {
  readonly devId: number;
  /** An IOAS, a nest parent, or a vIOMMU. */
  readonly ptId: number;
  /** IOMMU_HWPT_ALLOC_*. */
  readonly flags?: number;
  /** IOMMU_HWPT_DATA_*. */
  readonly dataType?: number;
  readonly data?: Uint8Array;
  /** A fault queue that its faults go to; FAULT_ID_VALID is then set. */
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

export interface DirtyBitmapOptions {
  /** A page table that was allocated with IOMMU_HWPT_ALLOC_DIRTY_TRACKING. */
  readonly hwptId: number;
  readonly iova: bigint;
  readonly length: ByteSize;
  /** What one bit stands for; default 4 KiB. */
  readonly pageSize?: ByteSize;
  /** Leave the page table's own marks as they are. Default false. */
  readonly noClear?: boolean;
}

const HWPT_KEYS = ['devId', 'ptId', 'flags', 'dataType', 'data', 'faultId'];
const INVALIDATE_KEYS = ['hwptId', 'dataType', 'entryLen', 'entries'];
const HW_INFO_KEYS = ['devId', 'dataType'];
const DIRTY_KEYS = ['hwptId', 'iova', 'length', 'pageSize', 'noClear'];
/** Larger ones are for the raw ioctl: 128 GiB at 4 KiB a bit. */
const MAX_BITMAP_BYTES = 2 ** 22;

export abstract class HwptCalls extends IoasCalls {
  hwptAlloc(options: HwptAllocOptions): { hwptId: number } {
    checkKeys('hwptAlloc', options, HWPT_KEYS);
    const { devId, ptId, dataType = 0, data = new Uint8Array(0), faultId } = options;
    requireBytes(data, 'data');
    const flags = (options.flags ?? 0) | (faultId === undefined ? 0 : IOMMU_HWPT_FAULT_ID_VALID);
    const fields = { flags, devId, ptId, dataType, dataLen: data.byteLength, faultId: faultId ?? 0 };
    const dataUptr = this.copyToScratch(data);
    const out = this.call(IOMMU_HWPT_ALLOC, HwptAlloc, { ...fields, dataUptr }, (errno) =>
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
      dataUptr: this.copyToScratch(entries),
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

  /** Switching on starts from all clean. */
  hwptSetDirtyTracking(hwptId: number, enable: boolean): void {
    const flags = enable ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0;
    this.call(IOMMU_HWPT_SET_DIRTY_TRACKING, HwptSetDirtyTracking, { hwptId, flags });
  }

  /**
   * Which pages devices wrote to since they were last asked about.
   * @returns a bit for each page of the range, least significant bit of a byte first
   * @throws RangeError a bitmap of more than 4 MiB
   */
  hwptGetDirtyBitmap(options: DirtyBitmapOptions): Uint8Array {
    checkKeys('hwptGetDirtyBitmap', options, DIRTY_KEYS);
    const { hwptId, iova, noClear = false } = options;
    const length = byteSize(options.length, 'length');
    const pageSize = byteSize(options.pageSize ?? 4096, 'pageSize');
    const bytes = pageSize === 0n ? 0n : (length / pageSize + 7n) / 8n;
    if (bytes > MAX_BITMAP_BYTES) throw new RangeError(`length: a bitmap of ${bytes} bytes is too large`);
    const data = this.copyToScratch(new Uint8Array(Number(bytes)));
    const flags = noClear ? IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR : 0;
    const fields = { hwptId, flags, iova, length, pageSize, data };
    this.call(IOMMU_HWPT_GET_DIRTY_BITMAP, HwptGetDirtyBitmap, fields);
    return this.copyBack(data, Number(bytes));
  }

  /** @param options.dataType  ask for this type of data (INPUT_TYPE); absent: the driver's own */
  getHwInfo(options: { devId: number; dataType?: number }): {
    dataType: number;
    data: Uint8Array;
    capabilities: bigint;
    maxPasidLog2: number;
  } {
    checkKeys('getHwInfo', options, HW_INFO_KEYS);
    const dataUptr = this.scratch(SCRATCH_BYTES);
    const out = this.call(IOMMU_GET_HW_INFO, HwInfo, {
      flags: options.dataType === undefined ? 0 : IOMMU_HW_INFO_FLAG_INPUT_TYPE,
      devId: options.devId,
      dataLen: SCRATCH_BYTES,
      dataUptr,
      dataType: options.dataType ?? 0,
    });
    return {
      dataType: out.dataType,
      data: this.copyBack(dataUptr, Math.min(out.dataLen, SCRATCH_BYTES)),
      capabilities: out.outCapabilities,
      maxPasidLog2: out.outMaxPasidLog2,
    };
  }
}
