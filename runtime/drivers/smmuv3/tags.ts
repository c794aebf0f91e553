/**
 * IDs that tag an SMMU's cached translations: ASIDs (stage 1) and VMIDs (stage 2). Each SMMU has its own two
 * sets, so the same number on two SMMUs means two things. 0 is never handed out: VMID 0 tags the host's own
 * stage 1, and ASID 0 is what an uninitialised CD would carry.
 *
 * The rule that the rest of the driver keeps: an ID is given back only after everything tagged with it has
 * been invalidated on that SMMU and a SYNC completed. `onAllocate` lets a checker look for left-overs.
 */
import { bug } from '../../../hw/memory/bug.js';
import { ENOSPC } from '../../../uapi/abi/errno.js';

export type TagKind = 'asid' | 'vmid';

/** Called for every ID handed out: no translation may carry it on that SMMU at this moment. */
export type OnAllocateTag = (iommu: number, kind: TagKind, id: number) => void;

export class TagAllocator {
  readonly #iommu: number;
  readonly #kind: TagKind;
  readonly #end: number;
  readonly #used = new Set<number>();
  readonly #onAllocate: OnAllocateTag | undefined;
  /** Everything below is in use. */
  #lowest = 1;

  /** @param bits the SMMU's ASID or VMID size: 8 or 16 */
  constructor(iommu: number, kind: TagKind, bits: number, onAllocate?: OnAllocateTag) {
    this.#iommu = iommu;
    this.#kind = kind;
    this.#end = 2 ** bits;
    this.#onAllocate = onAllocate;
  }

  /** The lowest free ID: reuse is soon, so that a missing invalidation shows soon. @returns ID | -ENOSPC */
  allocate(): number {
    let id = this.#lowest;
    while (id < this.#end && this.#used.has(id)) id++;
    if (id === this.#end) return -ENOSPC;
    this.#lowest = id + 1;
    this.#used.add(id);
    this.#onAllocate?.(this.#iommu, this.#kind, id);
    return id;
  }

  /** Only after the SMMU has forgotten it. */
  free(id: number): void {
    if (!this.#used.delete(id)) bug(`${this.#kind} ${id} of SMMU ${this.#iommu} is freed twice`);
    this.#lowest = Math.min(this.#lowest, id);
  }

  has(id: number): boolean {
    return this.#used.has(id);
  }

  get count(): number {
    return this.#used.size;
  }
}
