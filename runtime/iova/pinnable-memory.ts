/** Where pages come from: the memory of a process, or a file. */

/** Frames in a row. */
export interface Run {
  pfn: number;
  pages: number;
}

export interface PinnableMemory {
  /**
   * @param page   number of the page in the address space or file
   * @param out    := the frames from there on, as far as they are in a row
   * @param write  it will be written to (FOLL_WRITE)
   * @returns 0 | -EFAULT | -EINVAL a file without such a page
   */
  runAt(page: number, out: Run, write?: boolean): number;
  pin(pfn: number, pages: number): void;
  unpin(pfn: number, pages: number): void;
  /** The pages that were made of it are gone. */
  put?(): void;
}
