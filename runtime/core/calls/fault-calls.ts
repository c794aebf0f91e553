/** Typed calls on fault queues. */
import { IommufdError } from '../../../uapi/abi/iommufd-error.js';
import {
  FaultAlloc,
  HwptPageResponse,
  HwptPgfault,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMUFD_PAGE_RESP_INVALID,
  IOMMUFD_PAGE_RESP_SUCCESS,
} from '../../../uapi/iommufd/fault.js';
import { type OpenFile, POLLIN } from '../file-table.js';
import { FileCalls } from './file-calls.js';

/** A fault queue's file descriptor. */
export interface FaultQueue {
  readonly faultId: number;
  /** Descriptor number, as the ioctl returned it. */
  readonly fd: number;
  /**
   * Whole groups that fit in `maxBytes`; empty when nothing waits.
   * @throws IommufdError ESPIPE `maxBytes` is not whole records of 40 bytes | EINVAL the next group is larger
   */
  read(maxBytes: number): Uint8Array;
  /** Answers as bytes. @returns bytes taken @throws IommufdError ESPIPE | EINVAL the first is wrong */
  write(responses: Uint8Array): number;
  /** The faults of every group that waits, in order. Each group ends with the one that has LAST_PAGE. */
  faults(): HwptPgfault[];
  /** Answers a group: the device tries again, or gives up. @throws IommufdError EINVAL no such cookie */
  respond(cookie: number, answer: 'success' | 'invalid'): void;
  /** Whether a read would find something. */
  poll(): boolean;
  close(): void;
}

const RECORD_BYTES = 40;
/** Faults asked for at a time by faults(). */
const READ_FAULTS = 512;

export abstract class FaultCalls extends FileCalls {
  /** A queue that hwptAlloc's `faultId` can name. */
  faultQueueAlloc(): FaultQueue {
    const { outFaultId: faultId, outFaultFd: fd } = this.call(IOMMU_FAULT_QUEUE_ALLOC, FaultAlloc, {});
    const { files } = this.ctx.core.own;
    const file = files.get(fd) as OpenFile & Required<Pick<OpenFile, 'read' | 'write' | 'poll'>>;
    const read = (maxBytes: number): Uint8Array => {
      const records = file.read(maxBytes);
      if (typeof records === 'number') throw new IommufdError(-records, 'read');
      return records;
    };
    const write = (responses: Uint8Array): number => {
      const taken = file.write(responses);
      if (taken < 0) throw new IommufdError(-taken, 'write');
      return taken;
    };
    return {
      faultId,
      fd,
      read,
      write,
      faults: () => {
        const faults: HwptPgfault[] = [];
        while ((file.poll() & POLLIN) !== 0) {
          const records = read(READ_FAULTS * RECORD_BYTES);
          for (let at = 0; at < records.byteLength; at += RECORD_BYTES)
            faults.push(HwptPgfault.decode(records, at));
        }
        return faults;
      },
      respond: (cookie, answer) => {
        const code = answer === 'success' ? IOMMUFD_PAGE_RESP_SUCCESS : IOMMUFD_PAGE_RESP_INVALID;
        write(HwptPageResponse.toBytes({ cookie, code }));
      },
      poll: () => (file.poll() & POLLIN) !== 0,
      close: () => {
        if (files.get(fd) === file) files.close(fd);
      },
    };
  }
}
