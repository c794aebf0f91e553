/** Unmapping beside a device without ATS: IOTLB, the device's own copies, and what a SYNC waits for. */
import { smallMachine } from './small-host.js';
import { NOWHERE, unmapping } from './unmapping.js';

export const unmapFreesFrame = unmapping({
  name: 'unmap-frees-frame',
  about: 'a device writes to a cached page while it is unmapped and its frame given back',
  invariant: 'R1',
  machine: smallMachine(),
});

export const unmapUnderLoad = unmapping({
  name: 'unmap-under-load',
  about: 'the same, while the device waits for the translation of what is not mapped',
  invariant: 'R1',
  machine: smallMachine(),
  before: [NOWHERE],
});
