/**
 * Calls as binary records, one after the other: what a program is fed with, or writes without formatting anything.
 *
 *     | cmd u32 | length u32 | length bytes: the struct as the caller passed it | next record
 *
 * Little-endian. The second byte of a file of records is the type of its first request, 0x3b, and its third and
 * fourth are 0, which no text is like.
 */
import { IOMMUFD_TYPE } from '../../uapi/abi/ioctl.js';
import { u32At } from '../../uapi/abi/struct.js';
import { type IoctlCall, TRACE_BYTES_MAX, type TraceProblem } from './call.js';

const HEADER_BYTES = 8;

/** @param start  the first 4 bytes of a file, or more */
export function looksBinary(start: Uint8Array): boolean {
  return start.byteLength >= 4 && start[1] === IOMMUFD_TYPE && start[2] === 0 && start[3] === 0;
}

export function encodeRecord({ cmd, in: bytes = new Uint8Array(0) }: IoctlCall): Uint8Array {
  const record = new Uint8Array(HEADER_BYTES + bytes.byteLength);
  const view = new DataView(record.buffer);
  view.setUint32(0, cmd, true);
  view.setUint32(4, bytes.byteLength, true);
  record.set(bytes, HEADER_BYTES);
  return record;
}

/** Takes records apart that arrive in pieces. */
export class RecordReader {
  #rest = new Uint8Array(0);
  #offset = 0;
  #failed = false;

  /** After a problem, which tells the offset, nothing more can be found. */
  push(piece: Uint8Array): (IoctlCall | TraceProblem)[] {
    if (this.#failed) return [];
    let bytes = new Uint8Array(this.#rest.byteLength + piece.byteLength);
    bytes.set(this.#rest);
    bytes.set(piece, this.#rest.byteLength);
    const found: (IoctlCall | TraceProblem)[] = [];
    while (bytes.byteLength >= HEADER_BYTES) {
      const length = u32At(bytes, 4);
      if (length > TRACE_BYTES_MAX) {
        this.#failed = true;
        found.push({ problem: `the record at byte ${this.#offset} claims ${length} bytes` });
        break;
      }
      const end = HEADER_BYTES + length;
      if (bytes.byteLength < end) break;
      found.push({ cmd: u32At(bytes, 0), in: bytes.slice(HEADER_BYTES, end), result: null });
      bytes = bytes.subarray(end);
      this.#offset += end;
    }
    this.#rest = bytes.slice();
    return found;
  }

  end(): TraceProblem[] {
    if (this.#failed || this.#rest.byteLength === 0) return [];
    return [{ problem: `the record at byte ${this.#offset} ends early` }];
  }
}
