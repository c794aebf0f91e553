/**
 * Command queue entries: 16 bytes, here four u32 words. [IHI0070] 4. Opcodes, fields, and encoders that write
 * a whole entry at `at` (an index of u32 words).
 *
 * Declared, and always CERROR_ILL: CFGI_VMS_PIDM (MPAM), the EL3 forms. Not declared: the Secure and DPT forms.
 */
import { address, bit, bits, struct } from './bitfield.js';

export const COMMAND_BYTES = 16;
export const COMMAND_WORDS = 4;

export const CMD_PREFETCH_CONFIG = 0x01;
export const CMD_PREFETCH_ADDR = 0x02;
export const CMD_CFGI_STE = 0x03;
/** With Range = 31 this is CMD_CFGI_ALL. */
export const CMD_CFGI_STE_RANGE = 0x04;
export const CMD_CFGI_CD = 0x05;
export const CMD_CFGI_CD_ALL = 0x06;
export const CMD_CFGI_VMS_PIDM = 0x07;
export const CMD_TLBI_NH_ALL = 0x10;
export const CMD_TLBI_NH_ASID = 0x11;
export const CMD_TLBI_NH_VA = 0x12;
export const CMD_TLBI_NH_VAA = 0x13;
export const CMD_TLBI_EL3_ALL = 0x18;
export const CMD_TLBI_EL3_VA = 0x1a;
export const CMD_TLBI_EL2_ALL = 0x20;
export const CMD_TLBI_EL2_ASID = 0x21;
export const CMD_TLBI_EL2_VA = 0x22;
export const CMD_TLBI_EL2_VAA = 0x23;
export const CMD_TLBI_S12_VMALL = 0x28;
export const CMD_TLBI_S2_IPA = 0x2a;
export const CMD_TLBI_NSNH_ALL = 0x30;
export const CMD_ATC_INV = 0x40;
export const CMD_PRI_RESP = 0x41;
export const CMD_RESUME = 0x44;
export const CMD_STALL_TERM = 0x45;
export const CMD_SYNC = 0x46;

/** Names for reports. */
export const COMMAND_NAMES: Readonly<Record<number, string>> = {
  [CMD_PREFETCH_CONFIG]: 'CMD_PREFETCH_CONFIG',
  [CMD_PREFETCH_ADDR]: 'CMD_PREFETCH_ADDR',
  [CMD_CFGI_STE]: 'CMD_CFGI_STE',
  [CMD_CFGI_STE_RANGE]: 'CMD_CFGI_STE_RANGE',
  [CMD_CFGI_CD]: 'CMD_CFGI_CD',
  [CMD_CFGI_CD_ALL]: 'CMD_CFGI_CD_ALL',
  [CMD_CFGI_VMS_PIDM]: 'CMD_CFGI_VMS_PIDM',
  [CMD_TLBI_NH_ALL]: 'CMD_TLBI_NH_ALL',
  [CMD_TLBI_NH_ASID]: 'CMD_TLBI_NH_ASID',
  [CMD_TLBI_NH_VA]: 'CMD_TLBI_NH_VA',
  [CMD_TLBI_NH_VAA]: 'CMD_TLBI_NH_VAA',
  [CMD_TLBI_EL3_ALL]: 'CMD_TLBI_EL3_ALL',
  [CMD_TLBI_EL3_VA]: 'CMD_TLBI_EL3_VA',
  [CMD_TLBI_EL2_ALL]: 'CMD_TLBI_EL2_ALL',
  [CMD_TLBI_EL2_ASID]: 'CMD_TLBI_EL2_ASID',
  [CMD_TLBI_EL2_VA]: 'CMD_TLBI_EL2_VA',
  [CMD_TLBI_EL2_VAA]: 'CMD_TLBI_EL2_VAA',
  [CMD_TLBI_S12_VMALL]: 'CMD_TLBI_S12_VMALL',
  [CMD_TLBI_S2_IPA]: 'CMD_TLBI_S2_IPA',
  [CMD_TLBI_NSNH_ALL]: 'CMD_TLBI_NSNH_ALL',
  [CMD_ATC_INV]: 'CMD_ATC_INV',
  [CMD_PRI_RESP]: 'CMD_PRI_RESP',
  [CMD_RESUME]: 'CMD_RESUME',
  [CMD_STALL_TERM]: 'CMD_STALL_TERM',
  [CMD_SYNC]: 'CMD_SYNC',
};

const op = bits(7, 0);

/** What every command has. */
export const CMD = struct('CMD', COMMAND_BYTES, { OP: op, SSec: bit(10) });

/** 4.3: CFGI_STE, CFGI_STE_RANGE, CFGI_CD, CFGI_CD_ALL. */
export const CMD_CFGI = struct('CMD_CFGI', COMMAND_BYTES, {
  OP: op,
  SSec: bit(10),
  SubstreamID: bits(31, 12),
  StreamID: bits(63, 32),
  Leaf: bit(64),
});
export const CMD_CFGI_RANGE = struct('CMD_CFGI_STE_RANGE', COMMAND_BYTES, {
  OP: op,
  SSec: bit(10),
  StreamID: bits(63, 32),
  /** Covers an aligned 2^(Range+1) streams. */
  Range: bits(68, 64),
});

/** 4.4. Address is the page number: bits 63:12 of the VA or IPA. */
export const CMD_TLBI = struct('CMD_TLBI', COMMAND_BYTES, {
  OP: op,
  NUM: bits(16, 12),
  SCALE: bits(24, 20),
  VMID: bits(47, 32),
  ASID: bits(63, 48),
  Leaf: bit(64),
  TTL128: bit(71),
  TTL: bits(73, 72),
  /** TG_*; 0 means a single address of any granule. */
  TG: bits(75, 74),
  Page: bits(127, 76),
});
export const TG_ANY = 0;
export const TG_4K = 1;
export const TG_16K = 2;
export const TG_64K = 3;

/** 4.2. */
export const CMD_PREFETCH = struct('CMD_PREFETCH', COMMAND_BYTES, {
  OP: op,
  SSec: bit(10),
  SSV: bit(11),
  SubstreamID: bits(31, 12),
  StreamID: bits(63, 32),
  /** log2 of the translations wanted. */
  Size: bits(68, 64),
  /** log2 of the 4 KiB pages from one to the next. */
  Stride: bits(73, 69),
  Page: bits(127, 76),
});

/** 4.5.1. */
export const CMD_ATC = struct('CMD_ATC_INV', COMMAND_BYTES, {
  OP: op,
  Global: bit(9),
  SSec: bit(10),
  SSV: bit(11),
  SubstreamID: bits(31, 12),
  StreamID: bits(63, 32),
  Size: bits(69, 64),
  Page: bits(127, 76),
});

/** 4.5.2. */
export const CMD_PRI = struct('CMD_PRI_RESP', COMMAND_BYTES, {
  OP: op,
  SSec: bit(10),
  SSV: bit(11),
  SubstreamID: bits(31, 12),
  StreamID: bits(63, 32),
  PRGIndex: bits(72, 64),
  /** PRI_RESP_* */
  Resp: bits(77, 76),
});
export const PRI_RESP_FAILURE = 0;
export const PRI_RESP_INVALID = 1;
export const PRI_RESP_SUCCESS = 2;

/** 4.7.1, 4.7.2. STALL_TERM has the StreamID alone. */
export const CMD_STALL = struct('CMD_RESUME', COMMAND_BYTES, {
  OP: op,
  SSec: bit(10),
  /** 1: retry; 0: terminate, in the way of Ab. */
  Ac: bit(12),
  /** 1: abort; 0: RAZ/WI. */
  Ab: bit(13),
  StreamID: bits(63, 32),
  STAG: bits(79, 64),
});

/** 4.7.3. */
export const CMD_SYNC_FIELDS = struct('CMD_SYNC', COMMAND_BYTES, {
  OP: op,
  /** SYNC_CS_* */
  CS: bits(13, 12),
  MSH: bits(23, 22),
  MSIAttr: bits(27, 24),
  MSIData: bits(63, 32),
  MSIAddress: address(115, 66),
});
export const SYNC_CS_NONE = 0;
export const SYNC_CS_IRQ = 1;
export const SYNC_CS_SEV = 2;

/** A range of an address-based TLBI: (num + 1) << scale granules from the address on. */
export interface TlbiRange {
  /** 0..31 */
  readonly num: number;
  /** 0..31 */
  readonly scale: number;
  readonly tg: number;
  /** Level hint 1..3, or 0. */
  readonly ttl: number;
}

const clear = (out: Uint32Array, at: number, opcode: number): void => {
  out[at] = opcode;
  out[at + 1] = 0;
  out[at + 2] = 0;
  out[at + 3] = 0;
};

export function encodeCfgiSte(out: Uint32Array, at: number, sid: number, leaf: boolean): void {
  clear(out, at, CMD_CFGI_STE);
  out[at + 1] = sid;
  out[at + 2] = leaf ? 1 : 0;
}

export function encodeCfgiSteRange(out: Uint32Array, at: number, sid: number, range: number): void {
  clear(out, at, CMD_CFGI_STE_RANGE);
  out[at + 1] = sid;
  CMD_CFGI_RANGE.Range.put(out, range, at);
}

export const encodeCfgiAll = (out: Uint32Array, at: number): void => encodeCfgiSteRange(out, at, 0, 31);

export function encodeCfgiCd(out: Uint32Array, at: number, sid: number, ssid: number, leaf: boolean): void {
  clear(out, at, CMD_CFGI_CD);
  CMD_CFGI.SubstreamID.put(out, ssid, at);
  out[at + 1] = sid;
  out[at + 2] = leaf ? 1 : 0;
}

export function encodeCfgiCdAll(out: Uint32Array, at: number, sid: number): void {
  clear(out, at, CMD_CFGI_CD_ALL);
  out[at + 1] = sid;
}

/** NH_ALL, S12_VMALL (asid 0), NH_ASID, NSNH_ALL (both 0). */
export function encodeTlbi(out: Uint32Array, at: number, opcode: number, vmid: number, asid: number): void {
  clear(out, at, opcode);
  out[at + 1] = ((asid << 16) | (vmid & 0xffff)) >>> 0;
}

/**
 * NH_VA, NH_VAA (asid 0), S2_IPA (asid 0).
 * @param page  VA or IPA >> 12, below 2^52
 */
export function encodeTlbiAddress(
  out: Uint32Array,
  at: number,
  opcode: number,
  vmid: number,
  asid: number,
  page: number,
  leaf: boolean,
  range?: TlbiRange,
): void {
  encodeTlbi(out, at, opcode, vmid, asid);
  if (range !== undefined) {
    CMD_TLBI.NUM.put(out, range.num, at);
    CMD_TLBI.SCALE.put(out, range.scale, at);
    CMD_TLBI.TG.put(out, range.tg, at);
    CMD_TLBI.TTL.put(out, range.ttl, at);
  }
  CMD_TLBI.Page.put(out, page, at);
  if (leaf) CMD_TLBI.Leaf.put(out, 1, at);
}

/** @param msiAddress byte PA, 4-byte aligned; 0 sends none (CS = IRQ only) */
export function encodeSync(out: Uint32Array, at: number, cs: number, msiAddress = 0, msiData = 0): void {
  clear(out, at, CMD_SYNC);
  CMD_SYNC_FIELDS.CS.put(out, cs, at);
  out[at + 1] = msiData;
  if (msiAddress !== 0) CMD_SYNC_FIELDS.MSIAddress.put(out, msiAddress, at);
}

/**
 * @param ssid     SubstreamID, or -1: then whatever was requested with or without one
 * @param page     input address >> 12
 * @param sizeLg2  log2 of the pages, 0..52; 52 is everything
 * @param global   with a SubstreamID: of every other too
 */
export function encodeAtcInv(
  out: Uint32Array,
  at: number,
  sid: number,
  ssid: number,
  page: number,
  sizeLg2: number,
  global = false,
): void {
  clear(out, at, CMD_ATC_INV);
  if (ssid >= 0) {
    CMD_ATC.SSV.put(out, 1, at);
    CMD_ATC.SubstreamID.put(out, ssid, at);
    CMD_ATC.Global.put(out, global ? 1 : 0, at);
  }
  out[at + 1] = sid;
  CMD_ATC.Size.put(out, sizeLg2, at);
  CMD_ATC.Page.put(out, page, at);
}

/** @param ssid SubstreamID, or -1. @param response PRI_RESP_* */
export function encodePriResp(
  out: Uint32Array,
  at: number,
  sid: number,
  ssid: number,
  group: number,
  response: number,
): void {
  clear(out, at, CMD_PRI_RESP);
  if (ssid >= 0) {
    CMD_PRI.SSV.put(out, 1, at);
    CMD_PRI.SubstreamID.put(out, ssid, at);
  }
  out[at + 1] = sid;
  CMD_PRI.PRGIndex.put(out, group, at);
  CMD_PRI.Resp.put(out, response, at);
}

/** @param action  `retry`, or how to terminate */
export function encodeResume(
  out: Uint32Array,
  at: number,
  sid: number,
  stag: number,
  action: 'retry' | 'abort' | 'raz-wi',
): void {
  clear(out, at, CMD_RESUME);
  CMD_STALL.Ac.put(out, action === 'retry' ? 1 : 0, at);
  CMD_STALL.Ab.put(out, action === 'abort' ? 1 : 0, at);
  out[at + 1] = sid;
  CMD_STALL.STAG.put(out, stag, at);
}

export function encodeStallTerm(out: Uint32Array, at: number, sid: number): void {
  clear(out, at, CMD_STALL_TERM);
  out[at + 1] = sid;
}
