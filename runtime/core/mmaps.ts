/**
 * What of an iommufd can be mapped: pages of hardware that a driver lends to user space with one of its objects.
 * struct iommufd_mmap, ictx->mt_mmap.
 *
 *   offset  0        0x1000             0x11000
 *           | never  | page of object 7 | page of object 9 |  ...   lowest gap first
 *
 * Only a whole entry can be mapped, by its exact offset and length. A mapping is a use of the owner, so that
 * IOMMU_DESTROY of it is -EBUSY until munmap, and of the open file.
 *
 * @source drivers/iommu/iommufd/driver.c _iommufd_alloc_mmap, _iommufd_destroy_mmap, main.c iommufd_fops_mmap
 */
import { bug } from '../../hw/memory/bug.js';
import { EINVAL, ENOMEM, ENXIO, EPERM } from '../../uapi/abi/errno.js';
import type { IommufdCtx } from './ctx.js';
import type { Mapping } from './file-table.js';
import type { IommufdObject } from './iommufd-object.js';

const PAGE = 4096;

interface MmapEntry {
  readonly owner: IommufdObject;
  readonly offset: number;
  readonly bytes: number;
  /** Linear offset of the page in the machine's memory. */
  readonly linear: number;
}

export class Mmaps {
  readonly #ctx: IommufdCtx;
  /** By offset. */
  readonly #entries: MmapEntry[] = [];

  constructor(ctx: IommufdCtx) {
    this.#ctx = ctx;
  }

  /**
   * @param linear  page-aligned
   * @param bytes   whole pages, more than 0
   * @returns the offset to give to mmap() | -EINVAL | -ENOMEM
   */
  alloc(owner: IommufdObject, linear: number, bytes: number): number {
    if (linear % PAGE !== 0 || bytes <= 0 || bytes % PAGE !== 0) return -EINVAL;
    const { core } = this.#ctx;
    if (core.allocFails('mmap entry') || core.allocFails('mmap offset')) return -ENOMEM;
    // Not the first page, so that 0 is never an offset.
    let offset = PAGE;
    let index = 0;
    while (index < this.#entries.length && this.#entries[index]!.offset < offset + bytes) {
      offset = this.#entries[index]!.offset + this.#entries[index]!.bytes;
      index++;
    }
    this.#entries.splice(index, 0, { owner, offset, bytes, linear });
    return offset;
  }

  free(owner: IommufdObject, offset: number): void {
    const index = this.#entries.findIndex((entry) => entry.offset === offset);
    if (index < 0 || this.#entries[index]!.owner !== owner) bug(`mmap offset ${offset} is not there to free`);
    this.#entries.splice(index, 1);
  }

  /**
   * mmap(2) of the iommufd.
   * @param bytes   rounded up to whole pages, as mmap does
   * @param shared  MAP_SHARED
   * @param exec    PROT_EXEC
   * @returns what is seen there | -EINVAL unaligned, empty, private | -EPERM executable | -ENXIO not one entry
   */
  map(offset: bigint, bytes: number, shared: boolean, exec: boolean): Mapping | number {
    if (offset < 0n || offset % BigInt(PAGE) !== 0n || bytes <= 0) return -EINVAL;
    if (!shared) return -EINVAL;
    if (exec) return -EPERM;
    const length = Math.ceil(bytes / PAGE) * PAGE;
    const entry = this.#entries.find((at) => BigInt(at.offset) === offset);
    if (entry === undefined || entry.bytes !== length) return -ENXIO;
    const { owner, linear } = entry;
    // Being destroyed.
    if (this.#ctx.objects.users(owner.id) === 0) return -ENXIO;
    owner.addUser();
    this.#ctx.getFile();
    let mapped = true;
    return {
      linear,
      bytes: length,
      unmap: () => {
        if (!mapped) return;
        mapped = false;
        owner.dropUser();
        this.#ctx.putFile();
      },
    };
  }
}
