/**
 * The checker's shared memory: what each frame *ought* to be (the shadow), and what was seen that ought not
 * to be (the violation ring). See perf/README.md, R1: after an invalidation's SYNC no DMA commits with what it
 * invalidated, and no frame is reused before.
 *
 *   core, guests:  before mapping  -> shadow = owner, page          after unmap + SYNC -> shadow = DEAD, canary
 *   device:        translate, move the data, then compare the shadow with the page it asked for; leave epoch
 *
 * In a correct machine the shadow of a frame cannot change between a device's translation and the end of its
 * epoch, so every mismatch is a DMA that used a translation after its invalidation had completed.
 */
import { array, i32, type Layout, layout, line, raw, u32 } from '../../../hw/memory/layout.js';

/** Words of one frame's shadow. */
export const SHADOW_WORDS = 6;
/** The address space that owns the frame: 0 not tracked, DEAD after its unmap. Writer: core. */
export const SHADOW_OWNER = 0;
/** Its page in that address space, low 32 bits (IOVA, or IPA for a VM). Writer: core. */
export const SHADOW_PAGE = 1;
/** Number of the unmap that killed it (UnmapLog). Writer: core. */
export const SHADOW_UNMAP = 2;
/** Guest level: stage-1 page + 1, 0 not tracked, DEAD after the guest's invalidation. Writer: the VM's guest thread. */
export const SHADOW_GUEST_PAGE = 3;
/** Guest level: device whose address space holds it, plus 1. Writer: the VM's guest thread. */
export const SHADOW_GUEST_DEVICE = 4;
/** Guest level: number of the guest invalidation that killed it. Writer: the VM's guest thread. */
export const SHADOW_GUEST_INV = 5;

export const DEAD = -1;
/** An unmap of the frame was not confirmed: whoever touches it may be right or wrong. */
export const UNCERTAIN = -2;

export const shadowLayout = (ramBytes: number): Layout<{ frames: ReturnType<typeof i32> }> =>
  layout('shadow', 1, { frames: array(i32(), (ramBytes / 4096) * SHADOW_WORDS) });

export const VIOLATIONS = 256;
export const VIOLATION_WORDS = 32;

/** One suspected violation, as the thread that saw it wrote it down; word offsets. */
export const V = {
  /** 1 when the record is complete. */
  ready: 0,
  kind: 1,
  device: 2,
  sid: 3,
  iovaLow: 4,
  iovaHigh: 5,
  pfn: 6,
  ipaPage: 7,
  fillSeq: 8,
  source: 9,
  expectedOwner: 10,
  expectedPage: 11,
  owner: 12,
  page: 13,
  unmap: 14,
  guestPage: 15,
  guestDevice: 16,
  guestInv: 17,
  tick: 18,
  write: 19,
  found: 20,
  vm: 21,
  /** log2 of the size of the translation; 0 not known. */
  sizeLg2: 22,
  /** Logical time before the batch was translated, and a bound of it when it had been; 0 without a DMA. */
  began: 23,
  translated: 24,
} as const;

/** Kinds of violation. */
export const KIND_DEAD_FRAME = 1;
export const KIND_WRONG_OWNER = 2;
export const KIND_GUEST_STALE = 3;
export const KIND_READ_CANARY = 4;
export const KIND_WRONG_FAULT = 5;
export const KIND_NO_FAULT = 6;
export const KIND_CANARY_BROKEN = 7;
/** Of a guest: its invalidation is complete, and an ATC still leads to the frame. No DMA is told of. */
export const KIND_ATC_KEPT = 8;
/** A page request was answered with something else than a refusal. */
export const KIND_WRONG_PAGE_RESPONSE = 9;

/** Guest invalidations that completed, for stories: ring of the last ones. */
export const GUEST_INVS = 8192;
export const GUEST_INV_WORDS = 8;

export const CheckerLayout = layout('checker', 1, {
  /** Violations claimed (may exceed VIOLATIONS: the rest is only counted). */
  violations: line(u32()),
  /** Numbers guest invalidations. */
  guestInvs: line(u32()),
  records: raw(VIOLATIONS * VIOLATION_WORDS * 4),
  /** Each: number, vm, device, page, pages, tickIssued, tickDone. */
  guestInvLog: raw(GUEST_INVS * GUEST_INV_WORDS * 4),
});
