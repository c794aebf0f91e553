/**
 * A device that uses ATS: its address translation cache, and what a batch becomes. [IHI0070] 3.9.1.
 *
 *   slot -> ATC hit, and the stream may use translated addresses  -> done, nobody is asked
 *        -> ATC hit, and that is not known, or ATS is split       -> Translated transaction ==> pIOMMU
 *        -> miss                                                  -> Translation Request   ==> pIOMMU
 *           its answer fills the ATC, and the slot goes on as a hit
 *        -> privileged, an instruction, a foreign StreamID        -> ordinary request      ==> pIOMMU
 *
 * The pIOMMU moves atcGen and then takes entries out; the device looks at atcGen after it put one in, and takes its
 * own out again when it moved since the batch began. Both orders are made by sequentially consistent accesses, so
 * one of the two sees the other. What was used of an entry meanwhile ends with the epoch.
 */
import {
  ATC_BYTES,
  ATC_ENTRIES,
  ATC_ENTRY_ADDRESS,
  ATC_ENTRY_FILL_SEQ,
  ATC_ENTRY_IPA_PAGE,
  ATC_ENTRY_SSID,
  ATC_ENTRY_WORD,
  NO_SSID,
  PORT_ATC,
  PORT_ATC_GEN,
  PORT_ATC_GEN_SEEN,
  PORT_ATS,
  PORT_ATS_CONTROL,
  PORT_ATS_SEEN,
  XLAT_BYTES,
  XLAT_FILL_SEQ,
  XLAT_FLAG_WRITE,
  XLAT_FLAGS,
  XLAT_FROM_ATC,
  XLAT_IOVA,
  XLAT_IPA,
  XLAT_PA,
  XLAT_SID,
  XLAT_SOURCE,
  XLAT_SSID,
  XLAT_STATUS,
} from './layout';
import { OP_LOAD, OP_RMW, OP_STORE, schedulePoint, schedulePointIfValid } from './machine';
import { BUG_ATC_UNGUARDED, hasBug } from './zoo';

const VALID: u64 = 1;
const READ: u32 = 2;
const SIZE_SHIFT: u64 = 6;
const PAGE_MASK: u64 = ~0xfff;

/** Whether the device uses its ATC now; empties it when ATS was switched since. Inside the epoch. */
export function atsReady(port: usize): bool {
  if (load<u32>(port, PORT_ATS) == 0) return false;
  schedulePoint(OP_LOAD, port + PORT_ATS_CONTROL);
  const control = atomic.load<u32>(port, PORT_ATS_CONTROL);
  schedulePoint(OP_LOAD, port + PORT_ATC_GEN);
  // Before the batch asks for anything: what is then answered may be kept only while this does not move.
  store<u32>(port, atomic.load<u32>(port, PORT_ATC_GEN), PORT_ATC_GEN_SEEN);
  if (control != load<u32>(port, PORT_ATS_SEEN)) {
    schedulePoint(OP_STORE, port + PORT_ATC);
    memory.fill(port + PORT_ATC, 0, ATC_ENTRIES * ATC_BYTES);
    store<u32>(port, control, PORT_ATS_SEEN);
  }
  return (control & 1) != 0;
}

/** What a SubstreamID adds to the hash of an entry. */
function spreadOf(ssid: u32): u32 {
  return ((ssid + 1) * 0x9e37_79b1) >>> 24;
}

function slotOf(atc: usize, page: u64, spread: u32): usize {
  return atc + ((u32(page) ^ u32(page >> 8) ^ spread) % ATC_ENTRIES) * ATC_BYTES;
}

/**
 * Slots that hit, one after the other; it leaves at the first that is anything else.
 * @param sid, ssid  whose plain reads and writes are looked for
 * @returns how many
 */
export function runAtc(first: usize, n: u32, atc: usize, sid: u32, ssid: u32): u32 {
  const end = first + n * XLAT_BYTES;
  const spread = spreadOf(ssid);
  let xlat = first;
  for (; xlat < end; xlat += XLAT_BYTES) {
    const flags = load<u32>(xlat, XLAT_FLAGS);
    if (
      ((load<u32>(xlat, XLAT_SID) ^ sid) |
        (load<u32>(xlat, XLAT_SSID) ^ ssid) |
        (flags & ~XLAT_FLAG_WRITE)) !=
      0
    )
      break;
    const iova = load<u64>(xlat, XLAT_IOVA);
    const entry = slotOf(atc, iova >> 12, spread);
    schedulePoint(OP_LOAD, entry + ATC_ENTRY_WORD);
    const known = load<u64>(entry, ATC_ENTRY_WORD);
    if ((known ^ iova) >> 12 != 0) break;
    if ((u32(known) & (READ << flags)) == 0 || load<u32>(entry, ATC_ENTRY_SSID) != ssid) break;
    const low = iova & 0xfff;
    const ipaPage = u64(load<u32>(entry, ATC_ENTRY_IPA_PAGE));
    store<u64>(xlat, load<u64>(entry, ATC_ENTRY_ADDRESS) | low, XLAT_PA);
    store<u64>(xlat, select<u64>(0, (ipaPage << 12) | low, ipaPage == 0), XLAT_IPA);
    store<u64>(xlat, ((known >> SIZE_SHIFT) & 63) << 32, XLAT_STATUS);
    store<u64>(xlat, u64(load<u32>(entry, ATC_ENTRY_FILL_SEQ)), XLAT_FILL_SEQ);
    store<u64>(xlat, u64(XLAT_FROM_ATC), XLAT_SOURCE);
  }
  return u32(xlat - first) / XLAT_BYTES;
}

/** The entry that answers one access, or 0. */
export function atcFind(port: usize, ssid: u32, iova: u64, need: u32): usize {
  const entry = slotOf(port + PORT_ATC, iova >> 12, spreadOf(ssid));
  schedulePoint(OP_LOAD, entry + ATC_ENTRY_WORD);
  const known = load<u64>(entry, ATC_ENTRY_WORD);
  if ((known ^ iova) >> 12 != 0 || (u32(known) & need) == 0 || load<u32>(entry, ATC_ENTRY_SSID) != ssid)
    return 0;
  return entry;
}

/** Fills a slot from an entry. @param low  offset in the page */
export function atcAnswer(entry: usize, xlat: usize, low: u64): void {
  const ipaPage = u64(load<u32>(entry, ATC_ENTRY_IPA_PAGE));
  store<u64>(xlat, load<u64>(entry, ATC_ENTRY_ADDRESS) | low, XLAT_PA);
  store<u64>(xlat, select<u64>(0, (ipaPage << 12) | low, ipaPage == 0), XLAT_IPA);
  schedulePoint(OP_LOAD, entry + ATC_ENTRY_WORD);
  store<u64>(xlat, ((load<u64>(entry, ATC_ENTRY_WORD) >> SIZE_SHIFT) & 63) << 32, XLAT_STATUS);
  store<u64>(xlat, u64(load<u32>(entry, ATC_ENTRY_FILL_SEQ)), XLAT_FILL_SEQ);
  store<u64>(xlat, u64(XLAT_FROM_ATC), XLAT_SOURCE);
}

/** Keeps what a Translation Request was answered, unless an invalidation came since the batch began. */
export function atcInsert(
  port: usize,
  ssid: u32,
  iova: u64,
  address: u64,
  ipa: u64,
  sizeLg2: u32,
  permissions: u32,
  fillSeq: u32,
): void {
  const gen = load<u32>(port, PORT_ATC_GEN_SEEN);
  schedulePoint(OP_LOAD, port + PORT_ATC_GEN);
  if (atomic.load<u32>(port, PORT_ATC_GEN) != gen) return;
  const entry = slotOf(port + PORT_ATC, iova >> 12, spreadOf(ssid));
  schedulePoint(OP_STORE, entry + ATC_ENTRY_WORD);
  store<u64>(entry, 0, ATC_ENTRY_WORD);
  schedulePoint(OP_STORE, entry + ATC_ENTRY_ADDRESS);
  store<u64>(entry, address & PAGE_MASK, ATC_ENTRY_ADDRESS);
  store<u32>(entry, fillSeq, ATC_ENTRY_FILL_SEQ);
  store<u32>(entry, ssid, ATC_ENTRY_SSID);
  store<u32>(entry, u32(ipa >> 12), ATC_ENTRY_IPA_PAGE);
  const word = (iova & PAGE_MASK) | (u64(sizeLg2 & 63) << SIZE_SHIFT) | u64(permissions) | VALID;
  schedulePoint(OP_STORE, entry + ATC_ENTRY_WORD);
  atomic.store<u64>(entry, word, ATC_ENTRY_WORD);
  if (hasBug(BUG_ATC_UNGUARDED)) return;
  schedulePoint(OP_LOAD, port + PORT_ATC_GEN);
  if (atomic.load<u32>(port, PORT_ATC_GEN) != gen) {
    schedulePoint(OP_STORE, entry + ATC_ENTRY_WORD);
    atomic.store<u64>(entry, 0, ATC_ENTRY_WORD);
  }
}

// The entry that atcFindPa and atcFindPage found, for a report.
let foundWord: u64 = 0;
let foundAddress: u64 = 0;
let foundFillSeq: u32 = 0;

/** Whether the next batch will begin with this ATC as it is: ATS is on, and was not switched since the last one. */
function inUse(port: usize): bool {
  schedulePoint(OP_LOAD, port + PORT_ATS_CONTROL);
  const control = atomic.load<u32>(port, PORT_ATS_CONTROL);
  schedulePoint(OP_LOAD, port + PORT_ATS_SEEN);
  return load<u32>(port, PORT_ATS) != 0 && (control & 1) != 0 && load<u32>(port, PORT_ATS_SEEN) == control;
}

/** Reads an entry that its device may be replacing. @returns whether there is one */
function readEntry(entry: usize): bool {
  schedulePointIfValid(entry + ATC_ENTRY_WORD);
  const word = atomic.load<u64>(entry, ATC_ENTRY_WORD);
  if ((word & VALID) == 0) return false;
  foundWord = word;
  schedulePoint(OP_LOAD, entry + ATC_ENTRY_ADDRESS);
  foundAddress = atomic.load<u64>(entry, ATC_ENTRY_ADDRESS);
  foundFillSeq = atomic.load<u32>(entry, ATC_ENTRY_FILL_SEQ);
  schedulePoint(OP_LOAD, entry + ATC_ENTRY_WORD);
  return atomic.load<u64>(entry, ATC_ENTRY_WORD) == word;
}

/**
 * Looks for an entry that leads to one of these frames; any thread.
 * @param from  entry to begin with
 * @returns its index, or -1 when there is none, or the device does not use its ATC
 */
export function atcFindPa(port: usize, firstPfn: f64, pages: f64, from: u32): i32 {
  if (!(pages > 0) || !inUse(port)) return -1;
  const first = u64(firstPfn);
  const last = first + u64(pages) - 1;
  schedulePoint(OP_LOAD, port + PORT_ATC);
  for (let i = from; i < ATC_ENTRIES; i++) {
    if (!readEntry(port + PORT_ATC + i * ATC_BYTES)) continue;
    const pfn = foundAddress >> 12;
    if (pfn >= first && pfn <= last) return i32(i);
  }
  return -1;
}

/** The same for an entry that translates one of these pages. */
export function atcFindPage(port: usize, firstPage: f64, pages: f64, from: u32): i32 {
  if (!(pages > 0) || !inUse(port)) return -1;
  const first = u64(firstPage);
  const last = first + u64(pages) - 1;
  schedulePoint(OP_LOAD, port + PORT_ATC);
  for (let i = from; i < ATC_ENTRIES; i++) {
    if (!readEntry(port + PORT_ATC + i * ATC_BYTES)) continue;
    const page = foundWord >> 12;
    if (page >= first && page <= last) return i32(i);
  }
  return -1;
}

export function atcFoundPage(): f64 {
  return f64(foundWord >> 12);
}
export function atcFoundPfn(): f64 {
  return f64(foundAddress >> 12);
}
export function atcFoundSizeLg2(): u32 {
  return u32((foundWord >> SIZE_SHIFT) & 63);
}
export function atcFoundFillSeq(): u32 {
  return foundFillSeq;
}

/**
 * Takes out what overlaps the range; the pIOMMU's side. The device's memory may hold anything: nothing that is
 * read decides where is written.
 * @param ssid  whose entries, or NO_SSID for all
 * @returns how many
 */
export function atcInvalidate(port: usize, ssid: u32, firstPage: f64, pages: f64): i32 {
  schedulePoint(OP_RMW, port + PORT_ATC_GEN);
  atomic.add<u32>(port, 1, PORT_ATC_GEN);
  if (!(pages > 0)) return 0;
  const first = u64(firstPage);
  const last = first + u64(pages) - 1;
  let removed = 0;
  schedulePoint(OP_LOAD, port + PORT_ATC);
  for (let entry = port + PORT_ATC, end = entry + ATC_ENTRIES * ATC_BYTES; entry < end; entry += ATC_BYTES) {
    schedulePointIfValid(entry + ATC_ENTRY_WORD);
    const word = atomic.load<u64>(entry, ATC_ENTRY_WORD);
    if ((word & VALID) == 0) continue;
    if (ssid != NO_SSID) schedulePoint(OP_LOAD, entry + ATC_ENTRY_SSID);
    if (ssid != NO_SSID && load<u32>(entry, ATC_ENTRY_SSID) != ssid) continue;
    const lg2 = (word >> SIZE_SHIFT) & 63;
    const span: u64 = lg2 <= 12 ? 0 : ((<u64>1) << (lg2 - 12)) - 1;
    const start = (word >> 12) & ~span;
    if (start > last || (start | span) < first) continue;
    schedulePoint(OP_STORE, entry + ATC_ENTRY_WORD);
    atomic.store<u64>(entry, 0, ATC_ENTRY_WORD);
    removed++;
  }
  return removed;
}
