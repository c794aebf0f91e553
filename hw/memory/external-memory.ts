/**
 * Memory on a machine's bus that does not lie in its linear memory: reached by calls, on one thread, slowly. The
 * data phase of a device's DMA and the SMMU's own reads come here with addresses that are no RAM.
 *
 * What such memory does not do: hardware update of descriptors (HTTU), and single-copy atomicity of a read with
 * regard to whoever else writes there.
 */
export interface ExternalMemory {
  /** Whether an address is of this memory, though perhaps nothing answers there. */
  includes(pa: number): boolean;
  /** Bytes at a physical address. @returns false on an external abort; `into` then holds nothing of use */
  read(pa: number, into: Uint8Array): boolean;
  /** @returns false on an external abort; a part may have been written */
  write(pa: number, from: Uint8Array): boolean;
}
