/**
 * The hottest loop: slots of a batch that hit, one after the other, in the micro-TLB or in the IOTLB.
 *
 *   slot -> ours? -> micro-TLB -> pick a way of one set, in one guessed size -> checked reading -> answer
 *
 * It leaves at the first slot that is anything else, and dmaBegin takes that one the long way. What does not
 * change within a batch comes in as parameters, and the function is exported so that it stays one: inlined,
 * the compilers move those computations back into the loop and run out of registers, at twice the cost.
 */
import { KEY_MASK, SET_BYTES, setIndex } from './iotlb';
import {
  IOTLB_ENTRY_BYTES,
  IOTLB_ENTRY_FILL_SEQ,
  IOTLB_ENTRY_PA,
  IOTLB_ENTRY_PAGE,
  IOTLB_ENTRY_SEQ,
  IOTLB_ENTRY_TAG,
  MICRO_BYTES,
  MICRO_ENTRIES,
  XLAT_BYTES,
  XLAT_FILL_SEQ,
  XLAT_FLAG_WRITE,
  XLAT_FLAGS,
  XLAT_FROM_IOTLB,
  XLAT_FROM_MICRO,
  XLAT_IOVA,
  XLAT_IPA,
  XLAT_PA,
  XLAT_SID,
  XLAT_SOURCE,
  XLAT_SSID,
  XLAT_STATUS,
} from './layout';
import { OP_LOAD, schedulePoint } from './machine';
import { BUG_IOTLB_UNGUARDED, hasBug } from './zoo';

export const MICRO_WORD: usize = 0;
export const MICRO_PA: usize = 8;
/** fillSeq, and above it the IPA page: as in an IOTLB entry. */
export const MICRO_TAIL: usize = 16;
/** What reading needs in a page word; writing needs the next bit. */
const READ: u32 = 2;
const PAGE_MASK: u64 = ~0xfff;
/** KEY_MASK for the 64 bits from an entry's tag on: the tag, and the low half of the page word. */
const GUESS_MASK: u64 = 0xffff_fff1_ffff_ffff;

/** What runHits added up since it was last set to 0. */
export let microHits: u32 = 0;
export let iotlbHits: u32 = 0;

export function clearHits(): void {
  microHits = 0;
  iotlbHits = 0;
}

/** Micro-TLB slot of a page. @param table  its first slot */
export function microOf(table: usize, page: u64): usize {
  return table + ((u32(page) ^ u32(page >> 9)) % MICRO_ENTRIES) * MICRO_BYTES;
}

/** @param bits  the low 12 bits of the page word */
export function remember(micro: usize, iova: u64, bits: u64, pa: u64, ipa: u64, fillSeq: u64): void {
  store<u64>(micro, (iova & PAGE_MASK) | bits, MICRO_WORD);
  store<u64>(micro, pa & PAGE_MASK, MICRO_PA);
  store<u64>(micro, fillSeq | ((ipa >> 12) << 32), MICRO_TAIL);
}

/** One entry differs from what is looked for, in its tag or in what the low half of its page word says. */
function differs(way: usize, guess: u64): u64 {
  return (load<u64>(way, IOTLB_ENTRY_TAG) ^ guess) & GUESS_MASK;
}

/**
 * @param first    the slot to begin with
 * @param n        slots
 * @param micros   first slot of the micro-TLB
 * @param sets     first set of the IOTLB
 * @param mask     number of sets, less one
 * @param sid, ssid  of the transactions that are ours
 * @param tag      of their context
 * @param keyLow   size, stages and valid bit, as in a page word
 * @param spread   spreadOf tag and size
 * @param sizeLg2  log2 of the size that is looked for
 * @param inPage   that size, less one
 * @param ipaMask  all ones, or 0 where there is no IPA
 * @returns how many slots hit
 */
export function runHits(
  first: usize,
  n: u32,
  micros: usize,
  sets: usize,
  mask: u32,
  sid: u32,
  ssid: u32,
  tag: u32,
  keyLow: u64,
  spread: u32,
  sizeLg2: u64,
  inPage: u64,
  ipaMask: u64,
): u32 {
  const end = first + n * XLAT_BYTES;
  let xlat = first;
  let fromMicro: u32 = 0;
  for (; xlat < end; xlat += XLAT_BYTES) {
    const flags = load<u32>(xlat, XLAT_FLAGS);
    // Only plain reads and writes are cached.
    if (
      ((load<u32>(xlat, XLAT_SID) ^ sid) |
        (load<u32>(xlat, XLAT_SSID) ^ ssid) |
        (flags & ~XLAT_FLAG_WRITE)) !=
      0
    )
      break;
    const iova = load<u64>(xlat, XLAT_IOVA);
    const need = READ << flags;
    const micro = microOf(micros, iova >> 12);
    const known = load<u64>(micro, MICRO_WORD);
    // Two branches: both are well predicted, and joining the conditions costs more.
    if ((known ^ iova) >> 12 == 0) {
      if ((u32(known) & need) != 0) {
        const low = iova & 0xfff;
        const tail = load<u64>(micro, MICRO_TAIL);
        store<u64>(xlat, load<u64>(micro, MICRO_PA) | low, XLAT_PA);
        store<u64>(xlat, (((tail >> 20) & PAGE_MASK) | low) & ipaMask, XLAT_IPA);
        store<u64>(xlat, ((known >> 6) & 63) << 32, XLAT_STATUS);
        store<u64>(xlat, tail & 0xffff_ffff, XLAT_FILL_SEQ);
        store<u64>(xlat, u64(XLAT_FROM_MICRO), XLAT_SOURCE);
        fromMicro++;
        continue;
      }
    }
    const key = (iova & ~inPage) | keyLow;
    const guess = (key << 32) | u64(tag);
    const set = sets + setIndex(mask, iova >> sizeLg2, spread) * SET_BYTES;
    // The way is picked without branches on plain loads of most of the key, which only guess.
    let entry: usize = 0;
    schedulePoint(OP_LOAD, set);
    entry = select<usize>(set, entry, differs(set, guess) == 0);
    entry = select<usize>(set + IOTLB_ENTRY_BYTES, entry, differs(set + IOTLB_ENTRY_BYTES, guess) == 0);
    entry = select<usize>(
      set + 2 * IOTLB_ENTRY_BYTES,
      entry,
      differs(set + 2 * IOTLB_ENTRY_BYTES, guess) == 0,
    );
    entry = select<usize>(
      set + 3 * IOTLB_ENTRY_BYTES,
      entry,
      differs(set + 3 * IOTLB_ENTRY_BYTES, guess) == 0,
    );
    if (entry == 0) break;
    // As iotlb.ts readEntry: what is used was read by atomic loads, between two equal and even sequences.
    schedulePoint(OP_LOAD, entry + IOTLB_ENTRY_SEQ);
    const seq = atomic.load<u32>(entry, IOTLB_ENTRY_SEQ);
    schedulePoint(OP_LOAD, entry + IOTLB_ENTRY_PAGE);
    const word = atomic.load<u64>(entry, IOTLB_ENTRY_PAGE);
    schedulePoint(OP_LOAD, entry + IOTLB_ENTRY_PA);
    const page = atomic.load<u64>(entry, IOTLB_ENTRY_PA);
    const tail = atomic.load<u64>(entry, IOTLB_ENTRY_FILL_SEQ);
    const owner = atomic.load<u32>(entry, IOTLB_ENTRY_TAG);
    schedulePoint(OP_LOAD, entry + IOTLB_ENTRY_SEQ);
    let again = atomic.load<u32>(entry, IOTLB_ENTRY_SEQ);
    if (hasBug(BUG_IOTLB_UNGUARDED)) again = seq;
    if ((u64((again ^ seq) | (seq & 1) | (owner ^ tag)) | ((word ^ key) & KEY_MASK)) != 0) break;
    if ((u32(word) & need) == 0) break;
    const below = iova & inPage;
    const pa = page | below;
    const ipa = (((tail >> 20) & PAGE_MASK) | below) & ipaMask;
    const fillSeq = tail & 0xffff_ffff;
    store<u64>(xlat, pa, XLAT_PA);
    store<u64>(xlat, ipa, XLAT_IPA);
    store<u64>(xlat, sizeLg2 << 32, XLAT_STATUS);
    store<u64>(xlat, fillSeq, XLAT_FILL_SEQ);
    store<u64>(xlat, u64(XLAT_FROM_IOTLB), XLAT_SOURCE);
    remember(micro, iova, word & 0xfff, pa, ipa, fillSeq);
  }
  const hits = u32(xlat - first) / XLAT_BYTES;
  microHits += fromMicro;
  iotlbHits += hits - fromMicro;
  return hits;
}
