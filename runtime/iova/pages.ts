/**
 * The user pages behind a mapping, and what of them is pinned. struct iopt_pages.
 *
 * One IoptPages belongs to one IOAS_MAP; IOAS_COPY makes further areas over the same pages, whole or in part.
 * Pages are pinned while any area that covers them is filled into a domain, once however many areas that are:
 *
 *   page index   0        100       200      300
 *   area A       |---------filled--------------|
 *   area B                |--filled--|
 *   runs         | uses 1 | uses 2   |  uses 1 |     each run is physically contiguous
 *
 * Most mappings are one run, pinned and unpinned as a whole: that one is kept by itself (`#only`), and the sorted
 * set of runs is made when there is a second, or a part of one is wanted.
 *
 * The frame numbers are kept with the pins, so what the user unmaps or maps anew meanwhile does not matter, nor
 * whether the process lives: only a page that nothing holds yet is looked up in its memory. Linux tells areas and
 * in-kernel accesses apart, and keeps the frames of the former in a domain; here both count in `uses`.
 *
 * @source drivers/iommu/iommufd/pages.c
 */
import { bug } from '../../hw/memory/bug.js';
import { EFAULT, EINVAL, ENOMEM, EPERM } from '../../uapi/abi/errno.js';
import { CAP_IPC_LOCK, type PhysicalMemory, type Task } from '../core/task.js';
import {
  ACCOUNT_MM,
  ACCOUNT_NONE,
  ACCOUNT_USER,
  type AccountMode,
  chargePinned,
  unchargePinned,
} from './accounting.js';
import { OrderedSpans } from './ordered-spans.js';
import type { PinnableMemory } from './pinnable-memory.js';
import type { Span } from './span-chunk.js';

/** What pages need of their surroundings: an IommufdCtx is one. */
export interface PagesHost {
  readonly core: {
    readonly current: Task;
    readonly physical: PhysicalMemory;
    readonly compat: '7.0' | 'fixed';
    allocFails(site: string): boolean;
  };
  /** How the fd charges (IOMMU_OPTION_RLIMIT_MODE). */
  readonly accountMode: AccountMode;
}

/** enum iopt_address_type. */
export type PagesType = 'user' | 'file' | 'dmabuf';

/** IOMMUFD_ACCESS_RW_*: the direction of an access, and which way a copy goes; a read is 0. */
export const ACCESS_RW_WRITE = 1 << 0;
/** The caller has no memory of its own and borrows that of the pages' process. */
export const ACCESS_RW_KTHREAD = 1 << 1;
/** By frames even where a copy through user addresses would do. */
export const ACCESS_RW_SLOW_PATH = 1 << 2;

const PAGE_SIZE = 4096;

/** A pinned run; positions are page indexes inside the IoptPages. */
interface PinnedRun extends Span {
  firstPage: number;
  lastPage: number;
  pfn: number;
  uses: number;
}

export class IoptPages {
  readonly type: PagesType;
  readonly writable: boolean;
  /** Page of the user address, or of the file, where index 0 lies. */
  readonly startPage: number;
  readonly npages: number;
  readonly accountMode: AccountMode;
  /** Who mapped them, and pays (source_mm, source_user, source_task). */
  owner: Task;
  /** Areas and lists that point here; kref. */
  refs = 1;
  /** A dma-buf that its exporter took back: no frames are behind it any more. */
  revoked = false;
  protected readonly host: PagesHost;
  readonly #source: PinnableMemory;
  #npinned = 0;
  /** The one run there is; null when there is none, or when they are in #set. */
  #only: PinnedRun | null = null;
  #set: OrderedSpans<PinnedRun> | null = null;
  /** In-kernel accesses of exactly [first, last], by `first/last`. */
  #accesses: Map<string, number> | null = null;

  /** Pages of the current process's memory, or of a file (`type`). */
  constructor(
    host: PagesHost,
    source: PinnableMemory,
    startPage: number,
    npages: number,
    writable: boolean,
    type: PagesType = 'user',
  ) {
    this.host = host;
    this.type = type;
    this.#source = source;
    this.startPage = startPage;
    this.npages = npages;
    this.writable = writable;
    this.owner = host.core.current;
    if (type === 'dmabuf' || this.owner.capable(CAP_IPC_LOCK)) this.accountMode = ACCOUNT_NONE;
    else this.accountMode = host.accountMode === ACCOUNT_MM ? ACCOUNT_MM : ACCOUNT_USER;
  }

  /** Pages pinned and charged. */
  get npinned(): number {
    return this.#npinned;
  }

  get(): this {
    this.refs++;
    return this;
  }

  put(): void {
    if (--this.refs > 0) return;
    if (this.#npinned > 0) bug('pages freed while pinned');
    this.released();
  }

  /** The last reference is gone. */
  protected released(): void {
    this.#source.put?.();
  }

  /**
   * Pin pages for one more filled area, and charge for those that nobody held.
   * @param last  inclusive
   * @returns 0 | -EFAULT no user memory there, or its process is gone | -EINVAL past the end of a file | -ENOMEM
   *   over RLIMIT_MEMLOCK; nothing is pinned then
   */
  acquire(first: number, last: number): number {
    if (this.host.core.allocFails('pfn_batch')) return -ENOMEM;
    const before = this.#npinned;
    const status = this.#pin(first, last);
    return status < 0 ? status : this.#charge(first, last, before);
  }

  /** Undo acquire() for the same range, or for a prefix of it. */
  release(first: number, last: number): void {
    const before = this.#npinned;
    this.#unpin(first, last);
    if (this.#npinned < before) unchargePinned(this.owner, this.accountMode, before - this.#npinned);
  }

  /**
   * Whether frames may be given back after the SYNCs of their unmap. Where one failed, an SMMU or the ATC of a device
   * may still lead to them; Linux 7.0 goes on as if it had an answer.
   * @param status  of the SYNCs: 0 or -errno
   */
  mayRelease(status: number): boolean {
    return status === 0 || this.host.core.compat === '7.0';
  }

  /** In place of release(): something that did not answer may still use the frames. They are never given back. */
  withhold(): void {
    this.get();
  }

  /**
   * Pin pages for an in-kernel access.
   * @param out  their frames are appended
   * @param flags  ACCESS_RW_*
   * @returns 0 | -EPERM writing to read-only pages | as acquire()
   * @source iopt_area_add_access
   */
  addAccess(first: number, last: number, out: number[], flags: number): number {
    if ((flags & ACCESS_RW_WRITE) !== 0 && !this.writable) return -EPERM;
    const key = `${first}/${last}`;
    this.#accesses ??= new Map();
    const users = this.#accesses.get(key) ?? 0;
    if (users === 0) {
      const status = this.#fillAccess(first, last);
      if (status < 0) return status;
    }
    this.#accesses.set(key, users + 1);
    this.forEachRun(first, last, (_index, pfn, pages) => {
      for (let i = 0; i < pages; i++) out.push(pfn + i);
      return 0;
    });
    return 0;
  }

  /** Whether there is an access of exactly this range. */
  hasAccess(first: number, last: number): boolean {
    return this.#accesses?.has(`${first}/${last}`) ?? false;
  }

  /** Undo addAccess() of exactly this range. @source iopt_area_remove_access */
  removeAccess(first: number, last: number): void {
    const key = `${first}/${last}`;
    const users = this.#accesses?.get(key);
    if (users === undefined) bug(`pages ${first} to ${last} are not held by an access`);
    if (users > 1) {
      this.#accesses!.set(key, users - 1);
      return;
    }
    this.#accesses!.delete(key);
    this.release(first, last);
  }

  /**
   * Copy between `data` and the bytes from (page index, offset) on, without holding the pages.
   * @param flags  ACCESS_RW_*
   * @returns 0 | -EPERM | -EFAULT | -EINVAL
   * @source iopt_pages_rw_access
   */
  rw(index: number, offset: number, data: Uint8Array, flags: number): number {
    const write = (flags & ACCESS_RW_WRITE) !== 0;
    if (write && !this.writable) return -EPERM;
    const last = index + Math.floor((offset + data.byteLength - 1) / PAGE_SIZE);
    if (this.type !== 'user') return this.#rwSlow(index, last, offset, data, write);
    const { mm } = this.owner;
    const foreign = this.host.core.current.mm !== mm || (flags & ACCESS_RW_SLOW_PATH) !== 0;
    if (foreign && !mm.alive) return this.#rwSlow(index, last, offset, data, write);
    if (foreign && (flags & ACCESS_RW_KTHREAD) === 0)
      return index === last
        ? this.#rwPage(index, offset, data, write)
        : this.#rwSlow(index, last, offset, data, write);
    const va = (BigInt(this.startPage + index) << 12n) + BigInt(offset);
    return write ? mm.copyOut(va, data) : mm.copyIn(va, data);
  }

  /**
   * Visit pinned pages as the longest physically contiguous runs.
   * @param visit  called with (index of the run's first page, pfn, pages); a negative result ends the visit
   * @returns 0 | the negative result
   */
  forEachRun(
    first: number,
    last: number,
    visit: (index: number, pfn: number, pages: number) => number,
  ): number {
    const only = this.#only;
    if (only !== null && only.firstPage <= first && only.lastPage >= last)
      return Math.min(visit(first, only.pfn + (first - only.firstPage), last - first + 1), 0);
    const runs = this.#all();
    let run = runs.firstIn(first, 0, last, 0);
    let index = first;
    while (index <= last) {
      if (run === undefined || run.firstPage > index) bug(`page ${index} is not pinned`);
      const start = index;
      const pfn: number = run.pfn + (index - run.firstPage);
      do {
        index = Math.min(run.lastPage, last) + 1;
        run = index <= last ? runs.next(run) : undefined;
      } while (run !== undefined && run.firstPage === index && run.pfn === pfn + (index - start));
      const status = visit(start, pfn, index - start);
      if (status < 0) return status;
    }
    return 0;
  }

  /** @returns frame of page `first` when [first, last] is one pinned run, else -1: see forEachRun */
  soleRun(first: number, last: number): number {
    const only = this.#only;
    if (only === null || only.firstPage > first || only.lastPage < last) return -1;
    return only.pfn + (first - only.firstPage);
  }

  /** Charges what was pinned since there were `before` pages; unpins [first, last] when that is too much. */
  #charge(first: number, last: number, before: number): number {
    const pages = this.#npinned - before;
    if (pages === 0) return 0;
    const status = this.host.core.allocFails('update_pinned')
      ? -ENOMEM
      : chargePinned(this.owner, this.accountMode, pages);
    if (status < 0) this.#unpin(first, last);
    return status;
  }

  /** @source iopt_pages_fill_xarray */
  #fillAccess(first: number, last: number): number {
    const { core } = this.host;
    if (core.allocFails('iopt_pages_access')) return -ENOMEM;
    const before = this.#npinned;
    const status = this.#pin(first, last);
    if (status < 0) return status;
    // The xarray takes no part in fault injection otherwise.
    if (core.allocFails('pages_to_xarray')) {
      this.#unpin(first, last);
      return -EINVAL;
    }
    return this.#charge(first, last, before);
  }

  /** By frames, as a domain would see them. Held for the copy only, and not charged. @source iopt_pages_rw_slow */
  #rwSlow(first: number, last: number, offset: number, data: Uint8Array, write: boolean): number {
    const { core } = this.host;
    if (core.allocFails('pfn_batch')) return -ENOMEM;
    const status = this.#pin(first, last);
    if (status < 0) return status;
    let at = 0;
    let from = offset;
    const copied = this.forEachRun(first, last, (_index, pfn, pages) => {
      const bytes = Math.min(pages * PAGE_SIZE - from, data.byteLength - at);
      const part = data.subarray(at, at + bytes);
      at += bytes;
      const moved = write ? core.physical.write(pfn, from, part) : core.physical.read(pfn, from, part);
      from = 0;
      return moved;
    });
    this.#unpin(first, last);
    return copied;
  }

  /** One page of another process, which may have moved since it was pinned. @source iopt_pages_rw_page */
  #rwPage(index: number, offset: number, data: Uint8Array, write: boolean): number {
    const { core } = this.host;
    if (core.allocFails('pin_user_pages_remote')) return -EINVAL;
    const status = this.#source.runAt(this.startPage + index, found, write);
    if (status < 0) return status;
    const { pfn } = found;
    this.#source.pin(pfn, 1);
    const moved = write ? core.physical.write(pfn, offset, data) : core.physical.read(pfn, offset, data);
    this.#source.unpin(pfn, 1);
    return moved;
  }

  /** Pins [first, last] once more; nothing is charged. @returns 0 | -errno with nothing pinned */
  #pin(first: number, last: number): number {
    if (this.#set === null) {
      const status = this.#pinOnly(first, last);
      if (status <= 0) return status;
    }
    const runs = this.#all();
    this.#splitAt(first);
    this.#splitAt(last + 1);
    let index = first;
    while (index <= last) {
      const run = runs.firstIn(index, 0, last, 0);
      const holeEnd = run === undefined ? last + 1 : run.firstPage;
      const status = this.#pinHole(index, holeEnd);
      if (status < 0) {
        // #pinHole left nothing of its own hole; what came before it goes as one.
        if (index > first) this.#unpin(first, index - 1);
        return status;
      }
      if (run === undefined) break;
      run.uses++;
      index = run.lastPage + 1;
    }
    return 0;
  }

  /** Undo #pin() for the same range, or for a prefix of it. */
  #unpin(first: number, last: number): void {
    const only = this.#only;
    if (only !== null && only.firstPage === first && only.lastPage === last) {
      if (--only.uses > 0) return;
      this.#only = null;
      this.#npinned -= last - first + 1;
      this.#source.unpin(only.pfn, last - first + 1);
      return;
    }
    const runs = this.#all();
    this.#splitAt(first);
    this.#splitAt(last + 1);
    let run = runs.firstIn(first, 0, last, 0);
    while (run !== undefined && run.firstPage <= last) {
      const after = runs.next(run);
      if (--run.uses === 0) {
        const pages = run.lastPage - run.firstPage + 1;
        runs.remove(run);
        this.#npinned -= pages;
        this.#source.unpin(run.pfn, pages);
      }
      run = after;
    }
  }

  /** #pin() while there is at most one run. @returns 0 | -errno | 1 there will be several */
  #pinOnly(first: number, last: number): number {
    const only = this.#only;
    if (only !== null) {
      if (only.firstPage !== first || only.lastPage !== last) return 1;
      only.uses++;
      return 0;
    }
    const status = this.#lookUp(first);
    if (status < 0) return status;
    const { pfn, pages } = found;
    if (pages <= last - first) return 1;
    this.#source.pin(pfn, last - first + 1);
    this.#npinned += last - first + 1;
    this.#only = runOf(first, last, pfn, 1);
    return 0;
  }

  /** All the runs, as a set from here on. */
  #all(): OrderedSpans<PinnedRun> {
    if (this.#set === null) {
      this.#set = new OrderedSpans();
      if (this.#only !== null) this.#set.insert(this.#only);
      this.#only = null;
    }
    return this.#set;
  }

  /** Pins [index, end), which nothing covers. @returns 0 | -errno with nothing pinned */
  #pinHole(index: number, end: number): number {
    let at = index;
    while (at < end) {
      const status = this.#lookUp(at);
      if (status < 0) {
        if (at > index) this.#unpin(index, at - 1);
        return status;
      }
      const pages = Math.min(found.pages, end - at);
      this.#source.pin(found.pfn, pages);
      this.#npinned += pages;
      this.#all().insert(runOf(at, at + pages - 1, found.pfn, 1));
      at += pages;
    }
    return 0;
  }

  /** What lies behind a page that nothing holds, in `found`. @source pfn_reader_user_pin */
  #lookUp(index: number): number {
    const { core } = this.host;
    if (core.allocFails('upages')) return -ENOMEM;
    if (this.type === 'user' && !this.owner.mm.alive) return -EFAULT;
    if (core.allocFails('pin_user_pages')) return -EFAULT;
    return this.#source.runAt(this.startPage + index, found, this.writable);
  }

  /** Makes `index` the start of a run if it lies inside one. */
  #splitAt(index: number): void {
    const runs = this.#all();
    const run = runs.firstIn(index, 0, index, 0);
    if (run === undefined || run.firstPage === index) return;
    const right = runOf(index, run.lastPage, run.pfn + (index - run.firstPage), run.uses);
    run.lastPage = index - 1;
    runs.insert(right);
  }
}

/** Scratch of runAt(): what it found is used before anything else can ask. */
const found = { pfn: 0, pages: 0 };

const runOf = (firstPage: number, lastPage: number, pfn: number, uses: number): PinnedRun => ({
  firstPage,
  firstOffset: 0,
  lastPage,
  lastOffset: 0,
  pfn,
  uses,
});
