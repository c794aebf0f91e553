/** Bugs of locks, rings and waiting: hw/sync. */
import type { ZooEntry } from '../entry.js';

export const syncEntries: readonly ZooEntry[] = [
  {
    bug: 'mutex-wakes-before-release',
    scenario: { file: 'mutex', export: 'mutex2' },
    strategy: 'random',
    budget: 1000,
  },
];
