/**
 * What every typed call of an open iommufd sits on: the raw ioctl, and user memory to pass arrays through.
 */
import { EBADF } from '../../../uapi/abi/errno.js';
import { IommufdError } from '../../../uapi/abi/iommufd-error.js';
import type { Fields, Struct, StructInput, StructValue } from '../../../uapi/abi/struct.js';
import { IOCTLS } from '../../../uapi/iommufd/ioctl-table.js';
import type { Why } from '../call-check.js';
import type { IommufdCtx } from '../ctx.js';
import { dispatch } from '../dispatch.js';

/** Grown when a call needs more. */
export const SCRATCH_BYTES = 4096;

export abstract class IoctlCaller {
  /** Descriptor number. */
  readonly fd: number;
  readonly ctx: IommufdCtx;
  #scratchVa = -1n;
  #scratchBytes = 0;
  #open = true;

  constructor(ctx: IommufdCtx, fd: number) {
    this.ctx = ctx;
    this.fd = fd;
  }

  /** N of the region `objects:N`: what `SharedIommufd` takes on another thread. */
  get index(): number {
    return this.ctx.index;
  }

  /** Not closed yet: anything else is -EBADF. */
  protected get open(): boolean {
    return this.#open;
  }

  /**
   * ioctl(2).
   * @param bytes  the caller's struct, outputs are written in place
   * @returns 0 | -errno
   */
  ioctl(cmd: number, bytes: Uint8Array): number {
    return this.#open ? dispatch(this.ctx, cmd, bytes) : -EBADF;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    const { core } = this.ctx;
    if (this.#scratchBytes > 0) core.context.user.free(this.#scratchVa, this.#scratchBytes);
    this.#scratchBytes = 0;
    core.own.files.close(this.fd);
  }

  /** @returns the struct after the ioctl @throws IommufdError with what `why` knows of the errno */
  protected call<F extends Fields>(
    cmd: number,
    struct: Struct<F>,
    fields: Partial<StructInput<F>>,
    why?: Why,
  ): StructValue<F> {
    const bytes = struct.toBytes({ ...fields, size: struct.size } as Partial<StructInput<F>>);
    const ret = this.ioctl(cmd, bytes);
    if (ret < 0) {
      const name = IOCTLS.find((row) => row.cmd === cmd)?.name ?? struct.cName;
      throw new IommufdError(-ret, name, why?.(-ret));
    }
    return struct.decode(bytes);
  }

  /** User address of at least `bytes` bytes, good until the next call of this. */
  protected scratch(bytes: number): bigint {
    if (bytes <= this.#scratchBytes) return this.#scratchVa;
    const { user } = this.ctx.context;
    const size = Math.max(SCRATCH_BYTES, 2 ** Math.ceil(Math.log2(bytes)));
    const va = user.alloc(size);
    if (this.#scratchBytes > 0) user.free(this.#scratchVa, this.#scratchBytes);
    this.#scratchVa = va;
    this.#scratchBytes = size;
    return va;
  }

  protected copyToScratch(data: Uint8Array): bigint {
    if (data.byteLength === 0) return 0n;
    const va = this.scratch(data.byteLength);
    this.ctx.context.user.copyOut(va, data);
    return va;
  }

  protected copyBack(va: bigint, bytes: number): Uint8Array {
    const data = new Uint8Array(bytes);
    this.ctx.context.user.copyIn(va, data);
    return data;
  }
}
