/**
 * The in-kernel users of an IOAS: who must be told when something of it goes, and what alignment they need.
 * io_pagetable's access_list.
 */
import { bug } from '../../hw/memory/bug.js';

/** What an io_pagetable knows of an access: struct iommufd_access. */
export interface IoptAccess {
  /** Bytes: a page for one that pins, else 1. */
  readonly iovaAlignment: number;
  /** Let go of every pin that touches [iova, iova + length). */
  notifyUnmap(iova: bigint, length: bigint): void;
}

export class AccessList {
  /** By ID, the lowest free one is used next; undefined where there is none. */
  readonly #accesses: (IoptAccess | undefined)[] = [];

  /** The largest alignment that one of them asks for, bytes. */
  get alignment(): number {
    let alignment = 1;
    for (const access of this.#accesses)
      if (access !== undefined) alignment = Math.max(alignment, access.iovaAlignment);
    return alignment;
  }

  add(access: IoptAccess): void {
    const free = this.#accesses.indexOf(undefined);
    if (free < 0) this.#accesses.push(access);
    else this.#accesses[free] = access;
  }

  remove(access: IoptAccess): void {
    const id = this.#accesses.indexOf(access);
    if (id < 0) bug('removing an access that is not of this io_pagetable');
    this.#accesses[id] = undefined;
    while (this.#accesses.length > 0 && this.#accesses.at(-1) === undefined) this.#accesses.pop();
  }

  /** Accesses may come and go meanwhile. */
  notifyUnmap(iova: bigint, length: bigint): void {
    for (let id = 0; id < this.#accesses.length; id++) this.#accesses[id]?.notifyUnmap(iova, length);
  }
}
