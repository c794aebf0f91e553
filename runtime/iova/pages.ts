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
 * The frame numbers are kept with the pins, so what the user unmaps or maps anew meanwhile does not matter.
 *
 * @source drivers/iommu/iommufd/pages.c
 */
import { bug } from '../../hw/memory/bug.js';
import { EFAULT } from '../../uapi/abi/errno.js';
import { OrderedSpans } from './ordered-spans.js';
import type { Span } from './span-chunk.js';

/** What pinning needs of user memory. */
export interface PinnableMemory {
  /** @param write  it will be written to (FOLL_WRITE). @returns 0 | -EFAULT */
  runAt(vaPage: number, out: { pfn: number; pages: number }, write?: boolean): number;
  pin(pfn: number, pages: number): void;
  unpin(pfn: number, pages: number): void;
}

/** A pinned run; positions are page indexes inside the IoptPages. */
interface PinnedRun extends Span {
  firstPage: number;
  lastPage: number;
  pfn: number;
  uses: number;
}

export class IoptPages {
  readonly writable: boolean;
  /** Page of the user address where index 0 lies. */
  readonly vaPage: number;
  readonly npages: number;
  /** Areas and lists that point here; kref. */
  refs = 1;
  readonly #user: PinnableMemory;
  /** The one run there is; null when there is none, or when they are in #set. */
  #only: PinnedRun | null = null;
  #set: OrderedSpans<PinnedRun> | null = null;

  constructor(user: PinnableMemory, vaPage: number, npages: number, writable: boolean) {
    this.#user = user;
    this.vaPage = vaPage;
    this.npages = npages;
    this.writable = writable;
  }

  get(): this {
    this.refs++;
    return this;
  }

  put(): void {
    if (--this.refs === 0 && (this.#only !== null || (this.#set?.size ?? 0) > 0))
      bug('pages freed while pinned');
  }

  /**
   * Pin pages for one more filled area.
   * @param last  inclusive
   * @returns 0 | -EFAULT no user memory there; nothing is pinned then
   */
  acquire(first: number, last: number): number {
    if (this.#set === null) {
      const status = this.#acquireOnly(first, last);
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
        if (index > first) this.release(first, index - 1);
        return status;
      }
      if (run === undefined) break;
      run.uses++;
      index = run.lastPage + 1;
    }
    return 0;
  }

  /** Undo acquire() for the same range, or for a prefix of it. */
  release(first: number, last: number): void {
    const only = this.#only;
    if (only !== null && only.firstPage === first && only.lastPage === last) {
      if (--only.uses > 0) return;
      this.#only = null;
      this.#user.unpin(only.pfn, last - first + 1);
      return;
    }
    const runs = this.#all();
    this.#splitAt(first);
    this.#splitAt(last + 1);
    let run = runs.firstIn(first, 0, last, 0);
    while (run !== undefined && run.firstPage <= last) {
      const after = runs.next(run);
      if (--run.uses === 0) {
        runs.remove(run);
        this.#user.unpin(run.pfn, run.lastPage - run.firstPage + 1);
      }
      run = after;
    }
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

  /** acquire() while there is at most one run. @returns 0 | -EFAULT | 1 there will be several */
  #acquireOnly(first: number, last: number): number {
    const only = this.#only;
    if (only !== null) {
      if (only.firstPage !== first || only.lastPage !== last) return 1;
      only.uses++;
      return 0;
    }
    if (this.#user.runAt(this.vaPage + first, found, this.writable) < 0) return -EFAULT;
    const { pfn, pages } = found;
    if (pages <= last - first) return 1;
    this.#user.pin(pfn, last - first + 1);
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

  /** Pins [index, end), which nothing covers. @returns 0 | -EFAULT with nothing pinned */
  #pinHole(index: number, end: number): number {
    let at = index;
    while (at < end) {
      if (this.#user.runAt(this.vaPage + at, found, this.writable) < 0) {
        if (at > index) this.release(index, at - 1);
        return -EFAULT;
      }
      const pages = Math.min(found.pages, end - at);
      this.#user.pin(found.pfn, pages);
      this.#all().insert(runOf(at, at + pages - 1, found.pfn, 1));
      at += pages;
    }
    return 0;
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
