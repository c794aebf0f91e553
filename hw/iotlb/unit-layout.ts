/**
 * A translation unit: what one physical IOMMU shares with the devices behind it. Three regions a unit,
 * found under the keys `unit:N`, `contexts:N` and `iotlb:N`, N the unit's index in its machine.
 *
 *            pIOMMU worker (sole writer)                     devices (readers)
 *   unit     gen, syncWaiting, leafSizes, fillSeq            doorbell (add one after pushing requests)
 *   contexts one StreamContext per cached stream             probed by stream, sequence-checked
 *   iotlb    set-associative entries                         probed by tag and page, sequence-checked
 *
 * The epoch protocol (design: SYNC waits for DMA in flight). A device enters by
 *   do { ack = gen } while (gen != ack)      sequentially consistent store, then load
 * drops its private micro-TLB when gen moved since its last batch, translates and uses a batch, and leaves by
 * storing 0. SYNC adds one to gen (skipping 0), then is complete when every port's ack is 0 or not older
 * than the new gen. A device that leaves while syncWaiting is set rings the doorbell.
 */
import { array, type Layout, layout, line, raw, u32, u64 } from '../memory/layout.js';

export const MAX_PORTS = 64;

export const UnitLayout = layout('translation-unit', 1, {
  /** Epoch generation, never 0. Writer: pIOMMU. */
  gen: line(u32()),
  /** 1 while a SYNC waits for ports to leave. Writer: pIOMMU. */
  syncWaiting: line(u32()),
  /** Futex the pIOMMU parks on: any thread adds one after giving it work. */
  doorbell: line(u32()),
  /** 1 while the pIOMMU is parked or about to park: the ringer then notifies. Writer: pIOMMU. */
  doorbellParked: line(u32()),
  /**
   * Leaf sizes present in the IOTLB: bit (log2 bytes - 12); bit 31: global entries. Never cleared but by a full
   * flush. Writer: pIOMMU.
   */
  leafSizes: line(u32()),
  /** Number of the last walk that filled (or would have filled) the IOTLB. Writer: pIOMMU. */
  fillSeq: u32(),
  /** Ports in use; then each port's base (0 = gone). Writer: the thread that builds the machine. */
  portCount: line(u32()),
  ports: array(u32(), MAX_PORTS),
  /** Thread id of the pIOMMU's host, so that a waiter notices its death. Writer: the hosting thread. */
  owner: line(u32()),
});

/** Contexts cached per unit: direct mapped by `contextIndex`. */
export const CONTEXT_COUNT = 1024;
export const CONTEXT_BYTES = 128;

/**
 * Slot of a stream, or of one of its substreams.
 * @param ssid  SubstreamID, or NO_SSID: then the low bits of the StreamID
 */
export const contextIndex = (sid: number, ssid: number): number =>
  (sid ^ (Math.imul(ssid + 1, 0x9e37_79b1) >>> 20)) & (CONTEXT_COUNT - 1);

/** What a stream's traffic gets. */
export const CONTEXT_ABORT = 0;
export const CONTEXT_BYPASS = 1;
export const CONTEXT_S1 = 2;
export const CONTEXT_S2 = 3;
export const CONTEXT_NESTED = 4;
/** Stage 1 of the EL2 (or EL2-E2H) regime: no VMID, and entries that only the TLBI_EL2_* commands remove. */
export const CONTEXT_S1_EL2 = 5;

/**
 * One decoded stream configuration (STE plus CD): the configuration cache, and the argument of a walk.
 * Writer: pIOMMU, under `seq` (odd while it writes). Readers: devices behind it.
 */
export const StreamContext = layout('stream-context', 2, {
  seq: u32(),
  sid: u32(),
  valid: u32(),
  /** CONTEXT_*: which stages translate. */
  kind: u32(),
  /** IOTLB tag: VMID | ASID << 16 (ASID 0 for stage 2 only). */
  tag: u32(),
  /** CONTEXT_FLAG_*. */
  flags: u32(),
  /** CD.TTB0: an IPA when nested, else a PA; byte address of the root table. */
  s1Root: u64(),
  /** Input bits of stage 1: 64 - T0SZ. */
  s1InputBits: u32(),
  /** Output bits of stage 1 (CD.IPS), in bits; for bypass the bits of an address (0: unchecked). */
  s1OutputBits: u32(),
  /** STE.S2TTB: byte PA. */
  s2Root: u64(),
  /** Input bits of stage 2: 64 - S2T0SZ. */
  s2InputBits: u32(),
  /** Output bits of stage 2 (STE.S2PS). */
  s2OutputBits: u32(),
  /** First level of the stage-2 walk (from S2SL0), 0..3; concatenated roots follow from s2InputBits. */
  s2StartLevel: u32(),
  /** First level of the stage-1 walk, from T0SZ. */
  s1StartLevel: u32(),
  /** Log2 of the granule of each stage: 12, 14 or 16. */
  s1GranuleLg2: u32(),
  s2GranuleLg2: u32(),
  /** SubstreamID, or NO_SSID: with `sid` the key. */
  ssid: u32(),
});

/** Stage 1 raises an Access flag fault on AF=0 (CD.AFFD == 0). */
export const CONTEXT_FLAG_S1_AF_FAULT = 1 << 0;
/** Stage 2 raises an Access flag fault on AF=0 (STE.S2AFFD == 0). */
export const CONTEXT_FLAG_S2_AF_FAULT = 1 << 1;
/** Record stage-1 faults in the event queue (CD.R). */
export const CONTEXT_FLAG_S1_RECORD = 1 << 2;
/** Record stage-2 faults in the event queue (STE.S2R). */
export const CONTEXT_FLAG_S2_RECORD = 1 << 3;
/** CD.A: a faulting transaction is aborted (1) or RAZ/WI (0). */
export const CONTEXT_FLAG_S1_ABORT = 1 << 4;
/** STE.MEV: events may be merged. */
export const CONTEXT_FLAG_MEV = 1 << 5;
/** Hardware update of the Access flag, and of dirty state (CD.HA, CD.HD; STE.S2HA, S2HD). */
export const CONTEXT_FLAG_S1_HA = 1 << 6;
export const CONTEXT_FLAG_S1_HD = 1 << 7;
export const CONTEXT_FLAG_S2_HA = 1 << 8;
export const CONTEXT_FLAG_S2_HD = 1 << 9;
/** Faults of the stage stall (CD.S unless STE.S1STALLD; STE.S2S). */
export const CONTEXT_FLAG_S1_STALL = 1 << 10;
export const CONTEXT_FLAG_S2_STALL = 1 << 11;
/** STE.EATS: translation requests are answered with the final address, or (S1CHK) with the IPA. */
export const CONTEXT_FLAG_ATS = 1 << 12;
export const CONTEXT_FLAG_ATS_S1CHK = 1 << 13;
/** CD.WXN, UWXN, PAN, HAD0, E0PD0. */
export const CONTEXT_FLAG_WXN = 1 << 14;
export const CONTEXT_FLAG_UWXN = 1 << 15;
export const CONTEXT_FLAG_PAN = 1 << 16;
export const CONTEXT_FLAG_HAD = 1 << 17;
export const CONTEXT_FLAG_E0PD = 1 << 18;
/** Of CONTEXT_S1_EL2: the regime is EL2-E2H, with privileged and unprivileged permissions and ASIDs. */
export const CONTEXT_FLAG_E2H = 1 << 19;
/** STE.S2PTW: a stage-1 table in Device memory is a stage-2 permission fault. */
export const CONTEXT_FLAG_S2_PTW = 1 << 20;
/** The SMMU has 52-bit addresses: with the 64 KiB granule, descriptor bits 15:12 and level-1 blocks mean something. */
export const CONTEXT_FLAG_OAS52 = 1 << 21;
/** STE.PRIVCFG and INSTCFG, two bits each: what a transaction counts as, whatever it says of itself. */
export const CONTEXT_FLAG_PRIVCFG_SHIFT = 24;
export const CONTEXT_FLAG_INSTCFG_SHIFT = 26;

export const contextsLayout = (): Layout =>
  layout('contexts', 1, { entries: raw(CONTEXT_BYTES * CONTEXT_COUNT) });

export const IOTLB_ENTRY_BYTES = 32;
export const IOTLB_WAYS = 4;

/** Byte offsets in one IOTLB entry. Writer: pIOMMU, under seq. */
export const IotlbEntry = layout('iotlb-entry', 1, {
  /** Even and unchanged across a read, or the read is void. */
  seq: u32(),
  /** VMID | ASID << 16. */
  tag: u32(),
  /**
   * Page-aligned input address in the high 52 bits, and below them: bit 0 valid, 1 readable, 2 writable,
   * 3 global, 4 stage 1 took part, 5 stage 2 took part, 6..11 log2 of the entry's size in bytes.
   */
  page: u64(),
  /** Page-aligned physical address. */
  pa: u64(),
  /** Number of the walk that made it (UnitLayout.fillSeq): names the walk in a report. */
  fillSeq: u32(),
  /** IPA page number (low 32 bits): what stage 1 gave for `page`, or `page` itself with stage 2 only. */
  ipaPage: u32(),
});

/** @param entries a power of two, at least IOTLB_WAYS */
export const iotlbLayout = (entries: number): Layout =>
  layout('iotlb', 1, { sets: line(u32()), entries: raw(IOTLB_ENTRY_BYTES * entries) });
