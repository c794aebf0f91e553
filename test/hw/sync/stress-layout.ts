/** The region of a stress run: the primitives lie at its start, what they guard DATA bytes further. */
import { layout, raw } from '../../../hw/memory/layout.js';

export const StressLayout = layout('stress', 1, { it: raw(32768) });
export const DATA = 16384;
/** Sleeper runs: the test allows the wait to begin; the worker is about to sleep. */
export const GO = DATA + 128;
export const ASLEEP = DATA + 132;
