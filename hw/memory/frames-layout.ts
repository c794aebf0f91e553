/**
 * The frame allocator's state (key `frames`). Writer: the core thread alone. Readers: anyone, for display and
 * for checks; only `freePages` is published atomically.
 *
 *   used     one bit a RAM frame: handed out (or reserved)
 *   free     one BitTree an order: which blocks of 2^order frames are free as a whole and not part of a larger one
 *   runs     free runs of phantom frames below phantomNext, sorted: [first pfn, end pfn] as float64, exact to 2^53
 */
import { bitTreeBytes } from './frame-allocator-bits.js';
import { array, type Field, i32, type Layout, layout, line, raw, u64 } from './layout.js';

export const FRAME_LG2 = 12;
export const FRAME_BYTES = 2 ** FRAME_LG2;
/** Blocks of 4 KiB (order 0) to 1 GiB (order 18). */
export const ORDERS = 19;
export const PHANTOM_RUNS = 4096;

type FrameFields = 'freePages' | 'runCount' | 'phantomNext' | 'phantomEnd' | 'used' | 'free' | 'runs';

/** @param ramBytes the machine's RAM size, which fixes the region's size */
export function framesLayout(ramBytes: number): Layout<Record<FrameFields, Field>> {
  const frames = ramBytes / FRAME_BYTES;
  return layout('frames', 1, {
    freePages: line(i32()),
    runCount: line(i32()),
    /** First phantom frame never handed out, and the first one past the output address size: float64. */
    phantomNext: u64(),
    phantomEnd: u64(),
    used: raw(Math.ceil(frames / 32) * 4),
    free: raw(freeTreeOffset(frames, ORDERS)),
    runs: line(array(u64(), 2 * PHANTOM_RUNS)),
  });
}

/** Byte offset in `free` of the tree of an order. */
export function freeTreeOffset(frames: number, order: number): number {
  let bytes = 0;
  for (let k = 0; k < order; k++) bytes += bitTreeBytes(blocksOf(frames, k));
  return bytes;
}

/** Whole blocks of an order in `frames` frames; a tree covers at least one. */
export function blocksOf(frames: number, order: number): number {
  return Math.max(1, Math.floor(frames / 2 ** order));
}
