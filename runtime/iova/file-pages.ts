/**
 * The pages behind a range of a file that a descriptor of the calling process stands for: a memfd's, or a dma-buf's.
 *
 * As in Linux, a file of any kind can be mapped as long as nobody needs its pages: that it has none shows when they
 * are pinned.
 *
 * @source drivers/iommu/iommufd/io_pagetable.c iopt_map_file_pages
 */
import { EBADF, EINVAL, ENOMEM, EOVERFLOW } from '../../uapi/abi/errno.js';
import type { DmaBufDescription } from '../core/dmabuf.js';
import { offsetOf, PAGE_SIZE, pageOf, pagesIn, U64_MAX } from './area.js';
import { DmabufPages } from './dmabuf-pages.js';
import { IoptPages, type PagesHost } from './pages.js';
import type { PinnableMemory } from './pinnable-memory.js';

/** An open file without pages of its own. */
const NO_PAGES: PinnableMemory = { runAt: () => -EINVAL, pin: () => undefined, unpin: () => undefined };

/**
 * @param start   bytes into the file
 * @param length  bytes
 * @returns pages from the one in which `start` lies | -EINVAL length 0, or past the end of a dma-buf | -EOVERFLOW |
 *   -EBADF | -ENODEV a dma-buf that was taken back | -EOPNOTSUPP | -ENOMEM
 */
export function filePages(
  host: PagesHost,
  fd: number,
  start: bigint,
  length: bigint,
  writable: boolean,
): IoptPages | number {
  if (length === 0n) return -EINVAL;
  if (start + length - 1n > U64_MAX) return -EOVERFLOW;
  const { core } = host;
  const task = core.current;
  const startPage = pageOf(start);
  const npages = pagesIn(offsetOf(start), length);
  const open = task.files.get(fd);
  if (open?.kind === 'dmabuf') {
    const { dmabuf } = open as DmaBufDescription;
    if (dmabuf.sizeBytes <= start + length - 1n) return -EINVAL;
    return DmabufPages.import(host, dmabuf, startPage, npages, length, writable);
  }
  const file = task.userFile(fd);
  if (file === -EBADF) return -EBADF;
  if (length > U64_MAX - BigInt(PAGE_SIZE)) return -EINVAL;
  if (core.allocFails('iopt_pages')) return -ENOMEM;
  if (typeof file === 'number') return new IoptPages(host, NO_PAGES, startPage, npages, writable, 'file');
  file.get();
  return new IoptPages(host, file, startPage, npages, writable, 'file');
}
