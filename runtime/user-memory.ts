/**
 * User memory: the virtual address space of the process that holds the iommufd, whose pages the core pins.
 * A guest's RAM is a range of it. Every thread can translate and copy (copy_from_user, copy_to_user); only
 * the core allocates and frees.
 *
 *   VA ---- runs (sorted by VA, in shared memory) ----> frames ---- refs ----> frame allocator
 *
 * A frame stays allocated while anything holds it: one reference for the mapping here, one for each pin. So
 * freeing user memory that is still mapped for DMA is safe, as get_user_pages makes it on Linux. Phantom
 * frames are not counted: they cost nothing and are not reused.
 */
import { bug } from '../hw/memory/bug.js';
import { requireAddress, requireBytes } from '../hw/memory/bytes-argument.js';
import type { FrameAllocator } from '../hw/memory/frame-allocator.js';
import { array, i32, type Layout, layout, line, raw, u32 } from '../hw/memory/layout.js';
import type { MachineMemory } from '../hw/memory/machine-memory.js';
import { SeqLock, seqLockField } from '../hw/sync/seq-lock.js';
import type { SyncEnv } from '../hw/sync/thread.js';
import { OP_LOAD, OP_STORE } from '../hw/sync/words.js';
import { EFAULT, EINVAL, ENOMEM } from '../uapi/abi/errno.js';
import { IommufdError } from '../uapi/abi/iommufd-error.js';
import { type ByteSize, byteSize } from './core/byte-size.js';
import type { Run } from './iova/pinnable-memory.js';
import { MemFile } from './mem-file.js';

/** First user virtual page: VA 0x7000_0000_0000. */
export const USER_BASE_PAGE = 0x7_0000_0000;
const MAX_RUNS = 65536;
const RUN_BYTES = 16;
const PAGE = 4096;
const CHUNKS_LG2: readonly number[] = [12, 21, 30];
const PAGES_2M = 512;
const PAGES_1G = 262144;
/** Pages kept empty between two allocations, so that running off an end faults. */
const GUARD_PAGES = 16;
/** Pages of the address space, 16 TiB: what the page numbers of a run can say. Addresses are not used twice. */
const MAX_PAGES = 0xffff_0000;

/** Writer: the core, under seq. Readers: any thread. */
export const UserMemoryLayout = layout('user-memory', 2, {
  seq: line(seqLockField()),
  runCount: u32(),
  nextPage: u32(),
  /** Each run: page relative to USER_BASE_PAGE, pages, pfn low, pfn high; sorted by page. */
  runs: raw(RUN_BYTES * MAX_RUNS),
});

/** refs[frame]: how many hold the frame. Writers: the core. */
export const frameRefsLayout = (ramBytes: number): Layout =>
  layout('frame-refs', 1, { refs: array(i32(), ramBytes / PAGE) });

function outOfMemory(bytes: bigint): IommufdError {
  return new IommufdError(ENOMEM, 'mmap', { detail: `no ${bytes} bytes of the machine's memory are left` });
}

export interface UserAllocOptions {
  /** One physical run rather than several. */
  readonly contiguous?: boolean;
  /** Frames past the RAM: translated and checked, but without data. */
  readonly phantom?: boolean;
  /** Largest physical chunk to use, log2 of bytes: 12, 21 or 30. */
  readonly chunkLg2?: 12 | 21 | 30;
}

export class UserMemory {
  readonly account = { pinnedVm: 0, lockedVm: 0 };
  readonly alive = true;
  readonly #memory: MachineMemory;
  readonly #base: number;
  readonly #seq: SeqLock;
  readonly #runs: Int32Array;
  readonly #refs: Int32Array;
  /** By frame: holds that are no pins, without the first. Null until a file is mapped. */
  #moreHolds: Int32Array | null = null;
  readonly #firstPfn: number;
  readonly #frames: FrameAllocator | null;

  /**
   * @param env     this thread's
   * @param frames  the allocator on the core's thread; null elsewhere, where nothing is allocated
   */
  constructor(memory: MachineMemory, env: SyncEnv, frames: FrameAllocator | null) {
    this.#memory = memory;
    this.#frames = frames;
    this.#base = memory.region(UserMemoryLayout, 'user').base;
    this.#seq = new SeqLock(env, this.#base + UserMemoryLayout.at.seq);
    const runs = (this.#base + UserMemoryLayout.at.runs) >> 2;
    this.#runs = memory.i32.subarray(runs, runs + (MAX_RUNS * RUN_BYTES) / 4);
    const refsLayout = frameRefsLayout(memory.ram.bytes);
    const refs = memory.region(refsLayout, 'frame-refs').base >> 2;
    this.#refs = memory.i32.subarray(refs, refs + memory.ram.bytes / PAGE);
    this.#firstPfn = memory.ram.basePa / PAGE;
  }

  static allocRegions(memory: MachineMemory): void {
    memory.allocRegion(UserMemoryLayout, 'user');
    memory.allocRegion(frameRefsLayout(memory.ram.bytes), 'frame-refs');
  }

  /**
   * mmap of anonymous memory, zeroed and populated.
   * @param bytes  more than 0, rounded up to whole pages; a number, a bigint or '16MiB'
   * @returns the user virtual address
   * @throws IommufdError ENOMEM | EINVAL nothing asked for
   * @throws RangeError when `bytes` is not a size, or `chunkLg2` no chunk
   */
  alloc(bytes: ByteSize, options: UserAllocOptions = {}): bigint {
    const size = byteSize(bytes, 'bytes');
    const runs = this.#populate(size, options, 'mmap');
    const va = this.#place(runs);
    if (va < 0n) {
      this.#drop(runs);
      throw outOfMemory(size);
    }
    return va;
  }

  /**
   * memfd_create, ftruncate and populate: a file of zeroes that lives in the machine's memory. The caller holds it
   * (`put()` gives it back); IommufdCore.memfd() makes one with a descriptor.
   * @throws as alloc()
   */
  createFile(bytes: ByteSize, options: UserAllocOptions = {}): MemFile {
    const size = byteSize(bytes, 'bytes');
    return new MemFile(this, size, this.#populate(size, options, 'memfd_create'));
  }

  /**
   * mmap(MAP_SHARED) of a file: the frames behind the address are the file's.
   * @param offset  bytes, whole pages
   * @param bytes   up to the end when absent
   * @returns the user virtual address
   * @throws IommufdError EINVAL not whole pages of the file | ENOMEM
   */
  map(file: MemFile, offset = 0n, bytes: bigint = file.sizeBytes - offset): bigint {
    const pages = Math.ceil(Number(bytes) / PAGE);
    const firstPage = Number(offset) / PAGE;
    const filePages = Math.ceil(Number(file.sizeBytes) / PAGE);
    if (!Number.isInteger(firstPage) || firstPage < 0 || pages <= 0 || firstPage + pages > filePages)
      throw new IommufdError(EINVAL, 'mmap', { field: 'offset' });
    const runs = file.runsOf(firstPage, pages);
    const va = this.#place(runs);
    if (va < 0n) throw outOfMemory(bytes);
    for (const { pfn, pages: n } of runs) this.#holdMore(pfn, n);
    return va;
  }

  /** Zeroed frames, each held once. */
  #populate(size: bigint, options: UserAllocOptions, call: string): Run[] {
    const frames = this.#owner();
    const { chunkLg2 = 30 } = options;
    if (!CHUNKS_LG2.includes(chunkLg2))
      throw new RangeError(`chunkLg2: ${String(chunkLg2)} is none of ${CHUNKS_LG2.join(', ')}`);
    const pages = Math.ceil(Number(size) / PAGE);
    if (pages === 0) throw new IommufdError(EINVAL, call, { field: 'bytes' });
    if (pages > MAX_PAGES) throw outOfMemory(size);
    const runs: Run[] = [];
    if (this.#allocRuns(frames, pages, options, runs) < 0) {
      for (const { pfn, pages: n } of runs) frames.free(pfn, n);
      throw outOfMemory(size);
    }
    for (const { pfn, pages: n } of runs) {
      if (frames.isPhantom(pfn)) continue;
      frames.zero(pfn, n);
      this.pin(pfn, n);
    }
    return runs;
  }

  #drop(runs: readonly Run[]): void {
    for (const { pfn, pages } of runs) this.drop(pfn, pages);
  }

  /** A hold besides the first that every frame in use has: another mapping of a file's frames. */
  #holdMore(pfn: number, pages: number): void {
    this.pin(pfn, pages);
    this.#moreHolds ??= new Int32Array(this.#refs.length);
    const first = pfn - this.#firstPfn;
    for (let i = first; i < first + pages; i++) this.#moreHolds[i]!++;
  }

  /** Gives runs of frames an address. @returns it, or -1 when there is no room */
  #place(runs: readonly Run[]): bigint {
    const { words } = this.#memory;
    const pages = runs.reduce((sum, run) => sum + run.pages, 0);
    const next = words.load(this.#base + UserMemoryLayout.at.nextPage) >>> 0;
    const align = pages >= PAGES_1G ? PAGES_1G : pages >= PAGES_2M ? PAGES_2M : 1;
    const first = Math.ceil((next + GUARD_PAGES) / align) * align;
    if (first + pages > MAX_PAGES || this.#count() + runs.length > MAX_RUNS) return -1n;
    this.#write(() => {
      let index = this.#count();
      let page = first;
      for (const { pfn, pages: n } of runs) {
        this.#setRun(index++, page, n, pfn);
        page += n;
      }
      words.store(this.#base + UserMemoryLayout.at.runCount, index);
      words.store(this.#base + UserMemoryLayout.at.nextPage, page);
    });
    return BigInt(USER_BASE_PAGE + first) << 12n;
  }

  /** munmap of what one alloc or map returned, whole. @returns 0 | -EFAULT nothing begins there | -EINVAL only a part of it */
  free(va: bigint, bytes: number): number {
    const first = Number(va >> 12n) - USER_BASE_PAGE;
    const end = first + Math.ceil(bytes / PAGE);
    const from = this.#find(first);
    if (from < 0 || this.#runs[from * 4]! >>> 0 !== first) return -EFAULT;
    let to = from;
    while (to < this.#count() && this.#runs[to * 4]! >>> 0 < end) to++;
    // Allocations never touch: a run that goes on where another ends is of the same one.
    if (from > 0 && this.#endOf(from - 1) === first) return -EFAULT;
    const more = to < this.#count() && this.#runs[to * 4]! >>> 0 === end;
    if (this.#endOf(to - 1) !== end || more) return -EINVAL;
    const dropped: Run[] = [];
    for (let i = from; i < to; i++)
      dropped.push({ pfn: this.#pfnOf(i), pages: this.#runs[i * 4 + 1]! >>> 0 });
    this.#write(() => {
      const count = this.#count();
      this.#runs.copyWithin(from * 4, to * 4, count * 4);
      this.#memory.words.store(this.#base + UserMemoryLayout.at.runCount, count - (to - from));
    });
    this.#drop(dropped);
    return 0;
  }

  /**
   * The physical run behind a user page.
   * @param out  pfn of that page and how many pages go on contiguously from it
   * @returns 0 | -EFAULT nothing mapped there
   */
  runAt(vaPage: number, out: Run): number {
    const page = vaPage - USER_BASE_PAGE;
    for (;;) {
      const ticket = this.#seq.readBegin();
      // The core died in the middle of a change: nobody knows what is mapped.
      if (ticket < 0) return -EFAULT;
      const index = page < 0 ? -1 : this.#find(page);
      if (index >= 0) {
        const offset = page - (this.#runs[index * 4]! >>> 0);
        out.pfn = this.#pfnOf(index) + offset;
        out.pages = (this.#runs[index * 4 + 1]! >>> 0) - offset;
      }
      if (!this.#seq.readRetry(ticket)) return index < 0 ? -EFAULT : 0;
    }
  }

  /** Holds frames (get_user_pages); phantom frames are not counted. Core only. */
  pin(pfn: number, pages: number): void {
    if (this.#isPhantom(pfn)) return;
    const first = pfn - this.#firstPfn;
    for (let i = first; i < first + pages; i++) this.#refs[i]!++;
  }

  /** Drops holds; a frame nobody holds goes back to the allocator. Core only. */
  unpin(pfn: number, pages: number): void {
    const frames = this.#owner();
    if (this.#isPhantom(pfn)) return;
    const first = pfn - this.#firstPfn;
    let runStart = -1;
    for (let i = first; i <= first + pages; i++) {
      const gone = i < first + pages && --this.#refs[i]! === 0;
      if (i < first + pages && this.#refs[i]! < 0) bug(`frame ${i + this.#firstPfn} unpinned once too often`);
      if (gone && runStart < 0) runStart = i;
      if (!gone && runStart >= 0) {
        frames.free(runStart + this.#firstPfn, i - runStart);
        runStart = -1;
      }
    }
  }

  drop(pfn: number, pages: number): void {
    const more = this.#moreHolds;
    if (more !== null && !this.#isPhantom(pfn)) {
      const first = pfn - this.#firstPfn;
      for (let i = first; i < first + pages; i++) if (more[i]! > 0) more[i]!--;
    }
    this.unpin(pfn, pages);
  }

  /** How many hold a RAM frame: 1 for being mapped in user memory, 1 for its file, 1 for each pin. */
  refs(pfn: number): number {
    return this.#refs[pfn - this.#firstPfn] ?? 0;
  }

  /** How often a frame behind user memory is pinned; -1 for a phantom frame, which is not counted. */
  pinsOf(pfn: number): number {
    const refs = this.#refs[pfn - this.#firstPfn];
    return refs === undefined ? -1 : refs - 1 - (this.#moreHolds?.[pfn - this.#firstPfn] ?? 0);
  }

  /** copy_from_user. @returns 0 | -EFAULT @throws TypeError */
  copyIn(va: bigint, into: Uint8Array): number {
    requireAddress(va, 'va');
    requireBytes(into, 'into');
    return this.#copy(va, into.byteLength, (linear, at, n) => {
      this.#memory.words.bytes(OP_LOAD, linear);
      into.set(this.#memory.u8.subarray(linear, linear + n), at);
    });
  }

  /** copy_to_user. @returns 0 | -EFAULT @throws TypeError */
  copyOut(va: bigint, from: Uint8Array): number {
    requireAddress(va, 'va');
    requireBytes(from, 'from');
    return this.#copy(va, from.byteLength, (linear, at, n) => {
      this.#memory.words.bytes(OP_STORE, linear);
      this.#memory.u8.set(from.subarray(at, at + n), linear);
    });
  }

  /** Linear offset of `bytes` user bytes when they lie together in RAM, else -1. */
  linearOf(va: bigint, bytes: number): number {
    const run: Run = { pfn: 0, pages: 0 };
    const offset = Number(va & 0xfffn);
    if (this.runAt(Number(va >> 12n), run) < 0 || offset + bytes > run.pages * PAGE) return -1;
    return this.#memory.linearOf(run.pfn * PAGE + offset, bytes);
  }

  #copy(va: bigint, bytes: number, move: (linear: number, at: number, n: number) => void): number {
    const run: Run = { pfn: 0, pages: 0 };
    // Checked first, moved second: a partial copy would not be all or nothing.
    for (const doMove of [false, true]) {
      let at = 0;
      while (at < bytes) {
        const where = va + BigInt(at);
        if (where < 0n || this.runAt(Number(where >> 12n), run) < 0) return -EFAULT;
        const offset = Number(where & 0xfffn);
        const n = Math.min(bytes - at, run.pages * PAGE - offset);
        const linear = this.#memory.linearOf(run.pfn * PAGE + offset, n);
        if (linear < 0) return -EFAULT;
        if (doMove) move(linear, at, n);
        at += n;
      }
    }
    return 0;
  }

  #allocRuns(frames: FrameAllocator, pages: number, options: UserAllocOptions, runs: Run[]): number {
    const { contiguous = false, phantom = false, chunkLg2 = 30 } = options;
    const align = pages >= PAGES_1G ? PAGES_1G : pages >= PAGES_2M ? PAGES_2M : 1;
    if (phantom || contiguous) {
      const pfn = phantom ? frames.allocPhantom(pages, align) : frames.allocRun(pages, align);
      if (pfn >= 0) runs.push({ pfn, pages });
      return Math.min(pfn, 0);
    }
    let left = pages;
    let lg2: number = chunkLg2;
    while (left > 0) {
      while (lg2 > 12 && 2 ** (lg2 - 12) > left) lg2 -= 9;
      const pfn = frames.alloc(lg2);
      if (pfn < 0) {
        if (lg2 === 12) return pfn;
        lg2 -= 9;
        continue;
      }
      const n = 2 ** (lg2 - 12);
      const last = runs[runs.length - 1];
      if (last && last.pfn + last.pages === pfn) last.pages += n;
      else runs.push({ pfn, pages: n });
      left -= n;
    }
    return 0;
  }

  /** Index of the run that holds a relative page, or -1. */
  #find(page: number): number {
    let low = 0;
    let high = Math.min(this.#count(), MAX_RUNS) - 1;
    while (low <= high) {
      const mid = (low + high) >>> 1;
      const first = this.#runs[mid * 4]! >>> 0;
      if (page < first) high = mid - 1;
      else if (page >= first + (this.#runs[mid * 4 + 1]! >>> 0)) low = mid + 1;
      else return mid;
    }
    return -1;
  }

  #count(): number {
    return this.#memory.words.load(this.#base + UserMemoryLayout.at.runCount);
  }

  /** Relative page after the last of a run. */
  #endOf(index: number): number {
    return (this.#runs[index * 4]! >>> 0) + (this.#runs[index * 4 + 1]! >>> 0);
  }

  #pfnOf(index: number): number {
    return (this.#runs[index * 4 + 2]! >>> 0) + (this.#runs[index * 4 + 3]! >>> 0) * 2 ** 32;
  }

  #setRun(index: number, page: number, pages: number, pfn: number): void {
    this.#runs[index * 4] = page;
    this.#runs[index * 4 + 1] = pages;
    this.#runs[index * 4 + 2] = pfn;
    this.#runs[index * 4 + 3] = Math.floor(pfn / 2 ** 32);
  }

  #write(change: () => void): void {
    this.#seq.writeBegin();
    change();
    this.#seq.writeEnd();
  }

  #isPhantom(pfn: number): boolean {
    return pfn >= this.#firstPfn + this.#refs.length;
  }

  #owner(): FrameAllocator {
    return this.#frames ?? bug('user memory is allocated and released on the core thread only');
  }
}
