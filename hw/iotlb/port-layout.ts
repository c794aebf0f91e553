/**
 * A port: one device's connection to its translation unit (key `port:N`, N the device's index). The device
 * puts up to PORT_BATCH transactions in `batch`, probes them inside an epoch, sends what missed down the
 * request ring, and goes on when the answers are back. All of it is moved by the compiled kernel, in place.
 *
 *   device: batch -> micro-TLB -> IOTLB probe -> (miss) -> req ring ==> pIOMMU: walk, fill ==> resp ring -> batch
 */
import { layout, line, raw, u32, u64 } from '../memory/layout.js';

export const PORT_BATCH = 64;
/** Slots of each ring: more than a device can have outstanding, so that neither can overflow. */
export const PORT_RING = 128;
export const XLAT_BYTES = 64;
export const MICRO_ENTRIES = 64;
export const MICRO_BYTES = 32;

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
/** The transaction stalled: it was not performed, and is to be sent again, or given up, when software says so. */
export const XLAT_STALLED = 0xfe;
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

/** Owner is the device's thread unless said. Counters are 64-bit, monotonic, read by anyone for display. */
export const PortLayout = layout('port', 1, {
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
});
