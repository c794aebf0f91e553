/** The region of a stress run: the primitives lie at its start, what they guard DATA bytes further. */
import { layout, raw } from '../../../hw/memory/layout.js';

export const StressLayout = layout('stress', 1, { it: raw(32768) });
export const DATA = 16384;
