/**
 * One system call on an iommufd or VFIO file as a trace knows it. The same value has a line form and a JSON form
 * (`format.ts`), both of which lead back to it (`parse.ts`).
 */

export interface IoctlCall {
  readonly pid?: number;
  /** When it began, as whoever wrote the trace put it: `23:58:46.382144`. */
  readonly time?: string;
  readonly fd?: number;
  /** What `fd` is open on: `/dev/iommu`. */
  readonly path?: string;
  /** Request number, 32 bits. */
  readonly cmd: number;
  /** The third argument: of calls that take a number, and where the struct's bytes are not known, its address. */
  readonly arg?: bigint;
  /** The caller's struct before the call. */
  readonly in?: Uint8Array;
  /** And after it. Absent: nothing was written. */
  readonly out?: Uint8Array;
  /** What a pointer in the struct leads to, before the call: a vendor's struct, an array. */
  readonly data?: Uint8Array;
  /** And what the call put there. */
  readonly outData?: Uint8Array;
  /** >= 0 | -errno; null: it did not return. */
  readonly result: number | null;
}

/** Why a text is no call. */
export interface TraceProblem {
  readonly problem: string;
}

export function isProblem(value: object): value is TraceProblem {
  return 'problem' in value;
}

/** Thrown inside the parser alone. */
export class TraceError extends Error {}

/** The longest struct or array that a trace carries, in bytes: what follows is left out, and refused. */
export const TRACE_BYTES_MAX = 64 * 1024;
