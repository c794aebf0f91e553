/** What the threads of one point tell each other: a region `scale`. Counters are 32-bit and run freely. */
import { layout, line, raw, u32 } from '../../hw/memory/layout.js';
import { PAGE_TABLE_BYTES } from '../../hw/pagetable/page-table-layout.js';
import { histogramField } from '../report/histogram.js';

export const MAX_SCALE_DEVICES = 256;
export const MAX_SCALE_GUESTS = 64;

export const PHASE_WARM_UP = 0;
export const PHASE_MEASURE = 1;
export const PHASE_OVER = 2;

/** One guest. Writer: its task. */
export const ScaleGuest = layout('scale-guest', 1, {
  /** 1 from when its streams translate: its devices wait for it. */
  ready: line(u32()),
  maps: line(u32()),
  invalidations: u32(),
  /** From issuing an invalidation until its SYNC is complete, while the phase is PHASE_MEASURE. */
  latency: histogramField(),
});

export const ScaleLayout = layout('scale', 1, {
  /** PHASE_*. Writer: the main thread. */
  phase: line(u32()),
  guests: raw(ScaleGuest.size * MAX_SCALE_GUESTS),
  /** Page-table descriptors of guests, one a device. Writer: the guest that owns the device. */
  tables: raw(PAGE_TABLE_BYTES * MAX_SCALE_DEVICES),
});
