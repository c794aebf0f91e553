/**
 * The descriptors of a process that uses the machine: small integers for open files. An ioctl hands out numbers
 * (a vEVENTQ's) and takes them (VFIO's bind), so they are real here.
 */
import { EBADF } from '../../uapi/abi/errno.js';

/** poll(2). */
export const POLLIN = 0x1;
export const POLLOUT = 0x4;

/** What an mmap of a file shows: memory of the machine, from `linear` on. */
export interface Mapping {
  readonly linear: number;
  readonly bytes: number;
  /** munmap of the whole. */
  unmap(): void;
}

/** Where read() puts bytes, which may end before them. @param offset  from the first byte read. @returns 0 | -EFAULT */
export type PutBytes = (offset: number, bytes: Uint8Array) => number;

/** An open file. What it does not define it does not support: -ENOTTY, -EINVAL, -ENODEV. */
export interface OpenFile {
  readonly kind: 'iommufd' | 'event' | 'fault' | 'vfio' | 'vfio-container' | 'access' | 'dmabuf' | 'memfd';
  /** @returns >= 0 | -errno @param bytes  what the argument points at, outputs are written in place */
  ioctl?(cmd: number, bytes: Uint8Array): number;
  /** @returns the bytes read, none when there is nothing | -errno */
  read?(maxBytes: number): Uint8Array | number;
  /** As read, and what `put` does not take stays to be read. @returns bytes put | -errno */
  readTo?(maxBytes: number, put: PutBytes): number;
  /** @returns bytes taken | -errno */
  write?(bytes: Uint8Array): number;
  /** POLL* bits. */
  poll?(): number;
  /** @param shared  MAP_SHARED @param exec  PROT_EXEC. @returns what is seen there | -errno */
  mmap?(offset: bigint, bytes: number, shared: boolean, exec: boolean): Mapping | number;
  /** Called when poll() gains POLLIN; set by whoever has pollers to wake. */
  onReadable?: (() => void) | null;
  /** Last close. */
  release(): void;
}

/** What an event queue's descriptor can do. */
export interface EventFile extends OpenFile {
  readonly kind: 'event';
  read(maxBytes: number): Uint8Array | number;
  poll(): number;
}

/** What handlers need of a process's descriptors. */
export interface Descriptors {
  /** @returns a free descriptor, now `file` | -EMFILE */
  install(file: OpenFile): number;
  get(fd: number): OpenFile | undefined;
  /** @returns 0 | -EBADF */
  close(fd: number): number;
}

/** 0, 1 and 2 are taken in any process. */
const FIRST = 3;

export class FileTable implements Descriptors {
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

  close(fd: number): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -EBADF;
    this.#files.delete(fd);
    file.release();
    return 0;
  }
}
