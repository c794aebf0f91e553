/**
 * The descriptors of the process that uses the machine: small integers for open files. An ioctl hands out
 * numbers (a vEVENTQ's) and takes them (VFIO's bind), so they are real here.
 */
import { EBADF } from '../../uapi/abi/errno.js';

export interface OpenFile {
  readonly kind: 'iommufd' | 'event' | 'vfio';
  /** Last close. */
  release(): void;
}

/** What an event queue's descriptor can do. */
export interface EventFile extends OpenFile {
  readonly kind: 'event';
  read(maxBytes: number): Uint8Array;
  poll(): boolean;
}

/** 0, 1 and 2 are taken in any process. */
const FIRST = 3;

export class FileTable {
  readonly #files = new Map<number, OpenFile>();

  /** @returns the lowest free descriptor */
  install(file: OpenFile): number {
    let fd = FIRST;
    while (this.#files.has(fd)) fd++;
    this.#files.set(fd, file);
    return fd;
  }

  get(fd: number): OpenFile | undefined {
    return this.#files.get(fd);
  }

  /** @returns 0 | -EBADF */
  close(fd: number): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -EBADF;
    this.#files.delete(fd);
    file.release();
    return 0;
  }
}
