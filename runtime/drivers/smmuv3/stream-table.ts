/**
 * The stream table: linear when an SMMU has few StreamIDs, else two levels with 256 STEs a leaf, made when
 * the first device in its range appears. [IHI0070] 3.3. An STE that nobody has written aborts.
 *
 *   STRTAB_BASE -> | L1 desc | ... | L1 desc |      sid >> 8
 *                       |
 *                       +-> | STE | ... | STE |     sid & 255
 */
import type { BugSwitches } from '../../../hw/bugs/bug-switches.js';
import type { FrameAllocator } from '../../../hw/memory/frame-allocator.js';
import { FRAME_BYTES, FRAME_LG2 } from '../../../hw/memory/frames-layout.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { getQuad } from '../../../hw/smmuv3/bitfield.js';
import { STRTAB_BASE_CFG, STRTAB_FMT_2LVL, STRTAB_FMT_LINEAR } from '../../../hw/smmuv3/registers.js';
import { L1STD, L1STD_BYTES, STE_BYTES } from '../../../hw/smmuv3/ste.js';
import { ENOMEM, ERANGE } from '../../../uapi/abi/errno.js';
import { ENTRY_QUADS } from './entry-writer.js';
import { abortSte } from './ste.js';

const SPLIT = 8;
const LEAF_STES = 2 ** SPLIT;
const LEAF_LG2 = SPLIT + 6;
/** More first-level descriptors than this are not worth their memory: 25 bits of StreamID. */
const MAX_L1_LG2 = 17;

export interface StreamTableOptions {
  readonly memory: MachineMemory;
  readonly frames: FrameAllocator;
  readonly sidBits: number;
  readonly twoLevel: boolean;
  /** CFGI_STE with Leaf = 0 for the first use of a leaf, and SYNC. */
  invalidate(sid: number): number;
  readonly bugs?: BugSwitches | undefined;
}

export class StreamTable {
  readonly #options: StreamTableOptions;
  readonly #root: number;
  readonly #sidLg2: number;
  readonly #leaves = new Map<number, number>();

  private constructor(options: StreamTableOptions, root: number, sidLg2: number) {
    this.#options = options;
    this.#root = root;
    this.#sidLg2 = sidLg2;
    if (!options.twoLevel) this.#fill(this.#linear(root * FRAME_BYTES), 2 ** sidLg2);
  }

  /** @returns a table in which every stream aborts | -ENOMEM */
  static create(options: StreamTableOptions): StreamTable | number {
    const sidLg2 = options.twoLevel
      ? Math.min(options.sidBits, MAX_L1_LG2 + SPLIT)
      : Math.min(options.sidBits, 16);
    const bytes = options.twoLevel ? 2 ** (sidLg2 - SPLIT) * L1STD_BYTES : 2 ** sidLg2 * STE_BYTES;
    const lg2 = Math.max(FRAME_LG2, Math.log2(bytes));
    const root = options.frames.alloc(lg2);
    if (root < 0) return -ENOMEM;
    options.frames.zero(root, 2 ** (lg2 - FRAME_LG2));
    return new StreamTable(options, root, sidLg2);
  }

  /** For STRTAB_BASE: byte PA. */
  get base(): number {
    return this.#root * FRAME_BYTES;
  }

  /** For STRTAB_BASE_CFG. */
  get config(): number {
    let cfg = STRTAB_BASE_CFG.LOG2SIZE.put(0, this.#sidLg2);
    if (!this.#options.twoLevel) return STRTAB_BASE_CFG.FMT.put(cfg, STRTAB_FMT_LINEAR);
    cfg = STRTAB_BASE_CFG.SPLIT.put(cfg, SPLIT);
    return STRTAB_BASE_CFG.FMT.put(cfg, STRTAB_FMT_2LVL);
  }

  /** Linear offset of a stream's STE, making its leaf. @returns offset | -ERANGE | -ENOMEM | -ETIMEDOUT */
  ensure(sid: number): number {
    if (!(sid >= 0 && sid < 2 ** this.#sidLg2)) return -ERANGE;
    if (!this.#options.twoLevel) return this.#linear(this.base) + sid * STE_BYTES;
    const index = Math.floor(sid / LEAF_STES);
    let leaf = this.#leaves.get(index);
    if (leaf === undefined) {
      const pfn = this.#options.frames.alloc(LEAF_LG2);
      if (pfn < 0) return -ENOMEM;
      leaf = pfn * FRAME_BYTES;
      const { words } = this.#options.memory;
      const late = this.#options.bugs?.['l1-before-l2-table'] === true;
      // Its STEs are complete before the descriptor, a single 64-bit store, lets the SMMU see them.
      if (!late) this.#fill(this.#linear(leaf), LEAF_STES);
      if (!late) words.dmaWmb();
      const descriptor = new Uint32Array(2);
      L1STD.Span.put(descriptor, SPLIT + 1);
      L1STD.L2Ptr.put(descriptor, leaf);
      words.store64(this.#linear(this.base) + index * L1STD_BYTES, getQuad(descriptor, 0));
      if (late) this.#fill(this.#linear(leaf), LEAF_STES);
      this.#leaves.set(index, leaf);
      const status = this.#options.invalidate(sid);
      if (status < 0) return status;
    }
    return this.#linear(leaf) + (sid % LEAF_STES) * STE_BYTES;
  }

  #fill(linear: number, count: number): void {
    const { words } = this.#options.memory;
    const ste = abortSte();
    for (let i = 0; i < count; i++)
      for (let word = 0; word < ENTRY_QUADS; word++)
        words.store64(linear + i * STE_BYTES + word * 8, ste[word]!);
  }

  #linear(pa: number): number {
    return this.#options.memory.linearOf(pa, 8);
  }
}
