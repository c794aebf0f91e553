/** One IOMMU_TEST_CMD in flight: what its operations read, and where they put their outputs. */
import { bug } from '../../hw/memory/bug.js';
import type { Fields, Struct, StructInput, StructValue } from '../../uapi/abi/struct.js';
import type { TestCmd } from '../../uapi/iommufd/test.js';
import type { IommufdCore } from '../core/core.js';
import type { IommufdCtx } from '../core/ctx.js';
import type { UcmdOf } from '../core/ucmd.js';
import type { MockIommu } from '../drivers/mock/iommu.js';

export class TestCall {
  readonly ctx: IommufdCtx;
  /** The object, or the descriptor, that the operation is about. */
  readonly id: number;
  readonly #ucmd: UcmdOf<typeof TestCmd>;
  readonly #payload: Uint8Array;

  constructor(ucmd: UcmdOf<typeof TestCmd>) {
    this.ctx = ucmd.ctx;
    this.id = ucmd.cmd.id;
    this.#ucmd = ucmd;
    this.#payload = Uint8Array.from(ucmd.cmd.payload);
  }

  /** There is one wherever there is the ioctl. */
  get mock(): MockIommu {
    return this.ctx.context.mock ?? bug('the test ioctl without its mock IOMMU');
  }

  get core(): IommufdCore {
    return this.ctx.core;
  }

  /** The operation's own struct. */
  read<F extends Fields>(struct: Struct<F>): StructValue<F> {
    return struct.decode(this.#payload);
  }

  /** Gives the struct back with some fields changed. @returns 0 | -EFAULT */
  respond<F extends Fields>(struct: Struct<F>, outputs: Partial<StructInput<F>>): number {
    for (const [field, value] of Object.entries(outputs))
      struct.put(this.#payload, field, value as StructInput<F>[string]);
    this.#ucmd.cmd.payload = [...this.#payload];
    return this.#ucmd.respond();
  }
}
