/**
 * The one error class of the typed public API.
 *
 * `fd.ioctl(cmd, bytes)` returns `0 | -errno` as the system call does; the typed calls over it throw this.
 */

import { errnoName } from './errno.js';

export interface IommufdErrorOptions {
  /** The struct field at fault, in the codec's spelling (`'ioasId'`), where one field can be named. */
  readonly field?: string;
  /** What was wrong, for a human; appended to the message. */
  readonly detail?: string;
  readonly cause?: unknown;
}

export class IommufdError extends Error {
  override readonly name = 'IommufdError';
  /** Positive error number, as in `22`. */
  readonly errno: number;
  /** Its symbolic name, as in `'EINVAL'`. */
  readonly code: string;
  /** The ioctl or call that failed, as in `'IOMMU_IOAS_MAP'`. */
  readonly syscall: string;
  declare readonly field?: string;

  /**
   * @param errno    positive error number; inner functions return it negated, so negate first
   * @param syscall  name of the ioctl or call
   * @throws RangeError when `errno` is not a positive integer, which is always a lost minus sign
   */
  constructor(errno: number, syscall: string, options: IommufdErrorOptions = {}) {
    if (!Number.isInteger(errno) || errno <= 0) {
      throw new RangeError(`IommufdError: errno must be a positive integer, got ${errno}`);
    }
    const code = errnoName(errno);
    const where = options.field === undefined ? syscall : `${syscall} (${options.field})`;
    const why = options.detail === undefined ? '' : `: ${options.detail}`;
    super(`${code}: ${where}${why}`, 'cause' in options ? { cause: options.cause } : undefined);
    this.errno = errno;
    this.code = code;
    this.syscall = syscall;
    if (options.field !== undefined) this.field = options.field;
  }
}
