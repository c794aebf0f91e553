/** A page request as the SMMU records it in the PRI queue: 16 bytes, here four u32 words. [IHI0070] 8. */
import { bit, bits, struct } from './bitfield.js';

export const PAGE_REQUEST_BYTES = 16;

export const PAGE_REQUEST = struct('PAGE_REQUEST', PAGE_REQUEST_BYTES, {
  StreamID: bits(31, 0),
  SubstreamID: bits(51, 32),
  Priv: bit(58),
  X: bit(59),
  R: bit(60),
  W: bit(61),
  Last: bit(62),
  SSV: bit(63),
  PRGIndex: bits(72, 64),
  /** Address >> 12. */
  Page: bits(127, 76),
});
