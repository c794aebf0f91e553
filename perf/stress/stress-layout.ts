/**
 * What the threads of a stress run tell each other: one region `stress`, a block of counters for each device
 * and for each guest, each with a single writer, read by the main thread for display and for the report.
 */
import { layout, line, raw, u32, u64 } from '../../hw/memory/layout.js';
import { PAGE_TABLE_BYTES } from '../../hw/pagetable/page-table-layout.js';
import { histogramField } from '../report/histogram.js';

export const MAX_STRESS_DEVICES = 256;
export const MAX_STRESS_GUESTS = 64;
/** Guest pages a nested device may be given. */
export const MAX_GUEST_SLOTS = 1024;

/** State of a guest slot, as the guest publishes it for the devices: a hint, not part of any check. */
export const SLOT_UNMAPPED = 0;
export const SLOT_MAPPED = 1;
export const SLOT_CHANGING = 2;

/** One device's traffic. Writer: its task. Counters are 64-bit (low word first), monotonic. */
export const DeviceStats = layout('device-stats', 1, {
  /** 1 once the first DMA has completed, 2 when no more will come. */
  running: u32(),
  /** 1 while it may send DMA; a nested device looks at its guest's `ready` after setting it. */
  active: line(u32()),
  dmas: line(u64()),
  /** Shadow comparisons made: of addresses from the device's own ATC (R2), of all others (R1). */
  atcChecks: u64(),
  checks: u64(),
  /** Hostile transactions whose answer was compared (FAULT). */
  faultChecks: u64(),
  maps: u64(),
  unmaps: u64(),
  /** Times it was detached and attached again. */
  reattaches: u64(),
  /** Ioctls refused for a reason that load explains (-ENOMEM, -EBUSY); anything else is a violation. */
  refused: u64(),
  /** Faults answered to this device, by what their event should be. */
  translationFaults: u64(),
  permissionFaults: u64(),
  badStreams: u64(),
  badSubstreams: u64(),
  /** Translated transactions, and Translation Requests, of a device that may not use ATS. */
  forbiddenTranslated: u64(),
  forbiddenRequests: u64(),
  /** Translation Requests not granted, or refused for the configuration: without an event. */
  notGranted: u64(),
  /** Page requests made. */
  pageRequests: u64(),
  /** Aborted without an event: the stream is blocked. */
  aborts: u64(),
  otherFaults: u64(),
  /** Translating a batch of which at least one transaction missed the caches. */
  missLatency: histogramField(),
});

/** One guest's churn. Writer: its task. */
export const GuestStats = layout('guest-stats', 1, {
  /** 1 while its streams translate; 0 while it is being set up or ended. */
  ready: line(u32()),
  /** Its address space of guest physical addresses, from ready on. */
  ioasId: u32(),
  maps: line(u64()),
  unmaps: u64(),
  invalidations: u64(),
  balloons: u64(),
  /** Times the VM was ended and made anew. */
  restarts: u64(),
  canaryChecks: u64(),
  /** ATCs looked into after an invalidation (R2). */
  atcScans: u64(),
  events: u64(),
  /** Issue to completion of a guest invalidation. */
  latency: histogramField(),
});

export const StressLayout = layout('stress', 1, {
  /** Guests that are ready; devices of a guest wait for it. */
  guestsReady: line(u32()),
  devices: raw(DeviceStats.size * MAX_STRESS_DEVICES),
  guests: raw(GuestStats.size * MAX_STRESS_GUESTS),
  /** A byte a slot, MAX_GUEST_SLOTS a device. Writer: the guest that owns the device. */
  slots: raw(MAX_GUEST_SLOTS * MAX_STRESS_DEVICES),
  /** Page-table descriptors of the guests' address spaces, one a device. Writer: the guest that owns it. */
  tables: raw(PAGE_TABLE_BYTES * MAX_STRESS_DEVICES),
});
