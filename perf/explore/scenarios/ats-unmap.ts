/** Unmapping beside a device that keeps translations in its ATC: the order of TLBI, SYNC and ATC_INV. */
import { smallMachine } from './small-host.js';
import { unmapping } from './unmapping.js';

export const atsUnmap = unmapping({
  name: 'ats-unmap',
  about: 'a device writes through its ATC while the page is unmapped and its frame given back',
  invariant: 'R2',
  machine: smallMachine([{ ats: true }], { ats: true }),
});
