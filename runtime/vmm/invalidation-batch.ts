/**
 * A vIOMMU's pending invalidations: guest commands gathered until a SYNC, then handed over in one
 * IOMMU_HWPT_INVALIDATE on the calling thread. The commands lie in scratch memory, as user space writes them.
 *
 * Each entry remembers where in the guest's queue it came from, so that a refusal (entry_num says how many were
 * handled) becomes an error at exactly that command.
 */
import { COMMAND_WORDS } from '../../hw/smmuv3/command.js';
import {
  HwptInvalidate,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
} from '../../uapi/iommufd/hwpt-invalidate.js';
import { BATCH_ENTRIES, BATCH_ENTRY_BYTES, type ScratchArea, type VmmTransport } from './transport.js';

const ENTRY_NUM = HwptInvalidate.offsets.entryNum;

export class InvalidationBatch {
  readonly #transport: VmmTransport;
  /** Word index of entry 0. */
  readonly #words: number;
  readonly #origin = new Float64Array(BATCH_ENTRIES);
  readonly #request: Uint8Array;
  readonly #view: DataView;
  #count = 0;
  #failedOrigin = -1;

  constructor(transport: VmmTransport, viommuId: number, area: ScratchArea) {
    this.#transport = transport;
    this.#words = area.linear >>> 2;
    this.#request = HwptInvalidate.toBytes({
      size: HwptInvalidate.size,
      hwptId: viommuId,
      dataUptr: area.va,
      dataType: IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
      entryLen: BATCH_ENTRY_BYTES,
    });
    this.#view = new DataView(this.#request.buffer);
  }

  get count(): number {
    return this.#count;
  }

  get full(): boolean {
    return this.#count === BATCH_ENTRIES;
  }

  /**
   * Adds one command; the batch must not be full.
   * @param origin  which command of the guest's queue it is, counted up without wrapping
   */
  push(command: Uint32Array, origin: number): void {
    const at = this.#words + this.#count * COMMAND_WORDS;
    const { u32 } = this.#transport.memory;
    for (let i = 0; i < COMMAND_WORDS; i++) u32[at + i] = command[i]!;
    this.#origin[this.#count++] = origin;
  }

  /**
   * Issues what was gathered and empties the batch.
   * @returns 0 | -errno of IOMMU_HWPT_INVALIDATE; then `failedOrigin` is the first command not handled
   */
  flush(): number {
    const count = this.#count;
    if (count === 0) return 0;
    this.#view.setUint32(ENTRY_NUM, count, true);
    const status = this.#transport.invalidate(this.#request);
    this.#count = 0;
    if (status >= 0) return 0;
    const handled = Math.min(this.#view.getUint32(ENTRY_NUM, true), count - 1);
    this.#failedOrigin = this.#origin[handled]!;
    return status;
  }

  get failedOrigin(): number {
    return this.#failedOrigin;
  }

  /** Forgets what was gathered. */
  clear(): void {
    this.#count = 0;
  }
}
