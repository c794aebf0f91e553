/**
 * Registers of NVIDIA's CMDQV, the command-queue extension beside an SMMUv3. [T241-CMDQV].
 *
 * No specification is public: names, offsets and fields are those that Linux 7.0's driver uses, and what it does not
 * use is not here. Page 0 of a VCMDQ lies where [IHI0070] has the queue registers of an SMMU, field for field.
 *
 *   0x00000  configuration page: CMDQV_*, CMDQ_ALLOC(q), VINTF(v)
 *   0x10000  VCMDQ page 0, by global number: PROD, CONS, CONFIG, STATUS, GERROR, GERRORN
 *   0x20000  VCMDQ page 1, by global number: BASE, CONS_INDX_BASE
 *   0x30000  for each VINTF its page 0 and its page 1, by logical number
 */
import { address, bit, bits, reg32, reg64 } from '../smmuv3/bitfield.js';

export const PAGE_BYTES = 0x10000;
export const VCMDQ_STRIDE = 0x80;
export const VCMDQ_PAGE0 = 0x10000;
export const VCMDQ_PAGE1 = 0x20000;
export const VINTF_PAGES = 0x30000;
export const VINTF_STRIDE = 0x100;
export const VINTF_BASE = 0x1000;

export const CMDQV_CONFIG = reg32('CMDQV_CONFIG', 0x0, { EN: bit(0) });
/** Logarithms to base 2. */
export const CMDQV_PARAM = reg32('CMDQV_PARAM', 0x4, {
  VER: bits(3, 0),
  NUM_VCMDQ_LOG2: bits(7, 4),
  NUM_VINTF_LOG2: bits(11, 8),
  NUM_SID_PER_VM_LOG2: bits(15, 12),
});
export const CMDQV_STATUS = reg32('CMDQV_STATUS', 0x8, { ENABLED: bit(0) });
/** Two words: a bit for each VINTF that has a VCMDQ in error. */
export const CMDQV_VINTF_ERR_MAP = 0x14;
/** Two words: VINTFs that raise no interrupt. */
export const CMDQV_VINTF_INT_MASK = 0x1c;
/** Four words: a bit for each VCMDQ in error, by global number. */
export const CMDQV_CMDQ_ERR_MAP = 0x24;
/** One word a VCMDQ. */
export const CMDQV_CMDQ_ALLOC = 0x200;
export const CMDQ_ALLOC = reg32('CMDQV_CMDQ_ALLOC', 0, {
  ALLOCATED: bit(0),
  LVCMDQ: bits(7, 1),
  VINTF: bits(20, 15),
});

/** Offsets from a VINTF's base. */
export const VINTF_CONFIG = reg32('VINTF_CONFIG', 0x0, { EN: bit(0), VMID: bits(16, 1), HYP_OWN: bit(17) });
export const VINTF_STATUS = reg32('VINTF_STATUS', 0x4, { ENABLED: bit(0), STATUS: bits(3, 1) });
export const VINTF_SID_MATCH = 0x40;
export const SID_MATCH = reg32('VINTF_SID_MATCH', 0, { VALID: bit(0), SID: bits(31, 1) });
export const VINTF_SID_REPLACE = 0x80;
/** Two quads: a bit for each logical VCMDQ in error. */
export const VINTF_LVCMDQ_ERR_MAP = 0xc0;

/** Offsets from a VCMDQ's place in page 0. */
export const VCMDQ_CONS = reg32('VCMDQ_CONS', 0x0, { RD: bits(19, 0), ERR: bits(30, 24) });
export const VCMDQ_PROD = reg32('VCMDQ_PROD', 0x4, { WR: bits(19, 0) });
export const VCMDQ_CONFIG = reg32('VCMDQ_CONFIG', 0x8, { EN: bit(0) });
export const VCMDQ_STATUS = reg32('VCMDQ_STATUS', 0xc, { ENABLED: bit(0) });
export const VCMDQ_GERROR = reg32('VCMDQ_GERROR', 0x10, { CMDQ_ERR: bit(0) });
export const VCMDQ_GERRORN = reg32('VCMDQ_GERRORN', 0x14, { CMDQ_ERR: bit(0) });

/** Offsets from a VCMDQ's place in page 1. */
export const VCMDQ_BASE = reg64('VCMDQ_BASE', 0x0, { LOG2SIZE: bits(4, 0), ADDR: address(47, 5) });
export const VCMDQ_CONS_INDX_BASE = reg64('VCMDQ_CONS_INDX_BASE', 0x8, { ADDR: address(47, 0) });
