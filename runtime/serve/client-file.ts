/**
 * A file whose pages clients map: a memfd, shared memory, a file of a file system. Identified by device and inode,
 * so that its mappings in all the processes, and IOMMU_IOAS_MAP_FILE, mean the same frames.
 *
 * While any of it is pinned the file is held open, if a descriptor of a client's can be opened again; so its pages
 * outlive the mappings, as pinned pages do. What nobody has a descriptor of, anonymous shared memory, is reached
 * through a process that maps it, and is gone with the last of them.
 */
import { closeSync, fstatSync, readSync, statfsSync, writeSync } from 'node:fs';
import type { ForeignFrames, FrameOwner, FrameWindow } from './foreign-frames.js';
import { OwnerWindows } from './owner-windows.js';

const PAGE = 4096;
/** Files that nothing holds and whose names are kept, for the next time. */
const MAX_IDLE = 256;
/** include/uapi/linux/magic.h. */
export const HUGETLBFS_MAGIC = 0x958458f6;
export const TMPFS_MAGIC = 0x01021994;

/** A process that has, or had, the file mapped. */
export interface FileHolder {
  /** @returns a descriptor of this process on that file, and whether it writes | null */
  openFile(dev: number, inode: number): { fd: number; writable: boolean } | null;
  /** Address of a file's page in the process, mapped shared and, with `write`, writable; -1 when there is none. */
  addressOf(dev: number, inode: number, page: number, write: boolean): number;
  /** Whether the process maps it in huge pages. */
  isHuge(dev: number, inode: number): boolean;
  readAt(address: number, into: Uint8Array): boolean;
  writeAt(address: number, from: Uint8Array): boolean;
}

export class ClientFile implements FrameOwner {
  readonly name: string;
  readonly dev: number;
  readonly inode: number;
  readonly windows: OwnerWindows;
  readonly #holders = new Set<FileHolder>();
  #fd = -1;
  #writable = false;
  #holds = 0;

  constructor(frames: ForeignFrames, dev: number, inode: number) {
    this.dev = dev;
    this.inode = inode;
    this.name = `file ${Math.floor(dev / 2 ** 20)}:${dev % 2 ** 20} inode ${inode}`;
    this.windows = new OwnerWindows(frames, this);
  }

  get held(): boolean {
    return this.#holds > 0;
  }

  /** A process that knows the file. */
  addHolder(holder: FileHolder): void {
    this.#holders.add(holder);
  }

  dropHolder(holder: FileHolder): void {
    this.#holders.delete(holder);
  }

  /** Keeps the file open until drop(). */
  hold(): void {
    if (this.#holds++ > 0 && this.#fd >= 0) return;
    for (const holder of this.#holders) {
      const opened = holder.openFile(this.dev, this.inode);
      if (opened !== null) {
        this.adopt(opened.fd, opened.writable);
        return;
      }
    }
  }

  /** A descriptor on this file, to be used and closed here. */
  adopt(fd: number, writable: boolean): void {
    if (this.#fd >= 0 && (this.#writable || !writable)) {
      closeSync(fd);
      return;
    }
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = fd;
    this.#writable = writable;
  }

  drop(): void {
    if (--this.#holds > 0 || this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
    this.#writable = false;
  }

  /** Bytes, or -1 while the file is not open here. */
  get sizeBytes(): number {
    return this.#fd < 0 ? -1 : fstatSync(this.#fd).size;
  }

  pinned(_window: FrameWindow, pinned: boolean): void {
    if (pinned) this.hold();
    else this.drop();
  }

  forget(window: FrameWindow): void {
    this.windows.forget(window);
  }

  isCompound(_page: number): boolean {
    if (this.#fd >= 0) return statfsSync(`/proc/self/fd/${this.#fd}`).type === HUGETLBFS_MAGIC;
    for (const holder of this.#holders) if (holder.isHuge(this.dev, this.inode)) return true;
    return false;
  }

  read(page: number, offset: number, into: Uint8Array): boolean {
    const at = page * PAGE + offset;
    try {
      if (this.#covers(at, into.byteLength))
        return whole(into, (from, n) => readSync(this.#fd, into, from, n, at + from));
    } catch {
      // As a process that maps it sees it, then.
    }
    return this.#throughHolders(page, offset, into, false);
  }

  write(page: number, offset: number, from: Uint8Array): boolean {
    const at = page * PAGE + offset;
    try {
      // Never past the end: a write there would make the file longer, which a device cannot.
      if (this.#writable && this.#covers(at, from.byteLength))
        return whole(from, (begin, n) => writeSync(this.#fd, from, begin, n, at + begin));
    } catch {
      // hugetlbfs has no write(2), and a sealed memfd refuses it.
    }
    return this.#throughHolders(page, offset, from, true);
  }

  #covers(at: number, bytes: number): boolean {
    return this.#fd >= 0 && at + bytes <= fstatSync(this.#fd).size;
  }

  /** Page by page: what is together in the file need not be together in a process. */
  #throughHolders(page: number, offset: number, bytes: Uint8Array, write: boolean): boolean {
    let at = 0;
    let below = offset;
    for (let index = page; at < bytes.byteLength; index++) {
      const part = bytes.subarray(at, at + Math.min(bytes.byteLength - at, PAGE - below));
      if (!this.#onePage(index, below, part, write)) return false;
      at += part.byteLength;
      below = 0;
    }
    return true;
  }

  #onePage(page: number, offset: number, bytes: Uint8Array, write: boolean): boolean {
    for (const holder of this.#holders) {
      const address = holder.addressOf(this.dev, this.inode, page, write);
      if (address < 0) continue;
      if (write ? holder.writeAt(address + offset, bytes) : holder.readAt(address + offset, bytes))
        return true;
    }
    return false;
  }
}

/** All the files that a machine's clients map. */
export class ClientFiles {
  readonly frames: ForeignFrames;
  readonly #files = new Map<string, ClientFile>();

  constructor(frames: ForeignFrames) {
    this.frames = frames;
  }

  /** @param dev  major * 2^20 + minor */
  get(dev: number, inode: number): ClientFile {
    const key = `${dev}:${inode}`;
    let file = this.#files.get(key);
    if (file !== undefined) return file;
    if (this.#files.size >= MAX_IDLE) this.#forgetIdle();
    file = new ClientFile(this.frames, dev, inode);
    this.#files.set(key, file);
    return file;
  }

  /** A process is gone. */
  dropHolder(holder: FileHolder): void {
    for (const file of this.#files.values()) file.dropHolder(holder);
    this.#forgetIdle();
  }

  #forgetIdle(): void {
    for (const [key, file] of this.#files) {
      if (file.held || file.windows.recent) continue;
      file.windows.release();
      this.#files.delete(key);
    }
  }
}

/** Moves all of `bytes`. @param move  from an offset, at most so many; returns how many it were */
function whole(bytes: Uint8Array, move: (from: number, n: number) => number): boolean {
  for (let done = 0; done < bytes.byteLength; ) {
    const n = move(done, bytes.byteLength - done);
    if (n <= 0) return false;
    done += n;
  }
  return true;
}

/** st_dev as major * 2^20 + minor, which is what /proc/PID/maps shows. */
export function devOf(stDev: number): number {
  const low = stDev % 2 ** 32;
  const high = Math.floor(stDev / 2 ** 32);
  const major = ((low >>> 8) & 0xfff) + (high >>> 12) * 4096;
  const minor = (low & 0xff) | ((low >>> 12) & 0xf_ff00);
  return major * 2 ** 20 + minor;
}
