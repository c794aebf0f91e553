/**
 * A file of a client's as IOMMU_IOAS_MAP_FILE sees it: pages by their number in the file. Only what lives in memory
 * can be mapped so, memfds and files of tmpfs and hugetlbfs, as memfd_pin_folios has it.
 *
 * @source mm/gup.c memfd_pin_folios
 */
import { readlinkSync, statfsSync, statSync } from 'node:fs';
import { EBADF, EINVAL, ENOENT } from '../../uapi/abi/errno.js';
import type { UserFile } from '../core/user-file.js';
import { type ClientFile, type ClientFiles, devOf, HUGETLBFS_MAGIC, TMPFS_MAGIC } from './client-file.js';
import { isWritable, openAgain } from './client-memory.js';

const PAGE = 4096;

export class ClientFileView implements UserFile {
  readonly identity: string;
  readonly writable: boolean;
  readonly #files: ClientFiles;
  readonly #path: string;
  readonly #dev: number;
  readonly #inode: number;
  readonly #size: number;
  #gets = 0;
  /** While it is held. */
  #file: ClientFile | null = null;

  private constructor(
    files: ClientFiles,
    path: string,
    writable: boolean,
    stat: { dev: number; ino: number; size: number },
  ) {
    this.#files = files;
    this.#path = path;
    this.writable = writable;
    this.#dev = devOf(stat.dev);
    this.#inode = stat.ino;
    this.#size = stat.size;
    this.identity = `${this.#dev}:${this.#inode}`;
  }

  /** @returns -EBADF no such descriptor | -EINVAL nothing that lives in memory */
  static of(files: ClientFiles, pid: number, fd: number): ClientFileView | number {
    if (!Number.isInteger(fd) || fd < 0) return -EBADF;
    const path = `/proc/${pid}/fd/${fd}`;
    try {
      readlinkSync(path);
      const stat = statSync(path);
      if (!stat.isFile()) return -EINVAL;
      const { type } = statfsSync(path);
      if (type !== TMPFS_MAGIC && type !== HUGETLBFS_MAGIC) return -EINVAL;
      return new ClientFileView(files, path, isWritable(pid, fd), stat);
    } catch (error) {
      return (error as { errno?: number }).errno === -ENOENT ? -EBADF : -EINVAL;
    }
  }

  get sizeBytes(): bigint {
    const size = this.#file?.sizeBytes ?? -1;
    return BigInt(size < 0 ? this.#size : size);
  }

  get(): void {
    if (this.#gets++ > 0) return;
    this.#file = this.#files.get(this.#dev, this.#inode);
    const opened = openAgain(this.#path, this.#inode, this.writable);
    if (opened !== null) this.#file.adopt(opened.fd, opened.writable);
    this.#file.hold();
  }

  put(): void {
    if (--this.#gets > 0) return;
    this.#file?.drop();
    this.#file = null;
  }

  /** @param page  of the file. @returns 0 | -EINVAL past its last whole page | -ENOMEM no frame numbers left */
  runAt(page: number, out: { pfn: number; pages: number }): number {
    const left = Math.floor(Number(this.sizeBytes) / PAGE) - page;
    if (left <= 0 || page < 0) return -EINVAL;
    const file = this.#file ?? this.#files.get(this.#dev, this.#inode);
    return file.windows.runAt(page, left, out);
  }

  pin(pfn: number, pages: number): void {
    this.#files.frames.pin(pfn, pages);
  }

  unpin(pfn: number, pages: number): void {
    this.#files.frames.unpin(pfn, pages);
  }
}
