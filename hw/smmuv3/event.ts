/**
 * Event records: 32 bytes, here eight u32 words. [IHI0070] 7.3. Numbers, fields, and a typed record that encodes
 * to and decodes from the words, filling only the fields that the event defines; all else is zero.
 *
 * Not modelled: F_UUT, F_TLB_CONFLICT, F_CFG_CONFLICT (this SMMU has none), E_PAGE_REQUEST, F_VMS_FETCH, ATS
 * events; their numbers are declared for decoding. Merging: never (allowed by STE.MEV, not required).
 */
import { address, bit, bits, quad, struct } from './bitfield.js';

export const EVENT_BYTES = 32;
export const EVENT_WORDS = 8;

export const F_UUT = 0x01;
export const C_BAD_STREAMID = 0x02;
export const F_STE_FETCH = 0x03;
export const C_BAD_STE = 0x04;
export const F_BAD_ATS_TREQ = 0x05;
export const F_STREAM_DISABLED = 0x06;
export const F_TRANSL_FORBIDDEN = 0x07;
export const C_BAD_SUBSTREAMID = 0x08;
export const F_CD_FETCH = 0x09;
export const C_BAD_CD = 0x0a;
export const F_WALK_EABT = 0x0b;
export const F_TRANSLATION = 0x10;
export const F_ADDR_SIZE = 0x11;
export const F_ACCESS = 0x12;
export const F_PERMISSION = 0x13;
export const F_TLB_CONFLICT = 0x20;
export const F_CFG_CONFLICT = 0x21;
export const E_PAGE_REQUEST = 0x24;
export const F_VMS_FETCH = 0x25;

export const EVENT_NAMES: Readonly<Record<number, string>> = {
  [F_UUT]: 'F_UUT',
  [C_BAD_STREAMID]: 'C_BAD_STREAMID',
  [F_STE_FETCH]: 'F_STE_FETCH',
  [C_BAD_STE]: 'C_BAD_STE',
  [F_BAD_ATS_TREQ]: 'F_BAD_ATS_TREQ',
  [F_STREAM_DISABLED]: 'F_STREAM_DISABLED',
  [F_TRANSL_FORBIDDEN]: 'F_TRANSL_FORBIDDEN',
  [C_BAD_SUBSTREAMID]: 'C_BAD_SUBSTREAMID',
  [F_CD_FETCH]: 'F_CD_FETCH',
  [C_BAD_CD]: 'C_BAD_CD',
  [F_WALK_EABT]: 'F_WALK_EABT',
  [F_TRANSLATION]: 'F_TRANSLATION',
  [F_ADDR_SIZE]: 'F_ADDR_SIZE',
  [F_ACCESS]: 'F_ACCESS',
  [F_PERMISSION]: 'F_PERMISSION',
  [F_TLB_CONFLICT]: 'F_TLB_CONFLICT',
  [F_CFG_CONFLICT]: 'F_CFG_CONFLICT',
  [E_PAGE_REQUEST]: 'E_PAGE_REQUEST',
  [F_VMS_FETCH]: 'F_VMS_FETCH',
};

/** Fields that translation events define; the others define a prefix of them. */
export const EVENT = struct('EVENT', EVENT_BYTES, {
  ID: bits(7, 0),
  SSV: bit(11),
  SubstreamID: bits(31, 12),
  StreamID: bits(63, 32),
  STAG: bits(79, 64),
  Stall: bit(95),
  PnU: bit(97),
  InD: bit(98),
  RnW: bit(99),
  NSIPA: bit(100),
  S2: bit(103),
  /** EVENT_CLASS_* */
  Class: bits(105, 104),
  TTRnW: bit(108),
  InputAddr: quad(191, 128),
  IPA: address(243, 204),
});

/** Fetch events and F_WALK_EABT: what differs from EVENT. */
export const EVENT_FETCH = struct('EVENT_FETCH', EVENT_BYTES, {
  Reason: bits(79, 64),
  GPCF: bit(80),
  FetchAddr: address(243, 195),
});

/** EVENT.Class. */
export const EVENT_CLASS_CD = 0;
export const EVENT_CLASS_TTD = 1;
export const EVENT_CLASS_IN = 2;

/** Every field of every modelled event; a field its event does not define is 0 or false. */
export interface EventRecord {
  readonly id: number;
  readonly sid: number;
  readonly ssv: boolean;
  readonly ssid: number;
  readonly stag: number;
  readonly stall: boolean;
  readonly pnu: boolean;
  readonly ind: boolean;
  readonly rnw: boolean;
  readonly nsipa: boolean;
  readonly s2: boolean;
  readonly class: number;
  readonly ttrnw: boolean;
  readonly inputAddr: bigint;
  /** Byte address, page aligned. */
  readonly ipa: number;
  readonly reason: number;
  /** Byte address, 8-byte aligned. */
  readonly fetchAddr: number;
}

const NONE: EventRecord = {
  id: 0,
  sid: 0,
  ssv: false,
  ssid: 0,
  stag: 0,
  stall: false,
  pnu: false,
  ind: false,
  rnw: false,
  nsipa: false,
  s2: false,
  class: 0,
  ttrnw: false,
  inputAddr: 0n,
  ipa: 0,
  reason: 0,
  fetchAddr: 0,
};

const isTranslationEvent = (id: number): boolean => id >= F_TRANSLATION && id <= F_PERMISSION;
const hasFetchAddress = (id: number): boolean =>
  id === F_STE_FETCH || id === F_CD_FETCH || id === F_WALK_EABT || id === F_VMS_FETCH;

/** Writes one record; fields left out, or not defined for `record.id`, are 0. */
export function encodeEvent(
  out: Uint32Array,
  at: number,
  record: Partial<EventRecord> & { readonly id: number },
): void {
  const e = { ...NONE, ...record };
  out.fill(0, at, at + EVENT_WORDS);
  EVENT.ID.put(out, e.id, at);
  EVENT.StreamID.put(out, e.sid, at);
  if (e.ssv || e.id === C_BAD_SUBSTREAMID) {
    EVENT.SSV.put(out, e.ssv ? 1 : 0, at);
    EVENT.SubstreamID.put(out, e.ssid, at);
  }
  if (hasFetchAddress(e.id)) {
    EVENT_FETCH.Reason.put(out, e.reason, at);
    EVENT_FETCH.FetchAddr.put(out, e.fetchAddr, at);
  }
  const translation = isTranslationEvent(e.id);
  if (translation || e.id === F_WALK_EABT || e.id === F_TRANSL_FORBIDDEN) {
    EVENT.PnU.put(out, e.pnu ? 1 : 0, at);
    EVENT.InD.put(out, e.ind ? 1 : 0, at);
    EVENT.RnW.put(out, e.rnw ? 1 : 0, at);
    EVENT.InputAddr.put(out, e.inputAddr, at);
  }
  if (translation || e.id === F_WALK_EABT) {
    EVENT.S2.put(out, e.s2 ? 1 : 0, at);
    EVENT.Class.put(out, e.class, at);
  }
  if (translation) {
    EVENT.STAG.put(out, e.stag, at);
    EVENT.Stall.put(out, e.stall ? 1 : 0, at);
    EVENT.NSIPA.put(out, e.nsipa ? 1 : 0, at);
    EVENT.TTRnW.put(out, e.ttrnw ? 1 : 0, at);
    EVENT.IPA.put(out, e.ipa, at);
  }
}

/** Reads one record, of a modelled event or not: fields the event does not define read as 0. */
export function decodeEvent(words: Uint32Array, at = 0): EventRecord {
  const id = EVENT.ID.get(words, at);
  const translation = isTranslationEvent(id);
  const access = translation || id === F_WALK_EABT || id === F_TRANSL_FORBIDDEN;
  const staged = translation || id === F_WALK_EABT;
  const fetch = hasFetchAddress(id);
  const ssv = EVENT.SSV.get(words, at) === 1;
  return {
    id,
    sid: EVENT.StreamID.get(words, at),
    ssv,
    ssid: ssv || id === C_BAD_SUBSTREAMID ? EVENT.SubstreamID.get(words, at) : 0,
    stag: translation ? EVENT.STAG.get(words, at) : 0,
    stall: translation && EVENT.Stall.get(words, at) === 1,
    pnu: access && EVENT.PnU.get(words, at) === 1,
    ind: access && EVENT.InD.get(words, at) === 1,
    rnw: access && EVENT.RnW.get(words, at) === 1,
    nsipa: translation && EVENT.NSIPA.get(words, at) === 1,
    s2: staged && EVENT.S2.get(words, at) === 1,
    class: staged ? EVENT.Class.get(words, at) : 0,
    ttrnw: translation && EVENT.TTRnW.get(words, at) === 1,
    inputAddr: access ? EVENT.InputAddr.get(words, at) : 0n,
    ipa: translation ? EVENT.IPA.get(words, at) : 0,
    reason: fetch ? EVENT_FETCH.Reason.get(words, at) : 0,
    fetchAddr: fetch ? EVENT_FETCH.FetchAddr.get(words, at) : 0,
  };
}
