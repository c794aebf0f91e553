/**
 * Bugs of the zoo (hw/bugs/bug-switches.ts) that lie in compiled code, each a bit. Only the explore variant has
 * them: elsewhere hasBug() is false when it is compiled, and nothing of them remains.
 */
/** A new table's descriptor is written before the table is filled. */
export const BUG_LINKED_FIRST: u32 = 1 << 0;
/** A leaf is written back clean by a store, whether it was dirty or not. */
export const BUG_DIRTY_NO_CAS: u32 = 1 << 1;
/** The micro-TLB is kept when the generation has moved. */
export const BUG_MICRO_SURVIVES: u32 = 1 << 2;
/** An IOTLB entry is used without a second look at its sequence. */
export const BUG_IOTLB_UNGUARDED: u32 = 1 << 3;
/** The epoch is entered without a second look at the generation. */
export const BUG_EPOCH_UNCHECKED: u32 = 1 << 4;
/** What was put in the ATC stays there whatever was invalidated meanwhile. */
export const BUG_ATC_UNGUARDED: u32 = 1 << 5;

let bugs: u32 = 0;

/** Of this instance; exported by the explore variant alone. */
export function setBugs(bits: u32): void {
  bugs = bits;
}

export function hasBug(bug: u32): bool {
  if (isDefined(EXPLORE)) return (bugs & bug) != 0;
  return false;
}
