/** Bugs of the compiled kernel: page tables, IOTLB, ATC, and the device's side of a DMA. */
import type { ZooEntry } from '../entry.js';

const unmap = { file: 'tlb-unmap', export: 'unmapFreesFrame' };

export const kernelEntries: readonly ZooEntry[] = [
  {
    bug: 'table-linked-before-filled',
    scenario: { file: 'table-growth', export: 'tableGrowth' },
    strategy: 'pct',
    budget: 1500,
    depth: 8,
  },
  {
    bug: 'dirty-cleared-without-cas',
    scenario: { file: 'table-dirty', export: 'dirtyFirstWrite' },
    strategy: 'pct',
    budget: 1500,
  },
  {
    bug: 'iotlb-fill-unguarded',
    scenario: { file: 'tlb-refill', export: 'refillDuringLookup' },
    strategy: 'pct',
    budget: 1500,
    depth: 8,
  },
  {
    bug: 'atc-fill-unguarded',
    scenario: { file: 'ats-fill', export: 'invalidateDuringFill' },
    strategy: 'pct',
    budget: 4000,
    depth: 8,
  },
  { bug: 'micro-tlb-survives-epoch', scenario: unmap, strategy: 'pct', budget: 200 },
  { bug: 'epoch-entered-unchecked', scenario: unmap, strategy: 'pct', budget: 500, depth: 8 },
];
