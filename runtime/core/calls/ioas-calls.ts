/** Typed calls on an IOAS. */
import { EMSGSIZE } from '../../../uapi/abi/errno.js';
import { IommufdError } from '../../../uapi/abi/iommufd-error.js';
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
} from '../../../uapi/iommufd/ioas.js';
import {
  IOMMU_OPTION,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  Option,
} from '../../../uapi/iommufd/option.js';
import { type ByteSize, byteSize } from '../byte-size.js';
import { checkKeys, type MapArguments, type Why, whyMap, whyUnmap } from '../call-check.js';
import { IoctlCaller } from './ioctl-caller.js';

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

const MAP_KEYS = ['ioasId', 'userVa', 'length', 'iova', 'readable', 'writeable'];
const UNMAP_KEYS = ['ioasId', 'iova', 'length'];
const COPY_KEYS = ['dstIoasId', 'srcIoasId', 'srcIova', 'length', 'dstIova', 'readable', 'writeable'];
const RANGE_BYTES = 16;

export abstract class IoasCalls extends IoctlCaller {
  ioasAlloc(): { ioasId: number } {
    return { ioasId: this.call(IOMMU_IOAS_ALLOC, IoasAlloc, {}).outIoasId };
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
    const out = this.call(IOMMU_IOAS_MAP, IoasMap, fields, why);
    return { iova: out.iova };
  }

  /** @returns bytes unmapped */
  ioasUnmap(options: { ioasId: number; iova: bigint; length: ByteSize }): { length: bigint } {
    checkKeys('ioasUnmap', options, UNMAP_KEYS);
    const { ioasId, iova } = options;
    const length = byteSize(options.length, 'length');
    const why: Why = (errno) => whyUnmap(errno, length, () => this.#alignment(ioasId));
    const out = this.call(IOMMU_IOAS_UNMAP, IoasUnmap, { ioasId, iova, length }, why);
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
    const out = this.call(IOMMU_IOAS_COPY, IoasCopy, fields, why);
    return { iova: out.dstIova };
  }

  /** `last` is inclusive. */
  ioasIovaRanges(ioasId: number): { ranges: { start: bigint; last: bigint }[]; alignment: bigint } {
    let numIovas = 64;
    for (;;) {
      const allowedIovas = this.scratch(numIovas * RANGE_BYTES);
      const bytes = IoasIovaRanges.toBytes({ size: IoasIovaRanges.size, ioasId, numIovas, allowedIovas });
      const ret = this.ioctl(IOMMU_IOAS_IOVA_RANGES, bytes);
      const found = IoasIovaRanges.getField(bytes, 'numIovas');
      if (ret < 0 && found > numIovas) {
        numIovas = found;
        continue;
      }
      if (ret < 0) throw new IommufdError(-ret, 'IOMMU_IOAS_IOVA_RANGES');
      const array = this.copyBack(allowedIovas, found * RANGE_BYTES);
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
    this.call(IOMMU_IOAS_ALLOW_IOVAS, IoasAllowIovas, {
      ioasId,
      numIovas: ranges.length,
      allowedIovas: this.copyToScratch(array),
    });
  }

  /** @param objectId  an IOAS for IOMMU_OPTION_HUGE_PAGES; 0 for an option of the whole fd */
  getOption(optionId: number, objectId = 0): bigint {
    return this.call(IOMMU_OPTION, Option, { optionId, objectId, op: IOMMU_OPTION_OP_GET }).val64;
  }

  setOption(optionId: number, val64: bigint, objectId = 0): void {
    this.call(IOMMU_OPTION, Option, { optionId, objectId, op: IOMMU_OPTION_OP_SET, val64 });
  }

  /** What addresses in an IOAS must be multiples of, in bytes; or -errno. */
  #alignment(ioasId: number): number {
    const bytes = IoasIovaRanges.toBytes({ size: IoasIovaRanges.size, ioasId });
    // Asked to explain an error: that is no place for another.
    const { failNth } = this.ctx.core.current;
    const ret = failNth.aside(() => this.ioctl(IOMMU_IOAS_IOVA_RANGES, bytes));
    // No room for the ranges themselves: the rest is filled in all the same.
    if (ret < 0 && ret !== -EMSGSIZE) return ret;
    return Number(IoasIovaRanges.getField(bytes, 'outIovaAlignment'));
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
