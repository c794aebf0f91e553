/** One ioctl in flight: the caller's bytes, and the object it is creating. struct iommufd_ucmd. */
import { EFAULT } from '../../uapi/abi/errno.js';
import type { Fields, Struct, StructInput, StructValue } from '../../uapi/abi/struct.js';
import type { IommufdCtx } from './ctx.js';
import type { IommufdObject } from './iommufd-object.js';

export class Ucmd<F extends Fields = Fields> {
  readonly ctx: IommufdCtx;
  readonly struct: Struct<F>;
  readonly cmd: StructValue<F>;
  /** Set by the handler once it has made an object; the dispatcher publishes or aborts it. */
  newObject: IommufdObject | null = null;
  readonly #bytes: Uint8Array;
  readonly #userSize: number;

  constructor(ctx: IommufdCtx, struct: Struct<F>, cmd: StructValue<F>, bytes: Uint8Array, userSize: number) {
    this.ctx = ctx;
    this.struct = struct;
    this.cmd = cmd;
    this.#bytes = bytes;
    this.#userSize = userSize;
  }

  /** Copies `cmd` back, as much of it as the caller's struct holds (iommufd_ucmd_respond). @returns 0 | -EFAULT */
  respond(): number {
    const { struct } = this;
    if (this.ctx.core.current.structReadOnly) return -EFAULT;
    if (this.#userSize >= struct.size) {
      struct.encode(this.cmd as StructInput<F>, this.#bytes);
      return 0;
    }
    const whole = struct.toBytes(this.cmd as Partial<StructInput<F>>);
    this.#bytes.set(whole.subarray(0, this.#userSize));
    return 0;
  }
}

/** The Ucmd of a struct codec: `UcmdOf<typeof IoasMap>`. */
export type UcmdOf<S> = S extends Struct<infer F> ? Ucmd<F> : never;
