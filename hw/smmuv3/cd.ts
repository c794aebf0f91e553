/**
 * Context Descriptor and level-1 descriptor. [IHI0070] 5.3 and 5.4. A CD is fetched as eight single 64-bit reads,
 * at an IPA when the stream is nested.
 *
 * Not modelled, though declared: TTB1 (a CD that leaves EPD1 clear is refused), TBI, AArch32, big-endian tables;
 * MAIR and the other memory attributes have no effect.
 */
import { address, bit, bits, quad, struct } from './bitfield.js';

export const CD_BYTES = 64;

export const CD = struct('CD', CD_BYTES, {
  T0SZ: bits(5, 0),
  TG0: bits(7, 6),
  IR0: bits(9, 8),
  OR0: bits(11, 10),
  SH0: bits(13, 12),
  EPD0: bit(14),
  ENDI: bit(15),
  T1SZ: bits(21, 16),
  TG1: bits(23, 22),
  IR1: bits(25, 24),
  OR1: bits(27, 26),
  SH1: bits(29, 28),
  EPD1: bit(30),
  V: bit(31),
  IPS: bits(34, 32),
  AFFD: bit(35),
  WXN: bit(36),
  UWXN: bit(37),
  TBI0: bit(38),
  TBI1: bit(39),
  PAN: bit(40),
  AA64: bit(41),
  HD: bit(42),
  HA: bit(43),
  S: bit(44),
  R: bit(45),
  A: bit(46),
  ASET: bit(47),
  ASID: bits(63, 48),

  NSCFG0: bit(64),
  HAD0: bit(65),
  E0PD0: bit(66),
  TTB0: address(115, 68),
  HWU059: bit(124),
  HWU060: bit(125),
  HWU061: bit(126),
  HWU062: bit(127),

  NSCFG1: bit(128),
  HAD1: bit(129),
  E0PD1: bit(130),
  TTB1: address(179, 132),

  MAIR: quad(255, 192),
});

/** CD.TG0. */
export const TG0_4K = 0;
export const TG0_64K = 1;
export const TG0_16K = 2;

/** Level-1 CD table descriptor. [IHI0070] 5.3. */
export const L1CD = struct('L1CD', 8, { V: bit(0), L2Ptr: address(51, 12) });
export const L1CD_BYTES = 8;
