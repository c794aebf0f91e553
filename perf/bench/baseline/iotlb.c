/* The IOTLB as hw/kernel/assembly/iotlb.ts has it: four ways, sequence-checked readers, one writer. */
#include "memory.h"

enum { READ = 2, WRITE = 4, GLOBAL = 8, S1 = 16, S2 = 32 };
static const u64 KEY_MASK = ~(u64)(READ | WRITE | GLOBAL);
static const u64 VALID = 1;
#define SET_BYTES (IOTLB_WAYS * IOTLB_ENTRY_BYTES)

u32 spread_of(u32 tag, u32 size_bit) { return ((tag * 0x9e3779b1u) >> 16) ^ size_bit; }

static u8 *set_of(u8 *iotlb, u64 n, u32 size_bit, u32 tag) {
  u32 mask = get32(iotlb, IOTLB_SETS) - 1;
  u32 index = ((u32)n ^ (u32)(n >> 10) ^ (u32)(n >> 20) ^ spread_of(tag, size_bit)) & mask;
  return iotlb + IOTLB_ENTRIES + index * SET_BYTES;
}

static int matches(const u8 *entry, u32 tag, u64 key) {
  return ((u64)(get32(entry, IOTLB_ENTRY_TAG) ^ tag) |
          ((get64(entry, IOTLB_ENTRY_PAGE) ^ key) & KEY_MASK)) == 0;
}

int iotlb_find(u8 *unit, u8 *iotlb, u32 tag, u64 stages, u64 page, struct hit *hit) {
  u32 sizes = get32(unit, UNIT_LEAF_SIZES) & ~LEAF_SIZES_GLOBAL;
  while (sizes != 0) {
    u32 bit = (u32)__builtin_ctz(sizes);
    sizes &= sizes - 1;
    u64 n = page >> bit;
    u64 key = (n << (bit + 12)) | ((u64)(bit + 12) << 6) | stages | VALID;
    u8 *set = set_of(iotlb, n, bit, tag);
    u8 *entry = NULL;
    for (u32 way = 0; way < IOTLB_WAYS; way++) {
      u8 *candidate = set + way * IOTLB_ENTRY_BYTES;
      entry = matches(candidate, tag, key) ? candidate : entry;
    }
    if (entry == NULL) continue;
    u32 seq = load32(entry, IOTLB_ENTRY_SEQ);
    hit->word = load64(entry, IOTLB_ENTRY_PAGE);
    u32 owner = load32(entry, IOTLB_ENTRY_TAG);
    hit->pa = load64(entry, IOTLB_ENTRY_PA);
    hit->fill_seq = load32(entry, IOTLB_ENTRY_FILL_SEQ);
    hit->ipa_page = load32(entry, IOTLB_ENTRY_IPA_PAGE);
    if (load32(entry, IOTLB_ENTRY_SEQ) == seq && (seq & 1) == 0 && owner == tag &&
        ((hit->word ^ key) & KEY_MASK) == 0)
      return 1;
  }
  return 0;
}

void iotlb_fill(u8 *unit, u8 *iotlb, u32 tag, u64 page, u64 pa, u32 size_lg2, u64 bits, u32 ipa_page,
                u32 fill_seq) {
  u32 size_bit = size_lg2 - 12;
  u32 present = get32(unit, UNIT_LEAF_SIZES);
  u32 wanted = present | (1u << size_bit) | ((bits & GLOBAL) != 0 ? LEAF_SIZES_GLOBAL : 0);
  if (wanted != present) store32(unit, UNIT_LEAF_SIZES, wanted);
  u64 n = page >> size_bit;
  u64 key = (n << size_lg2) | ((u64)size_lg2 << 6) | (bits & (S1 | S2)) | VALID;
  u8 *set = set_of(iotlb, n, size_bit, tag);
  u8 *victim = NULL, *empty = NULL;
  for (u32 way = 0; way < IOTLB_WAYS; way++) {
    u8 *entry = set + way * IOTLB_ENTRY_BYTES;
    if (matches(entry, tag, key)) victim = entry;
    if ((get64(entry, IOTLB_ENTRY_PAGE) & VALID) == 0) empty = entry;
  }
  if (victim == NULL) victim = empty;
  if (victim == NULL) victim = set + (fill_seq % IOTLB_WAYS) * IOTLB_ENTRY_BYTES;
  u32 seq = __atomic_fetch_add((word32 *)(victim + IOTLB_ENTRY_SEQ), 1, __ATOMIC_SEQ_CST);
  put32(victim, IOTLB_ENTRY_TAG, tag);
  put64(victim, IOTLB_ENTRY_PAGE, key | (bits & (READ | WRITE | GLOBAL)));
  put64(victim, IOTLB_ENTRY_PA, (pa >> size_lg2) << size_lg2);
  put32(victim, IOTLB_ENTRY_FILL_SEQ, fill_seq);
  put32(victim, IOTLB_ENTRY_IPA_PAGE, (ipa_page >> size_bit) << size_bit);
  store32(victim, IOTLB_ENTRY_SEQ, seq + 2);
}
