/**
 * Leaf and table descriptors of AArch64 VMSAv8-64 as both stages read them, and the geometry that depends on the
 * granule. [DDI0487] D8.3. Which permissions the bits grant is in permissions.ts.
 */
import { CONTEXT_FLAG_S1_HA, CONTEXT_FLAG_S1_HD, CONTEXT_FLAG_S2_HA, CONTEXT_FLAG_S2_HD } from './layout';

/** Next-level table or output address in a descriptor, bits 47:12. */
export const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
export const AF: u64 = 1 << 10;
export const NG: u64 = 1 << 11;
export const DBM: u64 = 1 << 51;
export const CONTIGUOUS: u64 = 1 << 52;
/** Bits 51:48 of an address, as a descriptor of a 64 KiB granule holds them. */
const HIGH_ADDRESS: u64 = 0xf000;
const HIGH_ADDRESS_SHIFT: u64 = 36;
/** Stage 2: S2AP[1], and MemAttr[3:2], which is 0 for Device memory, with S2FWB or without. */
export const S2_WRITE: u64 = 1 << 7;
export const MEMATTR_HIGH: u64 = 3 << 4;

export const HA_HD_S1: u32 = CONTEXT_FLAG_S1_HA | CONTEXT_FLAG_S1_HD;
export const HA_HD_S2: u32 = CONTEXT_FLAG_S2_HA | CONTEXT_FLAG_S2_HD;

/**
 * Whether the leaf's dirty state is hardware's (HD counts only with HA). Such a leaf never stands for its
 * contiguous group: a write must mark the page it is for.
 */
export function dirtyByHardware(flags: u32, descriptor: u64, both: u32): bool {
  return ((flags & both) == both) & ((descriptor & DBM) != 0);
}

export function fits(address: u64, bits: u32): bool {
  return bits >= 64 || address >> u64(bits) == 0;
}

/** A root is aligned to its own size, of which the low bits of the register are no part. */
export function alignRoot(root: u64, inputBits: u32, shift: u64): u64 {
  const lg2 = u64(inputBits) - shift + 3;
  return lg2 <= 4 ? root & ~0xf : root & ~(((<u64>1) << lg2) - 1);
}

/** @param wide  64 KiB granule of an SMMU with 52-bit addresses */
export function addressOf(descriptor: u64, wide: bool): u64 {
  let address = descriptor & ADDRESS;
  if (wide) address = (address & ~HIGH_ADDRESS) | ((descriptor & HIGH_ADDRESS) << HIGH_ADDRESS_SHIFT);
  return address;
}

/** Highest level, as the smallest number, at which a block may stand. */
export function firstBlockLevel(granuleLg2: u32, wide: bool): u32 {
  return granuleLg2 == 12 ? 1 : 2 - u32(wide);
}

/** Log2 of the size that a leaf with the contiguous bit stands for. */
export function groupLg2(
  granuleLg2: u32,
  level: u32,
  leafLg2: u64,
  base: u64,
  input: u64,
  inputBits: u32,
  outputBits: u32,
): u64 {
  let more: u64;
  if (granuleLg2 == 12) more = 4;
  else if (granuleLg2 == 14) more = level == 3 ? 7 : 5;
  else more = level == 1 ? 0 : 5;
  const lg2 = leafLg2 + more;
  const place = (((<u64>1) << more) - 1) << leafLg2;
  return lg2 <= u64(min(inputBits, outputBits)) && ((base ^ input) & place) == 0 ? lg2 : leafLg2;
}
