/**
 * Event records: 32 bytes, here eight u32 words. [IHI0070] 7.3. Numbers, fields, and a typed record that encodes
 * to and decodes from the words, filling only the fields that the event defines; all else is zero.
 *
 * Five are encoded and decoded, and never raised: F_UUT (a port has no transaction that is unsupported),
 * F_TLB_CONFLICT and F_CFG_CONFLICT (these caches never hold two entries that match), E_PAGE_REQUEST (a hint that
 * is optional), F_VMS_FETCH (no VMS: MPAM is absent). Where F_BAD_ATS_TREQ keeps its permissions is taken from
 * E_PAGE_REQUEST, whose unprivileged R, W and X they share; Priv follows them.
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

/** F_BAD_ATS_TREQ: what the Translation Request asked for, before overrides. */
export const EVENT_ATS = struct('EVENT_ATS', EVENT_BYTES, {
  /** TREQ_* */
  Permissions: bits(100, 97),
  /** Translations asked for. */
  Span: bits(115, 108),
});
export const TREQ_READ = 1 << 3;
export const TREQ_WRITE = 1 << 2;
export const TREQ_EXECUTE = 1 << 1;
export const TREQ_PRIVILEGED = 1 << 0;

/** E_PAGE_REQUEST: a device will soon want Span pages. */
export const EVENT_PAGE = struct('EVENT_PAGE', EVENT_BYTES, {
  /** Privileged R, W, X, then unprivileged R, W, X, from the highest bit down. */
  Permissions: bits(103, 98),
  Span: bits(115, 108),
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
  /** TREQ_*, or the six bits of E_PAGE_REQUEST. */
  readonly permissions: number;
  readonly span: number;
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
  permissions: 0,
  span: 0,
};

// Groups of fields, of which each event has some.
const SUBSTREAM = 1 << 0;
/** SubstreamID without SSV. */
const SUBSTREAM_ALWAYS = 1 << 1;
const REASON = 1 << 2;
const FETCH = 1 << 3;
/** InputAddr, RnW, InD, PnU. */
const ACCESS = 1 << 4;
const STAGE = 1 << 5;
const CLASS = 1 << 6;
/** STAG, Stall, TTRnW. */
const STALLS = 1 << 7;
const IPA = 1 << 8;
const TREQ = 1 << 9;
const PAGE = 1 << 10;

const TRANSLATION = SUBSTREAM | ACCESS | STAGE | CLASS | STALLS | IPA;
const GROUPS: Readonly<Record<number, number>> = {
  [F_UUT]: SUBSTREAM | REASON | ACCESS,
  [C_BAD_STREAMID]: SUBSTREAM,
  [F_STE_FETCH]: SUBSTREAM | REASON | FETCH,
  [C_BAD_STE]: SUBSTREAM,
  [F_BAD_ATS_TREQ]: SUBSTREAM | TREQ,
  [F_STREAM_DISABLED]: 0,
  [F_TRANSL_FORBIDDEN]: SUBSTREAM | ACCESS,
  [C_BAD_SUBSTREAMID]: SUBSTREAM_ALWAYS,
  [F_CD_FETCH]: SUBSTREAM | REASON | FETCH,
  [C_BAD_CD]: SUBSTREAM,
  [F_WALK_EABT]: SUBSTREAM | REASON | FETCH | ACCESS | STAGE | CLASS,
  [F_TRANSLATION]: TRANSLATION,
  [F_ADDR_SIZE]: TRANSLATION,
  [F_ACCESS]: TRANSLATION,
  [F_PERMISSION]: TRANSLATION,
  [F_TLB_CONFLICT]: SUBSTREAM | REASON | ACCESS | STAGE | IPA,
  [F_CFG_CONFLICT]: SUBSTREAM | REASON,
  [E_PAGE_REQUEST]: SUBSTREAM | PAGE,
  [F_VMS_FETCH]: SUBSTREAM | REASON | FETCH,
};
const PAGE_MASK = ~0xfffn;

/** Whether a transaction with this fault can stall. 3.12 */
export const isTranslationRelated = (id: number): boolean => id >= F_TRANSLATION && id <= F_PERMISSION;

/** Writes one record; fields left out, or not defined for `record.id`, are 0. */
export function encodeEvent(
  out: Uint32Array,
  at: number,
  record: Partial<EventRecord> & { readonly id: number },
): void {
  const e = { ...NONE, ...record };
  const has = GROUPS[e.id] ?? 0;
  out.fill(0, at, at + EVENT_WORDS);
  EVENT.ID.put(out, e.id, at);
  EVENT.StreamID.put(out, e.sid, at);
  if ((has & SUBSTREAM) !== 0 && e.ssv) {
    EVENT.SSV.put(out, 1, at);
    EVENT.SubstreamID.put(out, e.ssid, at);
  }
  if ((has & SUBSTREAM_ALWAYS) !== 0) EVENT.SubstreamID.put(out, e.ssid, at);
  if ((has & REASON) !== 0) EVENT_FETCH.Reason.put(out, e.reason, at);
  if ((has & FETCH) !== 0) EVENT_FETCH.FetchAddr.put(out, e.fetchAddr, at);
  if ((has & ACCESS) !== 0) {
    EVENT.PnU.put(out, e.pnu ? 1 : 0, at);
    EVENT.InD.put(out, e.ind ? 1 : 0, at);
    EVENT.RnW.put(out, e.rnw ? 1 : 0, at);
    EVENT.InputAddr.put(out, e.inputAddr, at);
  }
  if ((has & STAGE) !== 0) EVENT.S2.put(out, e.s2 ? 1 : 0, at);
  if ((has & CLASS) !== 0) EVENT.Class.put(out, e.class, at);
  if ((has & STALLS) !== 0) {
    EVENT.STAG.put(out, e.stag, at);
    EVENT.Stall.put(out, e.stall ? 1 : 0, at);
    EVENT.TTRnW.put(out, e.ttrnw ? 1 : 0, at);
  }
  if ((has & IPA) !== 0) {
    EVENT.NSIPA.put(out, e.nsipa ? 1 : 0, at);
    EVENT.IPA.put(out, e.ipa, at);
  }
  if ((has & (TREQ | PAGE)) !== 0) EVENT.InputAddr.put(out, e.inputAddr & PAGE_MASK, at);
  if ((has & TREQ) !== 0) {
    EVENT_ATS.Permissions.put(out, e.permissions, at);
    EVENT_ATS.Span.put(out, e.span, at);
  }
  if ((has & PAGE) !== 0) {
    EVENT_PAGE.Permissions.put(out, e.permissions, at);
    EVENT_PAGE.Span.put(out, e.span, at);
  }
}

/** Reads one record, of a modelled event or not: fields the event does not define read as 0. */
export function decodeEvent(words: Uint32Array, at = 0): EventRecord {
  const id = EVENT.ID.get(words, at);
  const has = GROUPS[id] ?? 0;
  const flag = (group: number, field: { get(words: Uint32Array, at?: number): number }): boolean =>
    (has & group) !== 0 && field.get(words, at) === 1;
  const ssv = flag(SUBSTREAM, EVENT.SSV);
  return {
    id,
    sid: EVENT.StreamID.get(words, at),
    ssv,
    ssid: ssv || (has & SUBSTREAM_ALWAYS) !== 0 ? EVENT.SubstreamID.get(words, at) : 0,
    stag: (has & STALLS) !== 0 ? EVENT.STAG.get(words, at) : 0,
    stall: flag(STALLS, EVENT.Stall),
    pnu: flag(ACCESS, EVENT.PnU),
    ind: flag(ACCESS, EVENT.InD),
    rnw: flag(ACCESS, EVENT.RnW),
    nsipa: flag(IPA, EVENT.NSIPA),
    s2: flag(STAGE, EVENT.S2),
    class: (has & CLASS) !== 0 ? EVENT.Class.get(words, at) : 0,
    ttrnw: flag(STALLS, EVENT.TTRnW),
    inputAddr:
      (has & ACCESS) !== 0
        ? EVENT.InputAddr.get(words, at)
        : (has & (TREQ | PAGE)) !== 0
          ? EVENT.InputAddr.get(words, at) & PAGE_MASK
          : 0n,
    ipa: (has & IPA) !== 0 ? EVENT.IPA.get(words, at) : 0,
    reason: (has & REASON) !== 0 ? EVENT_FETCH.Reason.get(words, at) : 0,
    fetchAddr: (has & FETCH) !== 0 ? EVENT_FETCH.FetchAddr.get(words, at) : 0,
    permissions:
      (has & TREQ) !== 0
        ? EVENT_ATS.Permissions.get(words, at)
        : (has & PAGE) !== 0
          ? EVENT_PAGE.Permissions.get(words, at)
          : 0,
    span: (has & (TREQ | PAGE)) !== 0 ? EVENT_ATS.Span.get(words, at) : 0,
  };
}

/**
 * Whether two records say the same, so that one may stand for both. 7.3.1: the offset in the page of InputAddr
 * does not count where the event is one of the translation; a stalled transaction's record stands for itself.
 */
export function eventsMerge(a: Uint32Array, b: Uint32Array): boolean {
  const id = EVENT.ID.get(a);
  if (isTranslationRelated(id) && (EVENT.Stall.get(a) === 1 || EVENT.Stall.get(b) === 1)) return false;
  const has = GROUPS[id] ?? 0;
  const offsetIgnored = (has & ACCESS) !== 0 && id !== F_UUT;
  for (let i = 0; i < EVENT_WORDS; i++) {
    const ignored = offsetIgnored && i === INPUT_ADDRESS_WORD ? 0xfff : 0;
    if (((a[i]! ^ b[i]!) & ~ignored) !== 0) return false;
  }
  return true;
}

/** The low half of EVENT.InputAddr. */
const INPUT_ADDRESS_WORD = 4;
