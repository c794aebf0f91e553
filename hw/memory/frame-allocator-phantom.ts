/**
 * Phantom frames: physical addresses past the end of RAM, translated and checked like any other but without
 * a data phase. A bump pointer hands them out; what is freed goes to a sorted table of runs that merge with
 * their neighbours, or back under the bump pointer. The runs are used again once the bump pointer is at the end.
 *
 * The table is bounded: a free that would need one run more than PHANTOM_RUNS forgets its frames. They are
 * then never handed out again, and freeing them twice is not noticed.
 */
import { bug } from './bug.js';
import { framesLayout, PHANTOM_RUNS } from './frames-layout.js';
import { roundUp } from './layout.js';
import type { MachineMemory, Region } from './machine-memory.js';

const ENOMEM = 12;

export class PhantomFrames {
  readonly #i32: Int32Array;
  readonly #count: number;
  /** [0] phantomNext, [1] phantomEnd. */
  readonly #bump: Float64Array;
  /** runs[2i] the first frame of run i, runs[2i + 1] its end. */
  readonly #runs: Float64Array;
  readonly #first: number;

  /** @param first the first frame past the end of RAM */
  constructor(memory: MachineMemory, region: Region, first: number) {
    const { at } = framesLayout(memory.ram.bytes);
    this.#i32 = memory.i32;
    this.#count = (region.base + at.runCount) / 4;
    this.#bump = new Float64Array(memory.buffer, region.base + at.phantomNext, 2);
    this.#runs = new Float64Array(memory.buffer, region.base + at.runs, 2 * PHANTOM_RUNS);
    this.#first = first;
  }

  /** @param end the first frame past the machine's output address size */
  init(end: number): void {
    this.#bump[0] = this.#first;
    this.#bump[1] = Math.max(this.#first, end);
    this.#i32[this.#count] = 0;
  }

  /** @returns the first of `pages` frames, or -ENOMEM */
  alloc(pages: number, alignPages: number): number {
    const next = this.#bump[0]!;
    const pfn = roundUp(next, alignPages);
    if (pfn + pages > this.#bump[1]!) return this.#allocFromRuns(pages, alignPages);
    this.#bump[0] = pfn + pages;
    if (pfn > next) this.#insert(this.#lowerBound(next), next, pfn);
    return pfn;
  }

  free(pfn: number, pages: number): void {
    const end = pfn + pages;
    const next = this.#bump[0]!;
    if (pfn < this.#first || end > next) bug(`free of phantom frames ${pfn}+${pages}, never allocated`);
    const at = this.#lowerBound(pfn);
    const count = this.#i32[this.#count]!;
    const overlapsBefore = at > 0 && this.#runs[2 * at - 1]! > pfn;
    if (overlapsBefore || (at < count && this.#runs[2 * at]! < end))
      bug(`double free of phantom frames ${pfn}+${pages}`);
    this.#insert(at, pfn, end);
    this.#retract();
  }

  #allocFromRuns(pages: number, alignPages: number): number {
    const count = this.#i32[this.#count]!;
    for (let run = 0; run < count; run++) {
      const first = this.#runs[2 * run]!;
      const end = this.#runs[2 * run + 1]!;
      const pfn = roundUp(first, alignPages);
      if (pfn + pages > end) continue;
      this.#remove(run);
      let at = run;
      if (pfn > first) this.#insert(at++, first, pfn);
      if (pfn + pages < end) this.#insert(at, pfn + pages, end);
      return pfn;
    }
    return -ENOMEM;
  }

  /** Index of the first run that begins at or after `pfn`. */
  #lowerBound(pfn: number): number {
    let low = 0;
    let high = this.#i32[this.#count]!;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#runs[2 * middle]! < pfn) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Adds the run [first, end) at its sorted place `at`, merged with the runs that touch it. */
  #insert(at: number, first: number, end: number): void {
    const count = this.#i32[this.#count]!;
    const touchesBefore = at > 0 && this.#runs[2 * at - 1] === first;
    const touchesAfter = at < count && this.#runs[2 * at] === end;
    if (touchesBefore && touchesAfter) {
      this.#runs[2 * at - 1] = this.#runs[2 * at + 1]!;
      this.#remove(at);
    } else if (touchesBefore) {
      this.#runs[2 * at - 1] = end;
    } else if (touchesAfter) {
      this.#runs[2 * at] = first;
    } else if (count < PHANTOM_RUNS) {
      this.#runs.copyWithin(2 * at + 2, 2 * at, 2 * count);
      this.#runs[2 * at] = first;
      this.#runs[2 * at + 1] = end;
      this.#i32[this.#count] = count + 1;
    }
  }

  #remove(run: number): void {
    const count = this.#i32[this.#count]!;
    this.#runs.copyWithin(2 * run, 2 * run + 2, 2 * count);
    this.#i32[this.#count] = count - 1;
  }

  /** The last run joins the frames never handed out when it reaches them. */
  #retract(): void {
    const count = this.#i32[this.#count]!;
    if (count === 0 || this.#runs[2 * count - 1] !== this.#bump[0]) return;
    this.#bump[0] = this.#runs[2 * count - 2]!;
    this.#i32[this.#count] = count - 1;
  }
}
