/**
 * The memory of a client process, as the kernel lets another process of the same user see it: /proc/PID/mem.
 *
 * That file is a debugger's: it reads what is mapped PROT_NONE and writes what is mapped read-only. What the
 * process itself may do is in /proc/PID/maps, which is read anew for each call of the core (beginCall). Within a
 * call the process waits, or it is its own threads that change its memory under it, as on Linux.
 *
 * Pages that are shared belong to their file (client-file.ts), the others to the process; neither is pinned in any
 * way that the kernel knows of. What DMA finds in a page is what the process finds there now: see README.md.
 *
 * Not modelled: addresses from 2^53 on (five-level page tables, on request of the process), protection keys,
 * shadow stacks.
 *
 * @source mm/gup.c check_vma_flags
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { EFAULT, ESRCH } from '../../uapi/abi/errno.js';
import type { AddressSpace, MmAccount } from '../core/task.js';
import { type ClientFiles, devOf, type FileHolder } from './client-file.js';
import type { ForeignFrames, FrameOwner, FrameWindow } from './foreign-frames.js';
import { OwnerWindows } from './owner-windows.js';
import { ProcessMaps, VM_READ, VM_SHARED, VM_WRITE } from './process-maps.js';

const PAGE = 4096;
const MAX_ADDRESS = Number.MAX_SAFE_INTEGER;
const MAX_PAGE = 2 ** 41;
/** File systems whose pages may be written to behind their back (vma_needs_dirty_tracking is false). */
const UNTRACKED = new Set(['tmpfs', 'ramfs', 'hugetlbfs', 'devtmpfs']);
/** Memory of the kernel's own mounts, which no mount table lists. */
const KERNEL_FILES = ['/memfd:', '/dev/zero', '/SYSV', '/anon_hugepage', '/drm mm object', '/dmabuf:'];
/** Files that no descriptor is open on. */
const NO_DESCRIPTOR = ['/dev/zero', '/SYSV', '/anon_hugepage'];
/** What may be a device's memory rather than pages. */
const SPECIAL = ['/dev/', '/sys/', '/proc/', '[vvar', 'anon_inode:', 'socket:'];
const NOT_SPECIAL = ['/dev/zero', '/dev/shm/', '/dev/hugepages/'];
/** Descriptors of a process looked through for one on a given file. */
const MAX_DESCRIPTORS = 4096;

const beginsWithOneOf = (name: string, list: readonly string[]): boolean =>
  list.some((begin) => name.startsWith(begin));

export class ClientMemory implements AddressSpace, FrameOwner, FileHolder {
  readonly pid: number;
  readonly name: string;
  readonly account: MmAccount = { pinnedVm: 0, lockedVm: 0 };
  readonly #frames: ForeignFrames;
  readonly #files: ClientFiles;
  readonly #windows: OwnerWindows;
  readonly #maps: ProcessMaps;
  #memFd: number;
  #mapsFd: number;
  /** Calls begun and not ended; the list of mappings is good for one. */
  #calls = 0;
  #fresh = false;
  readonly #fileSystems = new Map<number, string>();
  /** VmFlags by index, as long as the list of mappings is good. */
  readonly #vmFlagsRead = new Map<number, readonly string[]>();

  /**
   * @throws an error of fs: ENOENT or ESRCH no such process, EACCES the kernel does not let this one look into it
   *         (another user's, or Yama: the process has to name the server with PR_SET_PTRACER, or descend from it)
   */
  constructor(pid: number, files: ClientFiles) {
    this.pid = pid;
    this.name = `process ${pid}`;
    this.#frames = files.frames;
    this.#files = files;
    this.#windows = new OwnerWindows(files.frames, this);
    const [folder, memFd] = openMem(pid);
    this.#memFd = memFd;
    try {
      this.#mapsFd = openSync(`${folder}/maps`, 'r');
    } catch (error) {
      closeSync(this.#memFd);
      throw error;
    }
    this.#maps = new ProcessMaps(this.#mapsFd);
  }

  /** Whether the process has its memory still: false after exit, and after exec. */
  get alive(): boolean {
    if (this.#memFd < 0) return false;
    // Whoever asks within a call looks at the mappings next.
    if (this.#calls > 0) return this.#refresh();
    try {
      return readSync(this.#mapsFd, oneByte, 0, 1, 0) === 1;
    } catch {
      return false;
    }
  }

  /** A call of the core on behalf of this process begins: the mappings are read once for it, if at all. */
  beginCall(): void {
    this.#calls++;
    this.#fresh = false;
  }

  endCall(): void {
    this.#calls--;
    this.#fresh = false;
  }

  /** The process is gone, or its last file is closed. What is pinned stays pinned, and answers -EFAULT. */
  release(): void {
    if (this.#memFd < 0) return;
    closeSync(this.#memFd);
    closeSync(this.#mapsFd);
    this.#memFd = this.#mapsFd = -1;
    this.#windows.release();
    this.#files.dropHolder(this);
  }

  copyIn(va: bigint, into: Uint8Array): number {
    const n = into.byteLength;
    if (n === 0) return 0;
    // What is writable is readable to the processor.
    if (!this.#permits(va, n, VM_READ | VM_WRITE)) return -EFAULT;
    return this.readAt(Number(va), into) ? 0 : -EFAULT;
  }

  copyOut(va: bigint, from: Uint8Array): number {
    const n = from.byteLength;
    if (n === 0) return 0;
    if (!this.#permits(va, n, VM_WRITE)) return -EFAULT;
    return this.writeAt(Number(va), from) ? 0 : -EFAULT;
  }

  /** pin_user_pages(FOLL_LONGTERM), and FOLL_WRITE with `write`. @returns 0 | -EFAULT | -ENOMEM no frame numbers left */
  runAt(vaPage: number, out: { pfn: number; pages: number }, write = false): number {
    if (!(vaPage >= 0 && vaPage < MAX_PAGE) || !this.#refresh()) return -EFAULT;
    const maps = this.#maps;
    const index = maps.find(vaPage);
    if (index < 0) return -EFAULT;
    const flags = maps.flags(index);
    if ((flags & (write ? VM_WRITE : VM_READ)) === 0) return -EFAULT;
    const pages = maps.end(index) - vaPage;
    const ofFile = maps.inode(index) !== 0;
    if (!ofFile && maps.name(index).startsWith('[vvar')) return -EFAULT;
    if (!ofFile) return this.#windows.runAt(vaPage, pages, out);
    const shared = (flags & VM_SHARED) !== 0;
    if (this.#unpinnable(index, write && shared)) return -EFAULT;
    let status: number;
    if (shared) {
      const file = this.#files.get(maps.dev(index), maps.inode(index));
      file.addHolder(this);
      const filePage = maps.filePage(index) + (vaPage - maps.first(index));
      status = file.windows.runAt(filePage, pages, out);
    } else status = this.#windows.runAt(vaPage, pages, out);
    if (status < 0) return status;
    out.pages = this.#backed(vaPage, out.pages);
    return out.pages === 0 ? -EFAULT : 0;
  }

  pin(pfn: number, pages: number): void {
    this.#frames.pin(pfn, pages);
  }

  unpin(pfn: number, pages: number): void {
    this.#frames.unpin(pfn, pages);
  }

  pinsOf(pfn: number): number {
    return this.#frames.isCompound(pfn) ? -1 : this.#frames.pins(pfn);
  }

  // ---- Owner of the frames of its private pages ----

  read(page: number, offset: number, into: Uint8Array): boolean {
    return this.readAt(page * PAGE + offset, into);
  }

  write(page: number, offset: number, from: Uint8Array): boolean {
    return this.writeAt(page * PAGE + offset, from);
  }

  isCompound(page: number): boolean {
    if (!this.#refresh()) return false;
    const index = this.#maps.find(page);
    return index >= 0 && this.#maps.inode(index) !== 0 && this.#vmFlags(index).includes('ht');
  }

  pinned(_window: FrameWindow, pinned: boolean): void {
    if (!pinned && this.#memFd < 0) this.#windows.release();
  }

  forget(window: FrameWindow): void {
    this.#windows.forget(window);
  }

  // ---- Holder of files ----

  openFile(dev: number, inode: number): { fd: number; writable: boolean } | null {
    const maps = this.#maps;
    let anonymous = false;
    for (const i of this.#mappingsOf(dev, inode)) {
      // By the mapping itself, which only a privileged server may.
      const range = [maps.first(i), maps.end(i)].map((page) => (page * PAGE).toString(16)).join('-');
      const writable = (maps.flags(i) & VM_WRITE) !== 0;
      const opened = openAgain(`/proc/${this.pid}/map_files/${range}`, inode, writable);
      if (opened !== null) return opened;
      anonymous ||= beginsWithOneOf(maps.name(i), NO_DESCRIPTOR);
    }
    return anonymous ? null : this.#openDescriptor(dev, inode);
  }

  addressOf(dev: number, inode: number, page: number, write: boolean): number {
    const maps = this.#maps;
    for (const i of this.#mappingsOf(dev, inode)) {
      if (write && (maps.flags(i) & VM_WRITE) === 0) continue;
      const at = page - maps.filePage(i);
      if (at >= 0 && at < maps.end(i) - maps.first(i)) return (maps.first(i) + at) * PAGE;
    }
    return -1;
  }

  isHuge(dev: number, inode: number): boolean {
    for (const i of this.#mappingsOf(dev, inode)) return this.#vmFlags(i).includes('ht');
    return false;
  }

  /** Without regard to permissions. @returns whether all of it was there */
  readAt(address: number, into: Uint8Array): boolean {
    if (this.#memFd < 0) return false;
    try {
      for (let done = 0; done < into.byteLength; ) {
        const n = readSync(this.#memFd, into, done, into.byteLength - done, address + done);
        if (n <= 0) return false;
        done += n;
      }
      return true;
    } catch {
      return false;
    }
  }

  /** As readAt. */
  writeAt(address: number, from: Uint8Array): boolean {
    if (this.#memFd < 0) return false;
    try {
      for (let done = 0; done < from.byteLength; ) {
        const n = writeSync(this.#memFd, from, done, from.byteLength - done, address + done);
        if (n <= 0) return false;
        done += n;
      }
      return true;
    } catch {
      return false;
    }
  }

  /** Whether all of [va, va + bytes) is mapped so. */
  #permits(va: bigint, bytes: number, anyOf: number): boolean {
    if (va < 0n || va > BigInt(MAX_ADDRESS - bytes) || !this.#refresh()) return false;
    const first = Number(va);
    return this.#maps.permits(Math.floor(first / PAGE), Math.floor((first + bytes - 1) / PAGE), anyOf);
  }

  /** Has the list of mappings as this call may use it. @returns false the process is gone */
  #refresh(): boolean {
    if (this.#memFd < 0) return false;
    if (this.#fresh) return this.#maps.count > 0;
    const any = this.#maps.read();
    this.#vmFlagsRead.clear();
    this.#fresh = this.#calls > 0;
    return any;
  }

  /** Whether Linux pins no page of such a mapping of a file. */
  #unpinnable(index: number, writeShared: boolean): boolean {
    const name = this.#maps.name(index);
    if (name.startsWith('/secretmem')) return true;
    if (beginsWithOneOf(name, SPECIAL) && !beginsWithOneOf(name, NOT_SPECIAL)) {
      const flags = this.#vmFlags(index);
      if (flags.includes('io') || flags.includes('pf')) return true;
    }
    if (!writeShared || beginsWithOneOf(name, KERNEL_FILES)) return false;
    return !UNTRACKED.has(this.#fileSystemOf(this.#maps.dev(index)));
  }

  /** How many of the pages from `vaPage` on are inside the file behind them, which its size decides. */
  #backed(vaPage: number, pages: number): number {
    if (this.#isThere(vaPage + pages - 1)) return pages;
    let low = 0;
    let high = pages - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#isThere(vaPage + middle)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #isThere(vaPage: number): boolean {
    return this.readAt(vaPage * PAGE, oneByte);
  }

  /** VmFlags of /proc/PID/smaps, each two letters. */
  #vmFlags(index: number): readonly string[] {
    const known = this.#vmFlagsRead.get(index);
    if (known !== undefined) return known;
    const begin = `${(this.#maps.first(index) * PAGE).toString(16).padStart(8, '0')}-`;
    let flags: readonly string[] = [];
    try {
      const text = readFileSync(`/proc/${this.pid}/smaps`, 'latin1');
      const at = text.startsWith(begin) ? 0 : text.indexOf(`\n${begin}`);
      const line = at < 0 ? null : /VmFlags: (.*)/.exec(text.slice(at));
      if (line !== null) flags = line[1]!.trim().split(' ');
    } catch {
      // The process has gone meanwhile.
    }
    this.#vmFlagsRead.set(index, flags);
    return flags;
  }

  #fileSystemOf(dev: number): string {
    if (!this.#fileSystems.has(dev)) {
      try {
        for (const line of readFileSync(`/proc/${this.pid}/mountinfo`, 'utf8').split('\n')) {
          const fields = line.split(' ');
          const [major, minor] = (fields[2] ?? '').split(':').map(Number);
          const type = fields[fields.indexOf('-') + 1] ?? '';
          if (minor !== undefined) this.#fileSystems.set(major! * 2 ** 20 + minor, type);
        }
      } catch {
        // The process has gone meanwhile: nothing of it can be pinned.
      }
      if (!this.#fileSystems.has(dev)) this.#fileSystems.set(dev, '');
    }
    return this.#fileSystems.get(dev)!;
  }

  /** Indexes of the shared mappings of a file. */
  *#mappingsOf(dev: number, inode: number): Generator<number> {
    if (!this.#refresh()) return;
    const maps = this.#maps;
    for (let i = 0; i < maps.count; i++)
      if (maps.inode(i) === inode && maps.dev(i) === dev && (maps.flags(i) & VM_SHARED) !== 0) yield i;
  }

  #openDescriptor(dev: number, inode: number): { fd: number; writable: boolean } | null {
    const directory = `/proc/${this.pid}/fd`;
    try {
      for (const name of readdirSync(directory).slice(0, MAX_DESCRIPTORS)) {
        const path = `${directory}/${name}`;
        const stat = statSync(path, { throwIfNoEntry: false });
        if (stat === undefined || stat.ino !== inode || !stat.isFile() || devOf(stat.dev) !== dev) continue;
        const opened = openAgain(path, inode, isWritable(this.pid, name));
        if (opened !== null) return opened;
      }
    } catch {
      // Gone, or not to be looked into.
    }
    return null;
  }
}

/** The memory of a process: by a thread that is left, if the first has ended. @throws an error of fs */
function openMem(pid: number): [folder: string, fd: number] {
  const process = `/proc/${pid}`;
  try {
    return [process, openSync(`${process}/mem`, 'r+')];
  } catch (error) {
    if ((error as { errno?: number }).errno !== -ESRCH) throw error;
    for (const tid of readdirSync(`${process}/task`)) {
      const thread = `${process}/task/${tid}`;
      try {
        return [thread, openSync(`${thread}/mem`, 'r+')];
      } catch {
        // It has ended as well.
      }
    }
    throw error;
  }
}

/** Opens a file of another process anew. @returns null when it may not be, or is another file by now */
export function openAgain(
  path: string,
  inode: number,
  writable: boolean,
): { fd: number; writable: boolean } | null {
  const { O_RDWR, O_RDONLY, O_NONBLOCK, O_NOCTTY } = constants;
  for (const mode of writable ? [O_RDWR, O_RDONLY] : [O_RDONLY]) {
    try {
      // What the process has made of it meanwhile, a FIFO say, must not hold up the server.
      const fd = openSync(path, mode | O_NONBLOCK | O_NOCTTY);
      if (fstatSync(fd).ino === inode) return { fd, writable: mode === O_RDWR };
      closeSync(fd);
    } catch {
      // The next mode, then.
    }
  }
  return null;
}

const O_ACCMODE = 3;

/** Whether a descriptor of a process was opened for writing. */
export function isWritable(pid: number, fd: number | string): boolean {
  const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1'));
  return flags !== null && (Number.parseInt(flags[1]!, 8) & O_ACCMODE) !== 0;
}

const oneByte = new Uint8Array(1);
