/**
 * /proc/PID/task/TID/fail-nth: writing N makes the process's Nth allocation from here on fail; reading tells what
 * is left to count. For programs that sweep a scenario until nothing fails any more.
 *
 * @source fs/proc/base.c proc_fail_nth_write, proc_fail_nth_read
 */
import { EINVAL, ESRCH } from '../../uapi/abi/errno.js';
import type { FailNth } from '../core/fail-nth.js';
import type { PositionedFile } from './served-file.js';

/** No decimal number of an int is longer, with its newline. */
const MAX_TEXT = 12;

export class FailNthFile implements PositionedFile {
  readonly #of: () => FailNth | undefined;

  /** @param of  the process's counter, undefined when it is gone */
  constructor(of: () => FailNth | undefined) {
    this.#of = of;
  }

  readAt(offset: number, maxBytes: number): Uint8Array | number {
    const counter = this.#of();
    if (counter === undefined) return -ESRCH;
    return new TextEncoder().encode(`${counter.left}\n`).subarray(offset, offset + maxBytes);
  }

  writeAt(_offset: number, bytes: Uint8Array): number {
    const counter = this.#of();
    if (counter === undefined) return -ESRCH;
    const text = new TextDecoder().decode(bytes).trim();
    if (bytes.byteLength > MAX_TEXT || !/^\d+$/.test(text) || Number(text) > 0x7fff_ffff) return -EINVAL;
    counter.arm(Number(text));
    return bytes.byteLength;
  }
}
