/** Bugs of configuration and invalidation: the SMMU's model, its driver, and the core's order of unmapping. */
import type { ZooEntry } from '../entry.js';

const unmap = { file: 'tlb-unmap', export: 'unmapFreesFrame' };
const vmids = { file: 'tlb-vmids', export: 'unmapTwoVmids' };
const ats = { file: 'ats-unmap', export: 'atsUnmap' };

export const configEntries: readonly ZooEntry[] = [
  {
    bug: 'ste-hitless-without-barrier',
    scenario: { file: 'config-barrier', export: 'switchCdTable' },
    strategy: 'pct',
    budget: 1500,
  },
  {
    bug: 'l1-before-l2-table',
    scenario: { file: 'config-first-attach', export: 'firstAttach' },
    strategy: 'pct',
    budget: 100,
  },
  {
    bug: 'ste-torn',
    scenario: { file: 'config-replace', export: 'replaceStage2' },
    strategy: 'pct',
    budget: 1500,
    depth: 12,
  },
  {
    bug: 'cd-torn',
    scenario: { file: 'config-replace', export: 'replaceStage1' },
    strategy: 'pct',
    budget: 1500,
    depth: 12,
  },
  {
    bug: 'invs-after-ste',
    scenario: { file: 'config-users', export: 'attachAndDetach' },
    strategy: 'pct',
    budget: 500,
  },
  {
    bug: 'tlbi-dropped-under-load',
    scenario: { file: 'tlb-unmap', export: 'unmapUnderLoad' },
    strategy: 'random',
    budget: 200,
  },
  { bug: 'tlbi-skipped', scenario: unmap, strategy: 'pct', budget: 200 },
  { bug: 'sync-completes-early', scenario: unmap, strategy: 'pct', budget: 200 },
  { bug: 'frame-freed-before-sync', scenario: unmap, strategy: 'pct', budget: 200 },
  { bug: 'atc-inv-before-tlbi-sync', scenario: ats, strategy: 'random', budget: 200 },
  { bug: 'atc-inv-skipped', scenario: ats, strategy: 'random', budget: 200 },
  {
    bug: 'device-never-answers-atc-inv',
    scenario: { file: 'ats-unmap', export: 'atsTimeout' },
    strategy: 'random',
    budget: 100,
  },
  { bug: 's2-unmap-skips-a-vmid', scenario: vmids, strategy: 'pct', budget: 200 },
  { bug: 'tlbi-wrong-vmid', scenario: vmids, strategy: 'pct', budget: 200 },
  {
    bug: 'tlbi-nh-va-without-vmid',
    scenario: { file: 'tlb-guest', export: 'guestUnmap' },
    strategy: 'pct',
    budget: 200,
  },
  {
    bug: 'vmid-freed-before-flush',
    scenario: { file: 'config-tags', export: 'vmidReuse' },
    strategy: 'pct',
    budget: 200,
  },
  {
    bug: 'asid-freed-before-flush',
    scenario: { file: 'config-tags', export: 'asidReuse' },
    strategy: 'pct',
    budget: 200,
  },
  {
    bug: 'dirty-cleared-without-flush',
    scenario: { file: 'table-dirty', export: 'dirtyCached' },
    strategy: 'pct',
    budget: 200,
  },
];
