/**
 * A memfd of the program that the machine lives in: pages that belong to a file and not to an address. Whoever maps
 * one, in user memory (`UserMemory.map`) or for DMA (IOMMU_IOAS_MAP_FILE), sees the same frames.
 *
 *   descriptor --.
 *   IoptPages ---+--> MemFile ---- runs ----> frames      user memory that maps it holds the frames themselves
 *
 * The frames go when the last descriptor and the last IoptPages are gone, and nothing has them mapped.
 *
 * @source mm/gup.c memfd_pin_folios
 */
import { EINVAL } from '../uapi/abi/errno.js';
import type { OpenFile } from './core/file-table.js';
import type { UserFile } from './core/user-file.js';
import type { Run } from './iova/pinnable-memory.js';

const PAGE = 4096;

/** Who allocates and counts frames. */
export interface FrameHolder {
  pin(pfn: number, pages: number): void;
  unpin(pfn: number, pages: number): void;
  /** Gives up a hold that is no pin: that of a mapping, or of a file. */
  drop(pfn: number, pages: number): void;
}

let made = 0;

export class MemFile implements UserFile {
  readonly identity: string;
  readonly sizeBytes: bigint;
  readonly writable = true;
  readonly #frames: FrameHolder;
  /** In the order of the file. */
  readonly #runs: readonly Run[];
  /** Page of the file where each run begins. */
  readonly #starts: readonly number[];
  #refs = 1;

  /** @param runs  frames held once already, which the file gives up with its last reference */
  constructor(frames: FrameHolder, sizeBytes: bigint, runs: readonly Run[]) {
    this.#frames = frames;
    this.sizeBytes = sizeBytes;
    this.#runs = runs;
    let page = 0;
    this.#starts = runs.map(({ pages }) => {
      page += pages;
      return page - pages;
    });
    this.identity = `memfd:${made++}`;
  }

  get(): void {
    this.#refs++;
  }

  put(): void {
    if (--this.#refs > 0) return;
    for (const { pfn, pages } of this.#runs) this.#frames.drop(pfn, pages);
  }

  /** @returns 0 | -EINVAL a page that is not wholly in the file */
  runAt(page: number, out: Run): number {
    const left = Math.floor(Number(this.sizeBytes) / PAGE) - page;
    if (page < 0 || left <= 0) return -EINVAL;
    const index = this.#indexOf(page);
    const run = this.#runs[index]!;
    const skip = page - this.#starts[index]!;
    out.pfn = run.pfn + skip;
    out.pages = Math.min(run.pages - skip, left);
    return 0;
  }

  /** The frames of a range of pages, as runs; fewer than asked for where the file ends. */
  runsOf(firstPage: number, count: number): Run[] {
    const found: Run[] = [];
    let page = firstPage;
    const end = firstPage + count;
    for (let index = this.#indexOf(firstPage); index < this.#runs.length && page < end; index++) {
      const { pfn, pages } = this.#runs[index]!;
      const skip = page - this.#starts[index]!;
      const n = Math.min(pages - skip, end - page);
      found.push({ pfn: pfn + skip, pages: n });
      page += n;
    }
    return found;
  }

  /** The run that holds a page of the file. */
  #indexOf(page: number): number {
    let low = 0;
    let high = this.#starts.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >>> 1;
      if (this.#starts[mid]! <= page) low = mid;
      else high = mid - 1;
    }
    return low;
  }

  pin(pfn: number, pages: number): void {
    this.#frames.pin(pfn, pages);
  }

  unpin(pfn: number, pages: number): void {
    this.#frames.unpin(pfn, pages);
  }
}

/** What the descriptor of a memfd stands for. */
export interface MemFileDescription extends OpenFile {
  readonly kind: 'memfd';
  readonly file: MemFile;
}

export const openMemFile = (file: MemFile): MemFileDescription => ({
  kind: 'memfd',
  file,
  release: () => file.put(),
});
