/*
 * The page-table editor in C: map and unmap with the 4 KiB granule over a descriptor of
 * hw/pagetable/page-table-layout.ts, blocks where they fit, tables unlinked when the range covers them. Frames
 * for tables come from a list instead of the pool, and go straight back to it.
 */
#include <stdlib.h>

#include "memory.h"

static const u64 ADDRESS = 0x0000fffffffff000ull;
static u64 *frames;
static u32 frame_count;

void frames_init(u64 first_pa, u32 count) {
  frames = realloc(frames, count * sizeof *frames);
  frame_count = frames == NULL ? 0 : count;
  for (u32 i = 0; i < frame_count; i++) frames[i] = first_pa + 4096ull * (count - 1 - i);
}

struct table {
  u8 *base;
  u64 window_base, window_bytes;
  u32 window_linear, stage, start_level, input_bits;
};

static struct table open_table(u8 *at) {
  struct table t = {NULL,
                    get64(at, PAGE_TABLE_WINDOW_BASE),
                    get64(at, PAGE_TABLE_WINDOW_BYTES),
                    get32(at, PAGE_TABLE_WINDOW_LINEAR),
                    get32(at, PAGE_TABLE_STAGE),
                    get32(at, PAGE_TABLE_START_LEVEL),
                    get32(at, PAGE_TABLE_INPUT_BITS)};
  return t;
}

static u8 *table_at(const struct table *t, u64 address, u64 bytes) {
  u64 offset = address - t->window_base;
  if (offset >= t->window_bytes || t->window_bytes - offset < bytes) return NULL;
  return memory + t->window_linear + offset;
}

static u64 root_entries(const struct table *t) { return 1ull << (t->input_bits - 39 + 9 * t->start_level); }

static u64 leaf_bits(u32 stage, u32 prot) {
  if (stage == 2) return (0xf << 2) | (3 << 8) | (1 << 10) | ((u64)(prot & 3) << 6);
  return ((prot & 3) != 0 ? 1 << 6 : 0) | ((prot & 2) != 0 ? 0 : 1 << 7) | (3 << 8) | (1 << 10) | (1 << 11);
}

u64 pt_map(u8 *at, u64 page, u64 pfn, u64 pages, u32 prot) {
  struct table t = open_table(at);
  u64 leaf = leaf_bits(t.stage, prot);
  u64 left = pages;
  u8 *root = table_at(&t, get64(at, PAGE_TABLE_ROOT), root_entries(&t) * 8);
  if (root == NULL) return 0;
  while (left > 0) {
    u32 level = t.start_level, bits = 27 - 9 * level;
    u8 *table = root;
    u64 index = page >> bits, entries = root_entries(&t);
    for (;;) {
      u8 *slot = table + index * 8;
      u64 descriptor = load64(slot, 0), span = 1ull << bits;
      int leaf_fits = level == 3 || (level != 0 && left >= span && ((page | pfn) & (span - 1)) == 0);
      if (leaf_fits && (level == 3 || (descriptor & 3) != 3)) {
        u64 kind = level == 3 ? 3 : 1;
        u64 n = left >> bits < entries - index ? left >> bits : entries - index;
        u64 i = 0;
        for (; i < n; i++) {
          if ((get64(slot, (u32)(i * 8)) & 1) != 0) break;
          put64(slot, (u32)(i * 8), ((pfn + (i << bits)) << 12) | leaf | kind);
        }
        page += i << bits;
        pfn += i << bits;
        left -= i << bits;
        if (i < n && (i == 0 || level == 3)) return pages - left;
        break;
      }
      u64 address = descriptor & ADDRESS;
      if ((descriptor & 1) == 0) {
        if (frame_count == 0) return pages - left;
        address = frames[--frame_count];
        u8 *fresh = table_at(&t, address, 4096);
        if (fresh == NULL) return pages - left;
        memset(fresh, 0, 4096);
        store64(slot, 0, address | 3);
      } else if ((descriptor & 3) != 3) {
        return pages - left;
      }
      table = table_at(&t, address, 4096);
      if (table == NULL) return pages - left;
      level++;
      bits -= 9;
      index = (page >> bits) & 511;
      entries = 512;
    }
  }
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return pages;
}

static u64 clear_table(const struct table *t, u8 *table, u32 level, u64 first, u64 last, u64 index_mask) {
  u32 bits = 27 - 9 * level;
  u64 span = 1ull << bits, done = 0;
  if (level == 3) {
    u8 *slot = table + (first & 511) * 8, *end = slot + (last - first + 1) * 8;
    for (; slot < end; slot += 8) {
      u64 descriptor = get64(slot, 0);
      done += descriptor & (descriptor >> 1) & 1;
      if (descriptor != 0) put64(slot, 0, 0);
    }
    return done;
  }
  for (u64 cursor = first; cursor <= last;) {
    u8 *slot = table + ((cursor >> bits) & index_mask) * 8;
    u64 entry_first = cursor & ~(span - 1), entry_last = entry_first + span - 1;
    u64 end = entry_last < last ? entry_last : last;
    u64 descriptor = load64(slot, 0);
    if ((descriptor & 1) != 0 && (descriptor & 3) == 1) {
      store64(slot, 0, 0);
      done += span;
    } else if ((descriptor & 1) != 0) {
      u8 *child = table_at(t, descriptor & ADDRESS, 4096);
      if (child == NULL) return done;
      done += clear_table(t, child, level + 1, cursor, end, 511);
      if (cursor == entry_first && end == entry_last) {
        store64(slot, 0, 0);
        frames[frame_count++] = descriptor & ADDRESS;
      }
    }
    cursor = end + 1;
  }
  return done;
}

u64 pt_unmap(u8 *at, u64 page, u64 pages) {
  struct table t = open_table(at);
  u8 *root = table_at(&t, get64(at, PAGE_TABLE_ROOT), root_entries(&t) * 8);
  if (root == NULL) return 0;
  u64 done = clear_table(&t, root, t.start_level, page, page + pages - 1, root_entries(&t) - 1);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return done;
}
