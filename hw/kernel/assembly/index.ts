/** What the module exports: everything hw/kernel/kernel.ts calls, and the layout constants for their test. */
export {
  atcFindPa,
  atcFindPage,
  atcFoundFillSeq,
  atcFoundPage,
  atcFoundPfn,
  atcFoundSizeLg2,
  atcInvalidate,
  runAtc,
} from './atc';
export { dmaBegin, dmaEnd, dmaPoll } from './dma';
/** Called by dmaBegin alone; exported to remain a function of its own (see there). */
export { runHits } from './hits';
export {
  iotlbCountAsid,
  iotlbCountEl2,
  iotlbCountVmid,
  iotlbFill,
  iotlbFindPa,
  iotlbInit,
  iotlbInvalidateAll,
  iotlbInvalidateAsid,
  iotlbInvalidateEl2All,
  iotlbInvalidateEl2Asid,
  iotlbInvalidateEl2Va,
  iotlbInvalidateIpa,
  iotlbInvalidateVa,
  iotlbInvalidateVmid,
  iotlbProbe,
  iotlbSnapshot,
  snapshotBits,
  snapshotFillSeq,
  snapshotIpaPage,
  snapshotPage,
  snapshotPfn,
  snapshotTag,
} from './iotlb';
export * from './layout';
export { externalWords, machineInit } from './machine';
export { ptGive, ptLookup, ptMap, ptTakeBack, ptTakeFreed, ptUnmap } from './pagetable';
export { ptDirty } from './pagetable-dirty';
export { ptReplace } from './pagetable-replace';
export { answer, takeRequests } from './rings';
export { translate, translateBatch, translateIpa } from './walk';
