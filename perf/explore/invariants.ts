/**
 * R1 to R27 in words: what the scenarios and monitors of machines check, under the names that stories, lists and the
 * bug zoo use. What is not here has its own words: deadlock, lost wake-up, exception, step-limit, a scenario's checks.
 */
export const INVARIANTS: Readonly<Record<string, string>> = {
  R1: 'once the SYNC behind an invalidation is done, no DMA uses the old translation, and only then are frames reused',
  R2: 'no ATC entry made from a translation older than the TLBI survives the ATC_INV, which comes after its SYNC',
  R3: 'while an STE or CD is changed, hardware sees the old one, the new one, or none',
  R4: 'no walk uses an STE, CD or entry of which one half is old and the other new',
  R5: 'a domain lists every SMMU that may cache it: before the STE is written, until after it is gone',
  R6: 'an ASID or VMID is given out only when no IOTLB entry of that SMMU has it',
  R7: 'an unmap from stage 2 reaches every SMMU and VMID of it before it returns',
  R8: "a guest's command reaches the stream that its vSID is, never another's, and what is reported was issued",
  R9: 'no event of a vDEVICE or vIOMMU is delivered once it is destroyed',
  R10: 'each fault that was reported is answered exactly once',
  R11: 'events delivered and events told as lost are together those produced',
  R12: 'a fault group is read whole, and waits until it is answered',
  R13: 'an unmap takes away what was mapped when it began, and nothing mapped meanwhile',
  R14: 'areas, page tables, pins and accesses agree: nobody keeps a page that was unmapped',
  R15: 'no object is touched without a reference, or once it is destroyed',
  R16: 'each write of a device is in this dirty bitmap or in a later one',
  R17: 'no command is overwritten before it is consumed or consumed before it is written, and a SYNC waits for all of its list',
  R18: 'a full ring is not taken for an empty one, wrapped or not',
  R19: 'a command error skips the bad command alone, and is acknowledged once',
  R20: 'an event or page request queue that overflows says so, and goes on',
  R21: 'a completion that a waiter sees means that what it waits for is done',
  R22: 'a device that does not answer an ATC invalidation keeps no access to frames that are used again',
  R23: 'memory of a hardware queue is given back when hardware reads it no more',
  R24: 'a walk sees a page table from before it grew or from after, never half',
  R25: 'locks are taken in one order',
  R26: 'once a dma-buf is revoked, no DMA reaches it',
  R27: 'a VM has one vIOMMU on each physical IOMMU, whoever attaches first',
};

/** `R6: an ASID ...`, or the name alone where it has its own words. */
export function inWords(invariant: string): string {
  const words = INVARIANTS[invariant];
  return words === undefined ? invariant : `${invariant}: ${words}`;
}
