/*
 * The yardstick's view of a machine: the same bytes at the same offsets as in the runtime's linear memory, of
 * which it loads an image. Offsets come from layout.h, which is written out from the layouts themselves each
 * time this is compiled, so the two cannot drift apart.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdint.h>
#include <string.h>

#include "layout.h"

typedef uint32_t u32;
typedef uint64_t u64;
typedef uint8_t u8;
typedef uint32_t __attribute__((may_alias)) word32;
typedef uint64_t __attribute__((may_alias)) word64;

/* Linear memory, and where RAM is in it. */
extern u8 *memory;
extern u64 ram_linear, ram_base, ram_bytes;

static inline u32 get32(const u8 *at, u32 offset) { return *(const word32 *)(at + offset); }
static inline u64 get64(const u8 *at, u32 offset) { return *(const word64 *)(at + offset); }
static inline void put32(u8 *at, u32 offset, u32 value) { *(word32 *)(at + offset) = value; }
static inline void put64(u8 *at, u32 offset, u64 value) { *(word64 *)(at + offset) = value; }

/* What the compiled kernel does with atomic loads and stores: sequentially consistent. */
static inline u32 load32(const u8 *at, u32 offset) {
  return __atomic_load_n((const word32 *)(at + offset), __ATOMIC_SEQ_CST);
}
static inline u64 load64(const u8 *at, u32 offset) {
  return __atomic_load_n((const word64 *)(at + offset), __ATOMIC_SEQ_CST);
}
static inline void store32(u8 *at, u32 offset, u32 value) {
  __atomic_store_n((word32 *)(at + offset), value, __ATOMIC_SEQ_CST);
}
static inline void store64(u8 *at, u32 offset, u64 value) {
  __atomic_store_n((word64 *)(at + offset), value, __ATOMIC_SEQ_CST);
}

/* The eight bytes at a physical address, or NULL when they are not RAM. */
static inline u8 *ram_word(u64 pa) {
  u64 offset = pa - ram_base;
  return offset <= ram_bytes - 8 ? memory + ram_linear + offset : NULL;
}

/* hits.c: a batch that hits, from entering the epoch to leaving it. Returns how many slots hit. */
u32 dma_begin(u8 *port, u32 slots);
void dma_end(u8 *port);

/* iotlb.c */
struct hit {
  u64 word, pa;
  u32 fill_seq, ipa_page;
};
u32 spread_of(u32 tag, u32 size_bit);
int iotlb_find(u8 *unit, u8 *iotlb, u32 tag, u64 stages, u64 page, struct hit *hit);
void iotlb_fill(u8 *unit, u8 *iotlb, u32 tag, u64 page, u64 pa, u32 size_lg2, u64 bits, u32 ipa_page,
                u32 fill_seq);

/* walk.c: answers a request from the IOTLB, or walks and fills. Returns 0 or the fault. */
u32 translate(u8 *unit, u8 *context, u8 *iotlb, u8 *xlat);

/* pagetable.c: both return pages done. Frames of tables come from, and go back to, the list given to frames_init. */
void frames_init(u64 first_pa, u32 count);
u64 pt_map(u8 *table, u64 page, u64 pfn, u64 pages, u32 prot);
u64 pt_unmap(u8 *table, u64 page, u64 pages);

#endif
