/**
 * Finding a guest's STE in its RAM. [IHI0070] 3.3.2, 5.1.1. Everything read here is hostile: bases may lie
 * anywhere, spans and sizes may be nonsense. What cannot be found is an abort for its stream, as on hardware.
 *
 * Not modelled: the events C_BAD_STREAMID and F_STE_FETCH of the virtual SMMU's own table; the stream's traffic
 * is aborted without a record.
 */
import { setQuad } from '../../hw/smmuv3/bitfield.js';
import {
  STRTAB_BASE,
  STRTAB_BASE_CFG,
  STRTAB_FMT_2LVL,
  STRTAB_FMT_LINEAR,
} from '../../hw/smmuv3/registers.js';
import { L1STD, L1STD_BYTES, STE_BYTES } from '../../hw/smmuv3/ste.js';
import type { GuestRam } from './guest-ram.js';
import { VSTE_WORDS } from './vm-device.js';

const QUAD_BYTES = 8;

/**
 * Reads the first two 64-bit words of a stream's STE.
 * @param base    STRTAB_BASE
 * @param config  STRTAB_BASE_CFG
 * @param sidBits IDR1.SIDSIZE
 * @param out     VSTE_WORDS words; untouched when there is no STE
 * @returns whether there is one
 */
export function readVirtualSte(
  ram: GuestRam,
  base: bigint,
  config: number,
  sidBits: number,
  sid: number,
  out: Uint32Array,
): boolean {
  const log2 = Math.min(STRTAB_BASE_CFG.LOG2SIZE.get(config), sidBits);
  if (sid >= 2 ** log2) return false;
  const table = Number(STRTAB_BASE.ADDR.get(base));
  const format = STRTAB_BASE_CFG.FMT.get(config);
  let ste = -1;
  if (format === STRTAB_FMT_LINEAR) ste = alignDown(table, STE_BYTES * 2 ** log2) + sid * STE_BYTES;
  if (format === STRTAB_FMT_2LVL) ste = secondLevel(ram, table, log2, STRTAB_BASE_CFG.SPLIT.get(config), sid);
  if (ste < 0) return false;
  for (let i = 0; i < VSTE_WORDS; i += 2) {
    const quad = ram.load64(ste + (i / 2) * QUAD_BYTES);
    if (quad === null) return false;
    setQuad(out, i, quad);
  }
  return true;
}

/** @returns address of the STE, or -1 */
function secondLevel(ram: GuestRam, table: number, log2: number, splitField: number, sid: number): number {
  // A reserved SPLIT behaves as 6.
  const split = splitField === 8 || splitField === 10 ? splitField : 6;
  const l1Bytes = Math.max(L1STD_BYTES * 2 ** Math.max(log2 - split, 0), 64);
  const l1 = alignDown(table, l1Bytes) + Math.floor(sid / 2 ** split) * L1STD_BYTES;
  const quad = ram.load64(l1);
  if (quad === null) return -1;
  const words = new Uint32Array(2);
  setQuad(words, 0, quad);
  const span = L1STD.Span.get(words);
  // Span 0 has no STEs; one past SPLIT + 1 is reserved, and treated so.
  if (span === 0 || span > split + 1) return -1;
  const index = sid % 2 ** split;
  if (index >= 2 ** (span - 1)) return -1;
  return alignDown(L1STD.L2Ptr.get(words), STE_BYTES * 2 ** (span - 1)) + index * STE_BYTES;
}

function alignDown(address: number, multiple: number): number {
  return Math.floor(address / multiple) * multiple;
}
