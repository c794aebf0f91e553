/**
 * A port: one device's connection to its translation unit (key `port:N`, N the device's index). The device
 * puts up to PORT_BATCH transactions in `batch`, probes them inside an epoch, sends what missed down the
 * request ring, and goes on when the answers are back. All of it is moved by the compiled kernel, in place.
 *
 *   device: batch -> micro-TLB -> IOTLB probe -> (miss) -> req ring ==> pIOMMU: walk, fill ==> resp ring -> batch
 *
 * Beside it, each with one writer a word:
 *   atc         translations that a device with ATS keeps across batches; the device fills, the pIOMMU takes away
 *   verdicts    what software decided about stalled transactions; the pIOMMU writes, the device waits
 *   ppr, groups page requests on their way to the PRI queue, and the answers to their groups
 */
import { array, layout, line, raw, u32, u64 } from '../memory/layout.js';

export const PORT_BATCH = 64;
/** Slots of each ring: more than a device can have outstanding, so that neither can overflow. */
export const PORT_RING = 128;
export const XLAT_BYTES = 64;
export const MICRO_ENTRIES = 64;
export const MICRO_BYTES = 32;
/** Address translation cache: direct mapped by page and SubstreamID. */
export const ATC_ENTRIES = 256;
export const ATC_BYTES = 32;
/** Stalls outstanding at one SMMU: the low bits of a STAG index them. */
export const STALL_TAGS = 256;
/** Page requests on their way, and page request groups that a device waits for. */
export const PPR_RING = 32;
export const PPR_BYTES = 32;
export const PRG_SLOTS = 32;

/** One transaction: a slot of the batch, of the request ring and of the response ring alike. */
export const Xlat = layout('xlat', 1, {
  /** In: input address, bytes. */
  iova: u64(),
  /** In: XLAT_FLAG_*. */
  flags: u32(),
  /** In: StreamID. */
  sid: u32(),
  /** In: SubstreamID, or NO_SSID. */
  ssid: u32(),
  /** Returned with the answer: batch slot in the low 6 bits, number of the batch above. Only the device reads it. */
  cookie: u32(),
  /** Out: physical address of the byte; on F_WALK_EABT the address whose fetch was aborted. */
  pa: u64(),
  /**
   * Out: the IPA that stage 1 gave (nested) or that came in (stage 2 only; 0 for stage 1 only), of which an IOTLB
   * hit knows the low 44 bits; or the IPA a stage-2 fault reports.
   */
  ipa: u64(),
  /** Out: XLAT_OK, XLAT_PENDING, or the fault (an event number, or XLAT_ABORT for a silent abort). */
  status: u32(),
  /** Out: log2 of the size of the translation. */
  sizeLg2: u32(),
  /** Out: number of the walk the translation comes from. */
  fillSeq: u32(),
  /** Out, on a fault: XLAT_FAULT_*. */
  fault: u32(),
  /** Out: XLAT_FROM_*. */
  source: u32(),
  /** Out, on a fault: level of the walk. */
  level: u32(),
});

export const NO_SSID = 0xffff_ffff;

export const XLAT_FLAG_WRITE = 1 << 0;
export const XLAT_FLAG_INSTRUCTION = 1 << 1;
export const XLAT_FLAG_PRIVILEGED = 1 << 2;
/** The address is one that a Translation Request was answered with. */
export const XLAT_FLAG_TRANSLATED = 1 << 3;
/** An ATS Translation Request: no access follows; XLAT_FLAG_WRITE asks for write permission too (NW = 0). */
export const XLAT_FLAG_ATS = 1 << 4;

export const XLAT_OK = 0;
/** Status of a faulted translation is the SMMU event number; a silent abort (STE.Config abort, GBPA) is this. */
export const XLAT_ABORT = 0xff;
/**
 * The transaction stalled: it was not performed, and is to be sent again, or given up, when software says so. Its
 * STAG is in `level`.
 */
export const XLAT_STALLED = 0xfe;
/** Terminated, and the device is told that it succeeded: what is read is zero, what is written is ignored. */
export const XLAT_RAZ_WI = 0xfd;
/** A Translation Request was answered, and not with the permission that the access needs. */
export const XLAT_NOT_GRANTED = 0xfc;
/** A Translation Request completed with Unsupported Request, or with Completer Abort. */
export const XLAT_ATS_UR = 0xfb;
export const XLAT_ATS_CA = 0xfa;
/** Translated, and then nothing answered at the physical address: an external abort of the access itself. */
export const XLAT_EXTERNAL_ABORT = 0xf9;
/** `fault` of a Translation Request that succeeded: what the translation permits, as in an IOTLB page word. */
export const XLAT_PERM_READ = 1 << 1;
export const XLAT_PERM_WRITE = 1 << 2;
export const XLAT_PERM_GLOBAL = 1 << 3;
export const XLAT_PERM_EXECUTE = 1 << 4;
export const XLAT_PENDING = 0xffff_ffff;

/** Fault detail: bit 0 stage 2; bits 1-2 class (0 CD, 1 TTD, 2 IN); bit 3: hardware was to update a stage-1 descriptor. */
export const XLAT_FAULT_S2 = 1 << 0;
export const XLAT_FAULT_CLASS_SHIFT = 1;
export const XLAT_FAULT_TABLE_WRITE = 1 << 3;
export const CLASS_CD = 0;
export const CLASS_TTD = 1;
export const CLASS_IN = 2;

export const XLAT_FROM_MICRO = 1;
export const XLAT_FROM_IOTLB = 2;
export const XLAT_FROM_WALK = 3;
export const XLAT_FROM_BYPASS = 4;
/** A translation that the device had cached itself. */
export const XLAT_FROM_ATC = 5;

/** What software decided about a stalled transaction: a word of `verdicts` is STAG << 8 | VERDICT_*. */
export const VERDICT_NONE = 0;
export const VERDICT_RETRY = 1;
export const VERDICT_ABORT = 2;
export const VERDICT_RAZ_WI = 3;

/** One slot of the ATC. Writer: the device; the pIOMMU clears `word`, after it moved atcGen. */
export const AtcEntry = layout('atc-entry', 1, {
  /** As an IOTLB entry's page word, of a 4 KiB page: its bits 6..11 tell the size of the translation. */
  word: u64(),
  /** Page-aligned translated address: physical, or the IPA where ATS is split. */
  address: u64(),
  /** Number of the walk that answered the Translation Request. */
  fillSeq: u32(),
  ssid: u32(),
  /** IPA page of a nested translation, low 32 bits. */
  ipaPage: u32(),
});

/** A page request. Writer: the device. */
export const Ppr = layout('ppr', 1, {
  /** Input address; the page counts. */
  iova: u64(),
  /** PPR_* */
  flags: u32(),
  /** SubstreamID, or NO_SSID. */
  ssid: u32(),
  /** Page Request Group Index, 9 bits. */
  group: u32(),
});
export const PPR_WRITE = 1 << 0;
export const PPR_READ = 1 << 1;
export const PPR_LAST = 1 << 2;
export const PPR_EXECUTE = 1 << 3;
export const PPR_PRIVILEGED = 1 << 4;

/**
 * A slot of `groups`: state in bits 1:0, Page Request Group Index in 10:2, and of an answer its code in 15:12 and
 * in bit 16 whether it had a PASID.
 *
 *   FREE --device: first request--> WAITING --pIOMMU: response--> ANSWERED --device: looks--> FREE
 */
export const PRG_FREE = 0;
export const PRG_WAITING = 1;
export const PRG_ANSWERED = 2;
export const PRG_STATE_MASK = 3;
export const PRG_INDEX_SHIFT = 2;
export const PRG_INDEX_MASK = 0x1ff;
export const PRG_CODE_SHIFT = 12;
export const PRG_CODE_MASK = 0xf;
export const PRG_PASID = 1 << 16;
/** PRG Response codes. [IHI0070] 8.3 */
export const PRG_SUCCESS = 0b0000;
export const PRG_INVALID = 0b0001;
export const PRG_FAILURE = 0b1111;

/** Owner is the device's thread unless said. Counters are 64-bit, monotonic, read by anyone for display. */
export const PortLayout = layout('port', 2, {
  /** Epoch word: 0 outside, else the generation seen on entry. Readers: pIOMMU (SYNC). */
  ack: line(u32()),
  /** Generation of the last batch: the micro-TLB holds entries of this one only. */
  lastGen: line(u32()),
  /** Linear bases of what the port is wired to. Writer: the machine's builder. */
  unit: u32(),
  contexts: u32(),
  iotlb: u32(),
  /** The device's StreamID. */
  sid: u32(),
  /** Requests of this batch sent and not yet answered. */
  outstanding: u32(),
  /** Number of this batch: an answer to an earlier one, which was left before it came, is dropped. */
  batchSeq: u32(),
  /** Requests of any batch whose answers were not yet taken: never more than PORT_RING. */
  inFlight: u32(),
  /** SubstreamID of what the micro-TLB holds, plus one: 0 stands for NO_SSID. */
  microSsid: u32(),
  /** 1: the device has an ATC; it uses it while atsControl is odd. Writer: the machine's builder. */
  ats: u32(),
  /** 1: the device can make page requests. Writer: the machine's builder. */
  pri: u32(),
  /** atsControl as the device last saw it: the ATC is emptied when it moved. */
  atsSeen: u32(),
  /** atcGen when the batch began. */
  atcGenSeen: u32(),
  hitsMicro: line(u64()),
  hitsIotlb: u64(),
  misses: u64(),
  faults: u64(),
  /** Futex the device parks on; the pIOMMU adds one after pushing answers, and notifies when parked is set. */
  answered: line(u32()),
  parked: line(u32()),
  /** Ring indexes run freely modulo 2^32. prod by the pusher, cons by the popper. */
  reqProd: line(u32()),
  reqCons: line(u32()),
  respProd: line(u32()),
  respCons: line(u32()),
  batch: raw(XLAT_BYTES * PORT_BATCH),
  micro: raw(MICRO_BYTES * MICRO_ENTRIES),
  req: raw(XLAT_BYTES * PORT_RING),
  resp: raw(XLAT_BYTES * PORT_RING),

  /** Odd while ATS is enabled at the device. Whoever plays its PCI configuration space adds one each time. */
  atsControl: line(u32()),
  /** Moves before the pIOMMU takes entries out of the ATC. Writer: pIOMMU. */
  atcGen: line(u32()),
  /** 1 while the device does not complete ATC invalidations. Writer: whoever injects the fault. */
  atcHung: line(u32()),
  hitsAtc: line(u64()),
  /** Translation Requests sent, and those answered without the permission asked for. */
  atsRequests: u64(),
  atsDenied: u64(),
  atc: raw(ATC_BYTES * ATC_ENTRIES),
  /** Writer: pIOMMU, by the low byte of the STAG. */
  verdicts: raw(4 * STALL_TAGS),
  pprProd: line(u32()),
  pprCons: line(u32()),
  ppr: raw(PPR_BYTES * PPR_RING),
  groups: line(array(u32(), PRG_SLOTS)),
});
