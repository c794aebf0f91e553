/**
 * What a typed call says beyond an error number: which argument was no argument at all, before the ioctl, and
 * which field an errno is about, after it. Only what the arguments and the IOAS prove is said; `ioctl` itself
 * knows nothing of this.
 */
import { EEXIST, EINVAL, ENOENT } from '../../uapi/abi/errno.js';
import type { IommufdErrorOptions } from '../../uapi/abi/iommufd-error.js';

/** What is known about an errno. */
export type Why = (errno: number) => IommufdErrorOptions;

/** @throws TypeError when the options of `call` have a key that it does not know */
export function checkKeys(call: string, options: object, known: readonly string[]): void {
  for (const key of Object.keys(options))
    if (!known.includes(key))
      throw new TypeError(`${call}: there is no option '${key}', only ${known.join(', ')}`);
}

/** The arguments of a map or copy under the names of its struct. */
export interface MapArguments {
  readonly readable: boolean;
  readonly writeable: boolean;
  readonly length: bigint;
  /** What has to be aligned: field and value. */
  readonly aligned: Readonly<Record<string, bigint>>;
  /** The field that says where, when the caller chose; then a refusal can be about that place. */
  readonly fixed: string | undefined;
  /** Whether everything that can be unaligned is in `aligned`. */
  readonly complete: boolean;
}

/**
 * Why a map or copy failed.
 * @param alignment  of the IOAS, bytes; -errno when it cannot be asked
 */
export function whyMap(errno: number, args: MapArguments, alignment: () => number): IommufdErrorOptions {
  const { readable, writeable, length, fixed, complete } = args;
  if (errno === EEXIST && fixed !== undefined) return { field: fixed, detail: 'part of the range is mapped' };
  if (errno !== EINVAL) return {};
  if (!readable && !writeable) return { field: 'flags', detail: 'neither readable nor writeable' };
  if (length === 0n) return { field: 'length', detail: 'must not be 0' };
  const align = alignment();
  if (align < 0) return {};
  for (const [field, value] of Object.entries({ length, ...args.aligned }))
    if (value % BigInt(align) !== 0n) return { field, detail: `must be a multiple of ${align} bytes` };
  if (fixed === undefined || !complete) return {};
  return { field: fixed, detail: 'the range is reserved or outside the aperture (ioasIovaRanges tells)' };
}

/** Why an unmap failed; `alignment` as in whyMap. */
export function whyUnmap(errno: number, length: bigint, alignment: () => number): IommufdErrorOptions {
  if (errno === EINVAL && length === 0n) return { field: 'length', detail: 'must not be 0' };
  if (errno !== ENOENT) return {};
  if (alignment() === -ENOENT) return { field: 'ioasId', detail: 'there is no such IOAS' };
  return { field: 'iova', detail: 'nothing is mapped there as a whole' };
}
