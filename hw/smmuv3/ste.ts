/**
 * Stream Table Entry and level-1 descriptor. [IHI0070] 5.1 and 5.2. Bit numbers as the spec prints them: bit 64
 * is bit 0 of the second 64-bit word. The SMMU fetches an STE as eight single 64-bit reads.
 *
 * Not modelled, though declared: CONT (a hint), memory attributes, MPAM, Secure and Realm states.
 */
import { address, bit, bits, struct } from './bitfield.js';

export const STE_BYTES = 64;

export const STE = struct('STE', STE_BYTES, {
  V: bit(0),
  /** CONFIG_* */
  Config: bits(3, 1),
  S1Fmt: bits(5, 4),
  /** PA (or IPA when nested) of the CD table. */
  S1ContextPtr: address(51, 6),
  S1CDMax: bits(63, 59),

  S1DSS: bits(65, 64),
  S1CIR: bits(67, 66),
  S1COR: bits(69, 68),
  S1CSH: bits(71, 70),
  DRE: bit(76),
  CONT: bits(80, 77),
  DCP: bit(81),
  PPAR: bit(82),
  MEV: bit(83),
  S2FWB: bit(89),
  S1MPAM: bit(90),
  S1STALLD: bit(91),
  EATS: bits(93, 92),
  STRW: bits(95, 94),
  MemAttr: bits(99, 96),
  MTCFG: bit(100),
  ALLOCCFG: bits(104, 101),
  SHCFG: bits(109, 108),
  NSCFG: bits(111, 110),
  PRIVCFG: bits(113, 112),
  INSTCFG: bits(115, 114),

  S2VMID: bits(143, 128),
  S2T0SZ: bits(165, 160),
  S2SL0: bits(167, 166),
  S2IR0: bits(169, 168),
  S2OR0: bits(171, 170),
  S2SH0: bits(173, 172),
  S2TG: bits(175, 174),
  S2PS: bits(178, 176),
  S2AA64: bit(179),
  S2ENDI: bit(180),
  S2AFFD: bit(181),
  S2PTW: bit(182),
  S2HD: bit(183),
  S2HA: bit(184),
  S2S: bit(185),
  S2R: bit(186),

  /** PA of the stage-2 root. */
  S2TTB: address(243, 196),
});

/** STE.Config. */
export const CONFIG_ABORT = 0b000;
export const CONFIG_BYPASS = 0b100;
export const CONFIG_S1_TRANS = 0b101;
export const CONFIG_S2_TRANS = 0b110;
export const CONFIG_NESTED = 0b111;

/** STE.S1Fmt. */
export const S1FMT_LINEAR = 0;
export const S1FMT_4K_L2 = 1;
export const S1FMT_64K_L2 = 2;

/** STE.S1DSS. */
export const S1DSS_TERMINATE = 0;
export const S1DSS_BYPASS = 1;
export const S1DSS_SSID0 = 2;

/** STE.EATS. */
export const EATS_ABORT = 0;
export const EATS_TRANS = 1;
export const EATS_S1CHK = 2;

/** STE.STRW: the exception level the stream's translations are tagged with. */
export const STRW_NS_EL1 = 0;
export const STRW_EL2 = 2;

/** STE.SHCFG: shareability of the incoming transaction is used. */
export const SHCFG_INCOMING = 1;

/** STE.S2TG. */
export const S2TG_4K = 0;
export const S2TG_64K = 1;
export const S2TG_16K = 2;

/** Level-1 Stream Table descriptor. [IHI0070] 5.1.1. */
export const L1STD = struct('L1STD', 8, {
  /** 0: no STEs here. n: the level-2 array holds 2^(n-1) STEs. */
  Span: bits(4, 0),
  L2Ptr: address(51, 6),
});
export const L1STD_BYTES = 8;

/** Output and physical address sizes: encoding of STE.S2PS, CD.IPS and IDR5.OAS, to bits. */
export const ADDRESS_BITS: readonly number[] = [32, 36, 40, 42, 44, 48, 52];
