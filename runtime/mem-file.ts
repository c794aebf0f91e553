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
import type { UserFile } from './core/task.js';
import type { Run } from './user-memory.js';

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
  #refs = 1;

  /** @param runs  frames held once already, which the file gives up with its last reference */
  constructor(frames: FrameHolder, sizeBytes: bigint, runs: readonly Run[]) {
    this.#frames = frames;
    this.sizeBytes = sizeBytes;
    this.#runs = runs;
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
    let at = page;
    for (const { pfn, pages } of this.#runs) {
      if (at < pages) {
        out.pfn = pfn + at;
        out.pages = Math.min(pages - at, left);
        return 0;
      }
      at -= pages;
    }
    return -EINVAL;
  }

  /** The frames of a range of pages, as runs; fewer than asked for where the file ends. */
  runsOf(firstPage: number, count: number): Run[] {
    const found: Run[] = [];
    let skip = firstPage;
    let left = count;
    for (const { pfn, pages } of this.#runs) {
      const n = Math.min(pages - skip, left);
      if (n > 0) {
        found.push({ pfn: pfn + skip, pages: n });
        left -= n;
      }
      skip = Math.max(0, skip - pages);
    }
    return found;
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
