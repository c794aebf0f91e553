/** Bugs of objects, their files, and what travels to the core: runtime, workers. */
import type { ZooEntry } from '../entry.js';

export const objectEntries: readonly ZooEntry[] = [
  {
    bug: 'vdevice-published-before-init',
    scenario: { file: 'object-vdevice', export: 'invalidateDuringVdeviceAlloc' },
    strategy: 'random',
    budget: 300,
  },
  {
    bug: 'vsid-used-after-reuse',
    scenario: { file: 'object-vdevice', export: 'invalidateDuringVdeviceDestroy' },
    strategy: 'pct',
    depth: 2,
    budget: 1000,
  },
  {
    bug: 'invalidate-reports-unissued',
    scenario: { file: 'object-vdevice', export: 'invalidateDuringVdeviceDestroy' },
    strategy: 'pct',
    depth: 2,
    budget: 200,
  },
  {
    bug: 'destroy-does-not-wait',
    scenario: { file: 'object-ids', export: 'referenceDuringDestroy' },
    strategy: 'random',
    budget: 500,
  },
  {
    bug: 'id-reused-before-reference-dropped',
    scenario: { file: 'object-ids', export: 'referenceDuringDestroy' },
    strategy: 'random',
    budget: 500,
  },
  {
    bug: 'mailbox-answer-before-result',
    scenario: { file: 'object-mailbox', export: 'mailbox' },
    strategy: 'pct',
    depth: 2,
    budget: 200,
  },
  {
    bug: 'mailbox-serves-abandoned-ticket',
    scenario: { file: 'object-mailbox', export: 'mailbox' },
    strategy: 'pct',
    depth: 2,
    budget: 800,
  },
];
