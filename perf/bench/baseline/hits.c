/*
 * A batch that hits, as hw/kernel/assembly/dma.ts and hits.ts do it: enter the epoch, read the stream's context
 * under its sequence, answer each slot from the micro-TLB or from one set of the IOTLB, leave. What is not a
 * hit ends the batch: this is a yardstick, and its caller knows that all of them are.
 */
#include "memory.h"

enum { READ = 2, WRITE = 4 };
static const u64 PAGE_MASK = ~(u64)0xfff;
static const u64 KEY_MASK = ~(u64)14;
/* The tag, and the low half of a page word but for permissions and the global bit. */
static const u64 GUESS_MASK = 0xfffffff1ffffffffull;
#define SET_BYTES (IOTLB_WAYS * IOTLB_ENTRY_BYTES)

static u8 *micro_of(u8 *micros, u64 page) {
  return micros + (((u32)page ^ (u32)(page >> 9)) % MICRO_ENTRIES) * MICRO_BYTES;
}

static u64 differs(const u8 *entry, u64 guess) { return (get64(entry, IOTLB_ENTRY_TAG) ^ guess) & GUESS_MASK; }

static u32 run_hits(u8 *port, u32 n, u8 *micros, u8 *iotlb, u32 sid, u32 ssid, u32 tag, u64 stages,
                    u64 ipa_mask) {
  u8 *sets = iotlb + IOTLB_ENTRIES;
  u32 mask = get32(iotlb, IOTLB_SETS) - 1;
  const u32 size_lg2 = 12;
  const u64 in_page = 0xfff;
  u32 spread = spread_of(tag, 0);
  u64 key_low = ((u64)size_lg2 << 6) | stages | 1;
  u32 from_micro = 0, hits = 0;
  for (u8 *xlat = port + PORT_BATCH; hits < n; xlat += XLAT_BYTES, hits++) {
    u32 flags = get32(xlat, XLAT_FLAGS);
    /* Only plain reads and writes are cached. */
    if (((get32(xlat, XLAT_SID) ^ sid) | (get32(xlat, XLAT_SSID) ^ ssid) | (flags & ~XLAT_FLAG_WRITE)) != 0) break;
    u64 iova = get64(xlat, XLAT_IOVA);
    u32 need = (u32)READ << flags;
    u8 *micro = micro_of(micros, iova >> 12);
    u64 known = get64(micro, 0);
    if (((known ^ iova) >> 12) == 0 && ((u32)known & need) != 0) {
      u64 low = iova & 0xfff;
      u64 tail = get64(micro, 16);
      put64(xlat, XLAT_PA, get64(micro, 8) | low);
      put64(xlat, XLAT_IPA, (((tail >> 20) & PAGE_MASK) | low) & ipa_mask);
      put64(xlat, XLAT_STATUS, ((known >> 6) & 63) << 32);
      put64(xlat, XLAT_FILL_SEQ, tail & 0xffffffff);
      put64(xlat, XLAT_SOURCE, XLAT_FROM_MICRO);
      from_micro++;
      continue;
    }
    u64 key = (iova & ~in_page) | key_low;
    u64 guess = (key << 32) | tag;
    u64 page = iova >> size_lg2;
    u8 *set = sets + (((u32)page ^ (u32)(page >> 10) ^ (u32)(page >> 20) ^ spread) & mask) * SET_BYTES;
    u8 *entry = NULL;
    for (u32 way = 0; way < IOTLB_WAYS; way++) {
      u8 *candidate = set + way * IOTLB_ENTRY_BYTES;
      entry = differs(candidate, guess) == 0 ? candidate : entry;
    }
    if (entry == NULL) break;
    u32 seq = load32(entry, IOTLB_ENTRY_SEQ);
    u64 word = load64(entry, IOTLB_ENTRY_PAGE);
    u64 frame = load64(entry, IOTLB_ENTRY_PA);
    u64 tail = load64(entry, IOTLB_ENTRY_FILL_SEQ);
    u32 owner = load32(entry, IOTLB_ENTRY_TAG);
    u32 again = load32(entry, IOTLB_ENTRY_SEQ);
    if (((u64)((again ^ seq) | (seq & 1) | (owner ^ tag)) | ((word ^ key) & KEY_MASK)) != 0) break;
    if (((u32)word & need) == 0) break;
    u64 below = iova & in_page;
    u64 pa = frame | below;
    u64 ipa = (((tail >> 20) & PAGE_MASK) | below) & ipa_mask;
    put64(xlat, XLAT_PA, pa);
    put64(xlat, XLAT_IPA, ipa);
    put64(xlat, XLAT_STATUS, (u64)size_lg2 << 32);
    put64(xlat, XLAT_FILL_SEQ, tail & 0xffffffff);
    put64(xlat, XLAT_SOURCE, XLAT_FROM_IOTLB);
    put64(micro, 0, (iova & PAGE_MASK) | (word & 0xfff));
    put64(micro, 8, pa & PAGE_MASK);
    put64(micro, 16, (tail & 0xffffffff) | ((ipa >> 12) << 32));
  }
  put64(port, PORT_HITS_MICRO, get64(port, PORT_HITS_MICRO) + from_micro);
  put64(port, PORT_HITS_IOTLB, get64(port, PORT_HITS_IOTLB) + (hits - from_micro));
  return hits;
}

u32 dma_begin(u8 *port, u32 slots) {
  u8 *unit = memory + get32(port, PORT_UNIT);
  u8 *iotlb = memory + get32(port, PORT_IOTLB);
  u8 *micros = port + PORT_MICRO;
  u32 sid = get32(port, PORT_SID);
  u32 gen;
  do {
    gen = load32(unit, UNIT_GEN);
    store32(port, PORT_ACK, gen);
  } while (load32(unit, UNIT_GEN) != gen);
  if (get32(port, PORT_LAST_GEN) != gen) {
    memset(micros, 0, MICRO_ENTRIES * MICRO_BYTES);
    put32(port, PORT_LAST_GEN, gen);
  }
  /* Slot of a stream without SubstreamID: contextIndex of hw/iotlb/unit-layout.ts. */
  u8 *context = memory + get32(port, PORT_CONTEXTS) + (sid % CONTEXT_COUNT) * CONTEXT_BYTES;
  u32 seq = load32(context, CONTEXT_SEQ);
  int usable = load32(context, CONTEXT_SID) == sid && load32(context, CONTEXT_VALID) != 0 && (seq & 1) == 0;
  u32 kind = load32(context, CONTEXT_KIND);
  u32 tag = load32(context, CONTEXT_TAG);
  if (!usable || load32(context, CONTEXT_SEQ) != seq) return 0;
  u64 stages = (kind != CONTEXT_S2 ? 16 : 0) | (kind != CONTEXT_S1 ? 32 : 0);
  u64 ipa_mask = kind == CONTEXT_S1 ? 0 : ~(u64)0;
  put32(port, PORT_BATCH_SEQ, (get32(port, PORT_BATCH_SEQ) + 1) & ((1u << 26) - 1));
  return run_hits(port, slots, micros, iotlb, sid, NO_SSID, tag, stages, ipa_mask);
}

void dma_end(u8 *port) {
  u8 *unit = memory + get32(port, PORT_UNIT);
  store32(port, PORT_ACK, 0);
  if (load32(unit, UNIT_SYNC_WAITING) != 0)
    __atomic_fetch_add((word32 *)(unit + UNIT_DOORBELL), 1, __ATOMIC_SEQ_CST);
}
