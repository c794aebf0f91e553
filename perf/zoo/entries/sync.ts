/** Bugs of locks, rings and waiting: hw/sync. */
import type { ZooEntry } from '../entry.js';

export const syncEntries: readonly ZooEntry[] = [
  {
    bug: 'mutex-wakes-before-release',
    scenario: { file: 'mutex', export: 'mutex2' },
    strategy: 'random',
    budget: 1000,
  },
  {
    bug: 'condition-seq-read-after-unlock',
    scenario: { file: 'condition', export: 'conditionSignal2' },
    strategy: 'random',
    budget: 2000,
  },
  {
    bug: 'semaphore-wakes-only-from-zero',
    scenario: { file: 'semaphore', export: 'semaphoreHandOut3' },
    strategy: 'random',
    budget: 2000,
  },
  {
    bug: 'barrier-generation-read-late',
    scenario: { file: 'barrier', export: 'barrier2' },
    strategy: 'dfs',
    preemptions: 3,
    budget: 1000,
  },
  {
    bug: 'doorbell-parked-after-look',
    scenario: { file: 'doorbell', export: 'doorbell2' },
    strategy: 'dfs',
    preemptions: 3,
    budget: 1000,
  },
  {
    bug: 'epoch-enter-without-recheck',
    scenario: { file: 'epoch', export: 'epochVs' },
    strategy: 'random',
    budget: 2000,
  },
  {
    bug: 'ring-published-before-written',
    scenario: { file: 'mpsc-ring', export: 'mpsc3' },
    strategy: 'random',
    budget: 1000,
  },
  {
    bug: 'ring-full-taken-for-empty',
    scenario: { file: 'spsc-ring', export: 'spscSingles' },
    strategy: 'dfs',
    preemptions: 3,
    budget: 1000,
  },
];
