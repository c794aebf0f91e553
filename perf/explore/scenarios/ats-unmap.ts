/** Unmapping beside a device that keeps translations in its ATC: the order of TLBI, SYNC and ATC_INV. */
import { BDFS, smallMachine } from './small-host.js';
import { unmapping } from './unmapping.js';

export const atsUnmap = unmapping({
  name: 'ats-unmap',
  about: 'a device writes through its ATC while the page is unmapped and its frame given back',
  invariant: 'R2',
  machine: smallMachine([{ ats: true }], { ats: true }),
});

/**
 * The invalidation is never completed, and the translation stays in the device: what it leads to is not given back.
 * Time passes when everybody sleeps, so that the SMMU gives up.
 */
export const atsTimeout = unmapping({
  name: 'ats-timeout',
  about: 'a device that answers no ATC invalidation goes on writing after the page was unmapped',
  invariant: 'R22',
  machine: smallMachine([{ ats: true }], { ats: true, atcTimeoutNs: 1_000_000 }),
  prepare: ({ machine }) => machine.dmaPort(BDFS[0]).ats.hang(true),
  timeouts: true,
  unmonitored: {
    'command errors': 'the invalidation that is given up is what it is about',
    'address spaces': 'what is withheld stays pinned and charged, and belongs to no area',
  },
});
