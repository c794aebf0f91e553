/** Typed calls on memory that is named by a descriptor, and on who pays for what is mapped. */
import { EBADF, ENODEV } from '../../../uapi/abi/errno.js';
import type { IommufdErrorOptions } from '../../../uapi/abi/iommufd-error.js';
import {
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IoasChangeProcess,
  IoasMapFile,
} from '../../../uapi/iommufd/ioas.js';
import { type ByteSize, byteSize } from '../byte-size.js';
import { checkKeys } from '../call-check.js';
import { AccessCalls } from './access-calls.js';

export interface MapFileOptions {
  readonly ioasId: number;
  /** Descriptor of a memfd (IommufdCore.memfd) or dma-buf. */
  readonly fd: number;
  /** Bytes into the file. Default 0. */
  readonly start?: bigint;
  readonly length: ByteSize;
  /** Given: map exactly there (FIXED_IOVA). Absent: the core chooses. */
  readonly iova?: bigint;
  /** Default true. */
  readonly readable?: boolean;
  /** Default true. */
  readonly writeable?: boolean;
}

const MAP_FILE_KEYS = ['ioasId', 'fd', 'start', 'length', 'iova', 'readable', 'writeable'];

function whyMapFile(errno: number): IommufdErrorOptions {
  if (errno === EBADF) return { field: 'fd', detail: 'no such descriptor' };
  if (errno === ENODEV) return { field: 'fd', detail: 'the dma-buf was taken back' };
  return {};
}

export abstract class FileCalls extends AccessCalls {
  ioasMapFile(options: MapFileOptions): { iova: bigint } {
    checkKeys('ioasMapFile', options, MAP_FILE_KEYS);
    const { ioasId, fd, start = 0n, iova, readable = true, writeable = true } = options;
    const flags =
      (iova === undefined ? 0 : IOMMU_IOAS_MAP_FIXED_IOVA) |
      (readable ? IOMMU_IOAS_MAP_READABLE : 0) |
      (writeable ? IOMMU_IOAS_MAP_WRITEABLE : 0);
    const length = byteSize(options.length, 'length');
    const fields = { flags, ioasId, fd, start, length, iova: iova ?? 0n };
    return { iova: this.call(IOMMU_IOAS_MAP_FILE, IoasMapFile, fields, whyMapFile).iova };
  }

  /** This program pays for what another has mapped from files, in every IOAS of this iommufd. */
  ioasChangeProcess(): void {
    this.call(IOMMU_IOAS_CHANGE_PROCESS, IoasChangeProcess, {});
  }
}
