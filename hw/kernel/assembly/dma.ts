/**
 * The device's side of a DMA (port-layout.ts has the picture): enter the epoch, translate a batch as far as
 * the micro-TLB and the IOTLB reach, ask for the rest, take the answers, leave.
 *
 *   micro-TLB entry   0 page word as the IOTLB's (the page is always 4 KiB, the size that of the translation)
 *                     8 physical page | 16 fillSeq | 20 IPA page, low 32 bits; read and filled in hits.ts too
 *
 * The micro-TLB is the device's alone, so it is read plainly. It holds what was seen in one generation: any
 * SYNC moves the generation, and the next batch then starts with it empty; so does a change of SubstreamID. A
 * foreign StreamID, and what is more than a plain read or write, is none of the caches' business: it goes to the
 * pIOMMU, which knows what to say about it.
 */
import { atcAnswer, atcFind, atcInsert, atsReady, runAtc } from './atc';
import { clearHits, iotlbHits, microHits, microOf, remember, runHits } from './hits';
import {
  find,
  hitFillSeq,
  hitIpaPage,
  hitPa,
  hitWord,
  READ,
  SIZE_SHIFT,
  setMask,
  spreadOf,
  VALID,
} from './iotlb';
import {
  CONTEXT_ABORT,
  CONTEXT_BYPASS,
  CONTEXT_BYTES,
  CONTEXT_COUNT,
  CONTEXT_FLAG_ATS,
  CONTEXT_FLAG_ATS_S1CHK,
  CONTEXT_FLAGS,
  CONTEXT_KIND,
  CONTEXT_NESTED,
  CONTEXT_S1,
  CONTEXT_S1_EL2,
  CONTEXT_S1_OUTPUT_BITS,
  CONTEXT_S2,
  CONTEXT_SEQ,
  CONTEXT_SID,
  CONTEXT_SSID,
  CONTEXT_TAG,
  CONTEXT_VALID,
  IOTLB_ENTRIES,
  MICRO_BYTES,
  MICRO_ENTRIES,
  PORT_ACK,
  PORT_ATC,
  PORT_ATS_DENIED,
  PORT_ATS_REQUESTS,
  PORT_BATCH,
  PORT_BATCH_SEQ,
  PORT_BATCH_SLOTS,
  PORT_CONTEXTS,
  PORT_FAULTS,
  PORT_HITS_ATC,
  PORT_HITS_IOTLB,
  PORT_HITS_MICRO,
  PORT_IN_FLIGHT,
  PORT_IOTLB,
  PORT_LAST_GEN,
  PORT_MICRO,
  PORT_MICRO_SSID,
  PORT_MISSES,
  PORT_OUTSTANDING,
  PORT_REQ,
  PORT_REQ_PROD,
  PORT_RESP,
  PORT_RESP_CONS,
  PORT_RESP_PROD,
  PORT_RING_SLOTS,
  PORT_SID,
  PORT_UNIT,
  UNIT_DOORBELL,
  UNIT_DOORBELL_PARKED,
  UNIT_GEN,
  UNIT_SYNC_WAITING,
  XLAT_BYTES,
  XLAT_COOKIE,
  XLAT_FAULT,
  XLAT_FILL_SEQ,
  XLAT_FLAG_ATS,
  XLAT_FLAG_TRANSLATED,
  XLAT_FLAG_WRITE,
  XLAT_FLAGS,
  XLAT_FROM_BYPASS,
  XLAT_FROM_IOTLB,
  XLAT_IOVA,
  XLAT_IPA,
  XLAT_NOT_GRANTED,
  XLAT_OK,
  XLAT_PA,
  XLAT_PENDING,
  XLAT_PERM_READ,
  XLAT_PERM_WRITE,
  XLAT_SID,
  XLAT_SIZE_LG2,
  XLAT_SOURCE,
  XLAT_SSID,
  XLAT_STATUS,
} from './layout';
import { notifyAll, OP_LOAD, OP_RMW, OP_STORE, schedulePoint } from './machine';
import { copyXlat, ringSlot } from './rings';
import { abort, BYPASS_LG2, cacheable, stagesOf, succeed } from './walk';
import { BUG_EPOCH_UNCHECKED, BUG_MICRO_SURVIVES, hasBug } from './zoo';

const EBUSY: i32 = 16;
const SLOT_BITS: u32 = 6;
const BATCH_SEQ_MASK: u32 = (1 << 26) - 1;

/** Size of the last entry that hit: what the next batch looks for first. A guess, of this thread. */
let likelyLg2: u32 = 12;

/** For an instance that is to begin as a new one does. */
export function forgetLikelySize(): void {
  likelyLg2 = 12;
}

// The stream's configuration as one consistent reading saw it.
let contextKind: u32 = 0;
let contextTag: u32 = 0;
let contextOutputBits: u32 = 0;
/** Whether the IOTLB may answer its plain reads and writes. */
let contextCached: bool = false;
/** Whether translated addresses of the stream pass (full ATS). */
let contextPasses: bool = false;

/** unit-layout.ts contextIndex. */
function contextIndex(sid: u32, ssid: u32): u32 {
  return (sid ^ (((ssid + 1) * 0x9e37_79b1) >>> 20)) % CONTEXT_COUNT;
}

/** @returns whether the configuration of the stream, or substream, is cached */
function readContext(contexts: usize, sid: u32, ssid: u32): bool {
  const context = contexts + contextIndex(sid, ssid) * CONTEXT_BYTES;
  schedulePoint(OP_LOAD, context + CONTEXT_SEQ);
  const seq = atomic.load<u32>(context, CONTEXT_SEQ);
  schedulePoint(OP_LOAD, context + CONTEXT_SID);
  const usable =
    (atomic.load<u32>(context, CONTEXT_SID) == sid) &
    (atomic.load<u32>(context, CONTEXT_SSID) == ssid) &
    (atomic.load<u32>(context, CONTEXT_VALID) != 0) &
    ((seq & 1) == 0);
  contextKind = atomic.load<u32>(context, CONTEXT_KIND);
  contextTag = atomic.load<u32>(context, CONTEXT_TAG);
  contextOutputBits = atomic.load<u32>(context, CONTEXT_S1_OUTPUT_BITS);
  const flags = atomic.load<u32>(context, CONTEXT_FLAGS);
  schedulePoint(OP_LOAD, context + CONTEXT_SEQ);
  const known = usable & (atomic.load<u32>(context, CONTEXT_SEQ) == seq);
  contextPasses = known & ((flags & (CONTEXT_FLAG_ATS | CONTEXT_FLAG_ATS_S1CHK)) == CONTEXT_FLAG_ATS);
  contextCached = known & (contextKind >= CONTEXT_S1) & (contextKind <= CONTEXT_S1_EL2) & cacheable(flags);
  return known;
}

/** What an access needs in a page word. */
function needOf(xlat: usize): u32 {
  return u32(READ) << (load<u32>(xlat, XLAT_FLAGS) & XLAT_FLAG_WRITE);
}

/** Neither privileged, nor an instruction, nor about ATS: what the caches are for. */
function plain(xlat: usize): bool {
  return (load<u32>(xlat, XLAT_FLAGS) & ~XLAT_FLAG_WRITE) == 0;
}

/** What an IPA from a cache is ANDed with: it means something only where there is a stage 2. */
function ipaMaskOf(kind: u32): u64 {
  return select<u64>(~0, 0, (kind == CONTEXT_S2) | (kind == CONTEXT_NESTED));
}

/** 0 bits: unchecked. */
function fits(iova: u64, bits: u32): bool {
  return bits == 0 || bits >= 64 || iova >> u64(bits) == 0;
}

/** The micro-TLB holds one substream at a time. */
function takeSubstream(port: usize, ssid: u32): void {
  memory.fill(port + PORT_MICRO, 0, MICRO_ENTRIES * MICRO_BYTES);
  store<u32>(port, ssid + 1, PORT_MICRO_SSID);
}

function count(port: usize, at: usize, n: u32): void {
  store<u64>(port + at, load<u64>(port + at) + u64(n));
}

/** Enters the epoch; drops the micro-TLB if a SYNC was consumed since the last batch. */
function enter(port: usize, unit: usize): void {
  let gen: u32;
  do {
    schedulePoint(OP_LOAD, unit + UNIT_GEN);
    gen = atomic.load<u32>(unit, UNIT_GEN);
    schedulePoint(OP_STORE, port + PORT_ACK);
    atomic.store<u32>(port, gen, PORT_ACK);
    if (hasBug(BUG_EPOCH_UNCHECKED)) break;
    schedulePoint(OP_LOAD, unit + UNIT_GEN);
    // The store must be visible before this load, or a SYNC could pass us by: both are sequentially consistent.
  } while (atomic.load<u32>(unit, UNIT_GEN) != gen);
  if (load<u32>(port, PORT_LAST_GEN) != gen) {
    if (!hasBug(BUG_MICRO_SURVIVES)) memory.fill(port + PORT_MICRO, 0, MICRO_ENTRIES * MICRO_BYTES);
    store<u32>(port, gen, PORT_LAST_GEN);
  }
}

/** Drops answers to batches that were left before they came. @returns requests still in flight */
function dropOldAnswers(port: usize): u32 {
  const cons = load<u32>(port, PORT_RESP_CONS);
  schedulePoint(OP_LOAD, port + PORT_RESP_PROD);
  const prod = atomic.load<u32>(port, PORT_RESP_PROD);
  const flying = load<u32>(port, PORT_IN_FLIGHT);
  if (prod == cons) return flying;
  const left = flying - min(prod - cons, flying);
  schedulePoint(OP_STORE, port + PORT_RESP_CONS);
  atomic.store<u32>(port, prod, PORT_RESP_CONS);
  store<u32>(port, left, PORT_IN_FLIGHT);
  return left;
}

export function dmaBegin(port: usize, slots: u32): i32 {
  const n = min(slots, PORT_BATCH_SLOTS);
  const flying = dropOldAnswers(port);
  if (flying > PORT_RING_SLOTS - n) return -EBUSY;
  const unit = <usize>load<u32>(port, PORT_UNIT);
  const iotlb = <usize>load<u32>(port, PORT_IOTLB);
  const sid = load<u32>(port, PORT_SID);
  enter(port, unit);
  if (atsReady(port)) return beginAts(port, n, sid, flying);

  const contexts = <usize>load<u32>(port, PORT_CONTEXTS);
  let ssid = load<u32>(port, PORT_MICRO_SSID) - 1;
  let known = readContext(contexts, sid, ssid);
  let kind = contextKind;
  let tag = contextTag;
  let translated = contextCached;
  let stages = stagesOf(kind);
  let ipaMask = ipaMaskOf(kind);

  const batchSeq = (load<u32>(port, PORT_BATCH_SEQ) + 1) & BATCH_SEQ_MASK;
  store<u32>(port, batchSeq, PORT_BATCH_SEQ);
  const prod = load<u32>(port, PORT_REQ_PROD);
  let otherSize: u32 = 0;
  let misses: u32 = 0;
  let faults: u32 = 0;
  clearHits();
  for (let i: u32 = 0; i < n; i++) {
    let xlat = port + PORT_BATCH + i * XLAT_BYTES;
    if (translated) {
      const lg2 = likelyLg2;
      i += runHits(
        xlat,
        n - i,
        port + PORT_MICRO,
        iotlb + IOTLB_ENTRIES,
        setMask(iotlb),
        sid,
        ssid,
        tag,
        (u64(lg2) << SIZE_SHIFT) | stages | VALID,
        spreadOf(tag, lg2 - 12),
        u64(lg2),
        ((<u64>1) << u64(lg2)) - 1,
        ipaMask,
      );
      if (i >= n) break;
      xlat = port + PORT_BATCH + i * XLAT_BYTES;
    }
    const mine = (load<u32>(xlat, XLAT_SID) == sid) & plain(xlat);
    if (mine & (load<u32>(xlat, XLAT_SSID) != ssid)) {
      ssid = load<u32>(xlat, XLAT_SSID);
      takeSubstream(port, ssid);
      known = readContext(contexts, sid, ssid);
      kind = contextKind;
      tag = contextTag;
      translated = contextCached;
      stages = stagesOf(kind);
      ipaMask = ipaMaskOf(kind);
      // Once more, from the micro-TLB on.
      i--;
      continue;
    }
    if (mine & translated) {
      // Nothing in the micro-TLB, and no entry of the likely size: all the sizes.
      const iova = load<u64>(xlat, XLAT_IOVA);
      if (find(unit, iotlb, tag, stages, iova >> 12) != 0 && (u32(hitWord) & needOf(xlat)) != 0) {
        const lg2 = u32(hitWord >> 6) & 63;
        const below = iova & (((<u64>1) << u64(lg2)) - 1);
        const pa = hitPa | below;
        const ipa = ((u64(hitIpaPage) << 12) | below) & ipaMask;
        succeed(xlat, pa, ipa, lg2, hitFillSeq, XLAT_FROM_IOTLB);
        remember(microOf(port + PORT_MICRO, iova >> 12), iova, hitWord & 0xfff, pa, ipa, u64(hitFillSeq));
        likelyLg2 = lg2;
        otherSize++;
        continue;
      }
    } else if (mine & known) {
      if (kind == CONTEXT_ABORT) {
        abort(xlat);
        faults++;
        continue;
      }
      const iova = load<u64>(xlat, XLAT_IOVA);
      if (kind == CONTEXT_BYPASS && fits(iova, contextOutputBits)) {
        succeed(xlat, iova, 0, BYPASS_LG2, 0, XLAT_FROM_BYPASS);
        continue;
      }
    }
    store<u32>(xlat, (batchSeq << SLOT_BITS) | i, XLAT_COOKIE);
    store<u32>(xlat, XLAT_PENDING, XLAT_STATUS);
    if (misses == 0) schedulePoint(OP_STORE, ringSlot(port + PORT_REQ, prod));
    copyXlat(ringSlot(port + PORT_REQ, prod + misses), xlat);
    misses++;
  }
  if (microHits != 0) count(port, PORT_HITS_MICRO, microHits);
  if (iotlbHits + otherSize != 0) count(port, PORT_HITS_IOTLB, iotlbHits + otherSize);
  if (faults != 0) count(port, PORT_FAULTS, faults);
  store<u32>(port, misses, PORT_OUTSTANDING);
  if (misses != 0) {
    count(port, PORT_MISSES, misses);
    store<u32>(port, flying + misses, PORT_IN_FLIGHT);
    schedulePoint(OP_STORE, port + PORT_REQ_PROD);
    atomic.store<u32>(port, prod + misses, PORT_REQ_PROD);
  }
  return i32(misses);
}

/** One slot on its way to the pIOMMU, as a request of another kind or at another address than the slot's own. */
function send(to: usize, xlat: usize, cookie: u32, iova: u64, flags: u32): void {
  schedulePoint(OP_STORE, to);
  store<u32>(xlat, cookie, XLAT_COOKIE);
  store<u32>(xlat, XLAT_PENDING, XLAT_STATUS);
  copyXlat(to, xlat);
  store<u64>(to, iova, XLAT_IOVA);
  store<u32>(to, flags, XLAT_FLAGS);
}

/** dmaBegin of a device that uses its ATC. */
function beginAts(port: usize, n: u32, sid: u32, flying: u32): i32 {
  const contexts = <usize>load<u32>(port, PORT_CONTEXTS);
  const batchSeq = (load<u32>(port, PORT_BATCH_SEQ) + 1) & BATCH_SEQ_MASK;
  store<u32>(port, batchSeq, PORT_BATCH_SEQ);
  const prod = load<u32>(port, PORT_REQ_PROD);
  // A batch is of one substream more often than not.
  let ssid = load<u32>(port + PORT_BATCH, XLAT_SSID);
  readContext(contexts, sid, ssid);
  let passes = contextPasses;
  let hits: u32 = 0;
  let requests: u32 = 0;
  let misses: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    if (passes) {
      const run = runAtc(port + PORT_BATCH + i * XLAT_BYTES, n - i, port + PORT_ATC, sid, ssid);
      hits += run;
      i += run;
      if (i >= n) break;
    }
    const xlat = port + PORT_BATCH + i * XLAT_BYTES;
    const mine = (load<u32>(xlat, XLAT_SID) == sid) & plain(xlat);
    if (mine & (load<u32>(xlat, XLAT_SSID) != ssid)) {
      ssid = load<u32>(xlat, XLAT_SSID);
      readContext(contexts, sid, ssid);
      passes = contextPasses;
      if (passes) {
        // Once more, from the ATC on.
        i--;
        continue;
      }
    }
    const iova = load<u64>(xlat, XLAT_IOVA);
    const flags = load<u32>(xlat, XLAT_FLAGS);
    const to = ringSlot(port + PORT_REQ, prod + misses);
    const cookie = (batchSeq << SLOT_BITS) | i;
    if (mine) {
      const entry = atcFind(port, ssid, iova, needOf(xlat));
      if (entry != 0) {
        hits++;
        atcAnswer(entry, xlat, iova & 0xfff);
        send(to, xlat, cookie, load<u64>(xlat, XLAT_PA), flags | XLAT_FLAG_TRANSLATED);
      } else {
        requests++;
        send(to, xlat, cookie, iova, flags | XLAT_FLAG_ATS);
      }
    } else {
      send(to, xlat, cookie, iova, flags);
    }
    misses++;
  }
  if (hits != 0) count(port, PORT_HITS_ATC, hits);
  if (requests != 0) count(port, PORT_ATS_REQUESTS, requests);
  store<u32>(port, misses, PORT_OUTSTANDING);
  if (misses != 0) {
    count(port, PORT_MISSES, misses);
    store<u32>(port, flying + misses, PORT_IN_FLIGHT);
    schedulePoint(OP_STORE, port + PORT_REQ_PROD);
    atomic.store<u32>(port, prod + misses, PORT_REQ_PROD);
  }
  return i32(misses);
}

/**
 * The answer to a Translation Request that succeeded: keeps it, and says what becomes of the slot.
 * @returns XLAT_OK: it has its address. XLAT_PENDING: a Translated transaction is to follow. Else its status
 */
function granted(port: usize, xlat: usize, from: usize): u32 {
  const permissions = load<u32>(from, XLAT_FAULT) & (XLAT_PERM_READ | XLAT_PERM_WRITE);
  if (permissions == 0) return XLAT_NOT_GRANTED;
  const ssid = load<u32>(xlat, XLAT_SSID);
  atcInsert(
    port,
    ssid,
    load<u64>(xlat, XLAT_IOVA),
    load<u64>(from, XLAT_PA),
    load<u64>(from, XLAT_IPA),
    load<u32>(from, XLAT_SIZE_LG2),
    permissions,
    load<u32>(from, XLAT_FILL_SEQ),
  );
  if ((permissions & needOf(xlat)) == 0) return XLAT_NOT_GRANTED;
  readContext(load<u32>(port, PORT_CONTEXTS), load<u32>(xlat, XLAT_SID), ssid);
  return contextPasses ? XLAT_OK : XLAT_PENDING;
}

function ringDoorbell(unit: usize): void {
  schedulePoint(OP_RMW, unit + UNIT_DOORBELL);
  atomic.add<u32>(unit, 1, UNIT_DOORBELL);
  schedulePoint(OP_LOAD, unit + UNIT_DOORBELL_PARKED);
  if (atomic.load<u32>(unit, UNIT_DOORBELL_PARKED) != 0) notifyAll(unit + UNIT_DOORBELL);
}

export function dmaPoll(port: usize): i32 {
  let cons = load<u32>(port, PORT_RESP_CONS);
  schedulePoint(OP_LOAD, port + PORT_RESP_PROD);
  const prod = atomic.load<u32>(port, PORT_RESP_PROD);
  let outstanding = load<u32>(port, PORT_OUTSTANDING);
  if (prod == cons) return i32(outstanding);
  schedulePoint(OP_LOAD, ringSlot(port + PORT_RESP, cons));
  if (prod - cons > PORT_RING_SLOTS) cons = prod - PORT_RING_SLOTS;
  const flying = load<u32>(port, PORT_IN_FLIGHT);
  store<u32>(port, flying - min(prod - cons, flying), PORT_IN_FLIGHT);
  const batchSeq = load<u32>(port, PORT_BATCH_SEQ);
  const sid = load<u32>(port, PORT_SID);
  const microSsid = load<u32>(port, PORT_MICRO_SSID);
  const reqProd = load<u32>(port, PORT_REQ_PROD);
  let faults: u32 = 0;
  let denied: u32 = 0;
  let again: u32 = 0;
  for (; cons != prod; cons++) {
    const from = ringSlot(port + PORT_RESP, cons);
    const cookie = load<u32>(from, XLAT_COOKIE);
    const xlat = port + PORT_BATCH + (cookie % PORT_BATCH_SLOTS) * XLAT_BYTES;
    const status = load<u32>(from, XLAT_STATUS);
    // Ours, of this batch, and not answered before.
    if (
      cookie >>> SLOT_BITS != batchSeq ||
      load<u32>(xlat, XLAT_STATUS) != XLAT_PENDING ||
      status == XLAT_PENDING
    )
      continue;
    const requested = load<u32>(from, XLAT_FLAGS) & (XLAT_FLAG_ATS | XLAT_FLAG_TRANSLATED);
    if ((requested & XLAT_FLAG_ATS) != 0 && status == XLAT_OK && plain(xlat)) {
      const outcome = granted(port, xlat, from);
      if (outcome == XLAT_PENDING) {
        store<u64>(xlat, load<u64>(from, XLAT_PA), XLAT_PA);
        store<u64>(xlat, load<u64>(from, XLAT_IPA), XLAT_IPA);
        store<u64>(xlat, load<u64>(from, XLAT_STATUS), XLAT_STATUS);
        store<u64>(xlat, u64(load<u32>(from, XLAT_FILL_SEQ)), XLAT_FILL_SEQ);
        store<u64>(xlat, load<u64>(from, XLAT_SOURCE), XLAT_SOURCE);
        const flags = load<u32>(xlat, XLAT_FLAGS) | XLAT_FLAG_TRANSLATED;
        send(ringSlot(port + PORT_REQ, reqProd + again), xlat, cookie, load<u64>(from, XLAT_PA), flags);
        again++;
        continue;
      }
      if (outcome != XLAT_OK) {
        store<u32>(xlat, outcome, XLAT_STATUS);
        if (outstanding != 0) outstanding--;
        faults++;
        denied++;
        continue;
      }
    }
    if (
      (requested & XLAT_FLAG_TRANSLATED) != 0 &&
      load<u32>(from, XLAT_SOURCE) == XLAT_FROM_BYPASS &&
      status == XLAT_OK &&
      plain(xlat)
    ) {
      // It passed: what the slot says already, from the ATC, is the answer.
      store<u32>(xlat, XLAT_OK, XLAT_STATUS);
      if (outstanding != 0) outstanding--;
      continue;
    }
    store<u64>(xlat, load<u64>(from, XLAT_PA), XLAT_PA);
    store<u64>(xlat, load<u64>(from, XLAT_IPA), XLAT_IPA);
    store<u64>(xlat, load<u64>(from, XLAT_STATUS), XLAT_STATUS);
    store<u64>(xlat, load<u64>(from, XLAT_FILL_SEQ), XLAT_FILL_SEQ);
    store<u64>(xlat, load<u64>(from, XLAT_SOURCE), XLAT_SOURCE);
    if (outstanding != 0) outstanding--;
    if (status != XLAT_OK) {
      faults++;
    } else if (
      requested == 0 &&
      load<u32>(xlat, XLAT_SOURCE) != XLAT_FROM_BYPASS &&
      load<u32>(xlat, XLAT_SID) == sid &&
      load<u32>(xlat, XLAT_SSID) + 1 == microSsid &&
      plain(xlat)
    ) {
      // The answer proves no more than the access that was asked for.
      const iova = load<u64>(xlat, XLAT_IOVA);
      const bits = (u64(load<u32>(xlat, XLAT_SIZE_LG2) & 63) << SIZE_SHIFT) | u64(needOf(xlat)) | VALID;
      const pa = load<u64>(xlat, XLAT_PA);
      const ipa = load<u64>(xlat, XLAT_IPA);
      remember(
        microOf(port + PORT_MICRO, iova >> 12),
        iova,
        bits,
        pa,
        ipa,
        u64(load<u32>(xlat, XLAT_FILL_SEQ)),
      );
    }
  }
  schedulePoint(OP_STORE, port + PORT_RESP_CONS);
  atomic.store<u32>(port, cons, PORT_RESP_CONS);
  store<u32>(port, outstanding, PORT_OUTSTANDING);
  if (faults != 0) count(port, PORT_FAULTS, faults);
  if (denied != 0) count(port, PORT_ATS_DENIED, denied);
  if (again != 0) {
    store<u32>(port, load<u32>(port, PORT_IN_FLIGHT) + again, PORT_IN_FLIGHT);
    schedulePoint(OP_STORE, port + PORT_REQ_PROD);
    atomic.store<u32>(port, reqProd + again, PORT_REQ_PROD);
    ringDoorbell(<usize>load<u32>(port, PORT_UNIT));
  }
  return i32(outstanding);
}

export function dmaEnd(port: usize): void {
  const unit = <usize>load<u32>(port, PORT_UNIT);
  schedulePoint(OP_STORE, port + PORT_ACK);
  atomic.store<u32>(port, 0, PORT_ACK);
  schedulePoint(OP_LOAD, unit + UNIT_SYNC_WAITING);
  if (atomic.load<u32>(unit, UNIT_SYNC_WAITING) != 0) ringDoorbell(unit);
}
