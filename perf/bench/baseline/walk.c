/*
 * Walks of AArch64 tables with the 4 KiB granule, stage 1, stage 2 and nested, one request at a time: every
 * stage-1 table access of a nested walk goes through all of stage 2, with no cache of table pages. As
 * hw/kernel/assembly/walk.ts otherwise, the IOTLB looked at first and filled after.
 */
#include "memory.h"

enum { R = 2, W = 4, GLOBAL = 8 };
static const u64 ADDRESS = 0x0000fffffffff000ull;
static const u64 AF = 1 << 10, NG = 1 << 11, UNPRIVILEGED = 1 << 6, READ_ONLY = 1 << 7;
static const u64 TABLE_PRIVILEGED = 1ull << 61, TABLE_READ_ONLY = 1ull << 62;

struct leaf {
  u64 pa;
  u32 lg2, bits;
};

static int fits(u64 address, u32 bits) { return bits >= 64 || address >> bits == 0; }

static u64 align_root(u64 root, u32 input_bits, u32 level) {
  int lg2 = (int)input_bits - (int)(39 - 9 * level) + 3;
  if (lg2 <= 4) return root & ~(u64)0xf;
  return root & ~((1ull << (lg2 < 16 ? lg2 : 16)) - 1);
}

static u32 stage2(const u8 *context, u64 ipa, u32 need, struct leaf *out) {
  u32 input_bits = get32(context, CONTEXT_S2_INPUT_BITS);
  u32 output_bits = get32(context, CONTEXT_S2_OUTPUT_BITS);
  u32 level = get32(context, CONTEXT_S2_START_LEVEL);
  if (!fits(ipa, input_bits) || level > 3) return F_TRANSLATION;
  u32 shift = 39 - 9 * level;
  u64 slot = align_root(get64(context, CONTEXT_S2_ROOT), input_bits, level) + ((ipa >> shift) << 3);
  u64 descriptor;
  for (;;) {
    const u8 *word = ram_word(slot);
    if (word == NULL) return F_WALK_EABT;
    descriptor = load64(word, 0);
    if ((descriptor & 1) == 0) return F_TRANSLATION;
    if (level == 3) {
      if ((descriptor & 2) == 0) return F_TRANSLATION;
      break;
    }
    if ((descriptor & 2) == 0) {
      if (level == 0) return F_TRANSLATION;
      break;
    }
    u64 table = descriptor & ADDRESS;
    if (!fits(table, output_bits)) return F_ADDR_SIZE;
    level++;
    shift -= 9;
    slot = table + (((ipa >> shift) & 511) << 3);
  }
  u64 below = (1ull << shift) - 1;
  u64 base = descriptor & ADDRESS & ~below;
  if (!fits(base, output_bits)) return F_ADDR_SIZE;
  if ((descriptor & AF) == 0 && (get32(context, CONTEXT_FLAGS) & CONTEXT_FLAG_S2_AF_FAULT) != 0) return F_ACCESS;
  u32 permissions = ((u32)(descriptor >> 6) & 3) << 1;
  if ((need & ~permissions) != 0) return F_PERMISSION;
  out->pa = base | (ipa & below);
  out->lg2 = shift;
  out->bits = permissions;
  return 0;
}

static u32 stage1(const u8 *context, u64 iova, u32 need, int nested, struct leaf *out) {
  u32 input_bits = get32(context, CONTEXT_S1_INPUT_BITS);
  u32 output_bits = get32(context, CONTEXT_S1_OUTPUT_BITS);
  u32 level = get32(context, CONTEXT_S1_START_LEVEL);
  if (!fits(iova, input_bits) || level > 3) return F_TRANSLATION;
  u32 shift = 39 - 9 * level;
  u64 slot = align_root(get64(context, CONTEXT_S1_ROOT), input_bits, level) + ((iova >> shift) << 3);
  u64 hierarchical = 0, descriptor;
  for (;;) {
    u64 pa = slot;
    if (nested) {
      struct leaf table;
      u32 status = stage2(context, slot, R, &table);
      if (status != 0) return status;
      pa = table.pa;
    }
    const u8 *word = ram_word(pa);
    if (word == NULL) return F_WALK_EABT;
    descriptor = load64(word, 0);
    if ((descriptor & 1) == 0) return F_TRANSLATION;
    if (level == 3) {
      if ((descriptor & 2) == 0) return F_TRANSLATION;
      break;
    }
    if ((descriptor & 2) == 0) {
      if (level == 0) return F_TRANSLATION;
      break;
    }
    u64 table = descriptor & ADDRESS;
    if (!fits(table, output_bits)) return F_ADDR_SIZE;
    hierarchical |= descriptor;
    level++;
    shift -= 9;
    slot = table + (((iova >> shift) & 511) << 3);
  }
  u64 below = (1ull << shift) - 1;
  u64 base = descriptor & ADDRESS & ~below;
  if (!fits(base, output_bits)) return F_ADDR_SIZE;
  if ((descriptor & AF) == 0 && (get32(context, CONTEXT_FLAGS) & CONTEXT_FLAG_S1_AF_FAULT) != 0) return F_ACCESS;
  u32 permissions = 0;
  if ((descriptor & UNPRIVILEGED) != 0 && (hierarchical & TABLE_PRIVILEGED) == 0) {
    permissions = R;
    if ((descriptor & READ_ONLY) == 0 && (hierarchical & TABLE_READ_ONLY) == 0) permissions |= W;
  }
  if ((need & ~permissions) != 0) return F_PERMISSION;
  out->pa = base | (iova & below);
  out->lg2 = shift;
  out->bits = permissions | ((descriptor & NG) == 0 ? GLOBAL : 0);
  return 0;
}

static void succeed(u8 *xlat, u64 pa, u64 ipa, u32 lg2, u32 fill_seq, u32 source) {
  put64(xlat, XLAT_PA, pa);
  put64(xlat, XLAT_IPA, ipa);
  put64(xlat, XLAT_STATUS, (u64)lg2 << 32);
  put64(xlat, XLAT_FILL_SEQ, fill_seq);
  put64(xlat, XLAT_SOURCE, source);
}

u32 translate(u8 *unit, u8 *context, u8 *iotlb, u8 *xlat) {
  u64 iova = get64(xlat, XLAT_IOVA);
  u32 need = (get32(xlat, XLAT_FLAGS) & XLAT_FLAG_WRITE) != 0 ? W : R;
  u32 kind = get32(context, CONTEXT_KIND);
  u32 tag = get32(context, CONTEXT_TAG);
  u64 stages = (kind != CONTEXT_S2 ? 16 : 0) | (kind != CONTEXT_S1 ? 32 : 0);
  struct hit hit;
  if (iotlb_find(unit, iotlb, tag, stages, iova >> 12, &hit) && ((u32)hit.word & need) != 0) {
    u32 lg2 = (u32)(hit.word >> 6) & 63;
    u64 below = iova & ((1ull << lg2) - 1);
    u64 ipa = kind == CONTEXT_S1 ? 0 : ((u64)hit.ipa_page << 12) | below;
    succeed(xlat, hit.pa | below, ipa, lg2, hit.fill_seq, XLAT_FROM_IOTLB);
    return 0;
  }
  u32 fill_seq = get32(unit, UNIT_FILL_SEQ) + 1;
  put32(unit, UNIT_FILL_SEQ, fill_seq);
  struct leaf leaf = {0, 0, 0};
  u64 ipa = iova;
  u32 status;
  if (kind == CONTEXT_S2) {
    status = stage2(context, iova, need, &leaf);
  } else {
    status = stage1(context, iova, need, kind == CONTEXT_NESTED, &leaf);
    ipa = 0;
    if (status == 0 && kind == CONTEXT_NESTED) {
      struct leaf behind = {0, 0, 0};
      ipa = leaf.pa;
      status = stage2(context, ipa, need, &behind);
      behind.bits = (leaf.bits & behind.bits) | (leaf.bits & GLOBAL);
      if (leaf.lg2 < behind.lg2) behind.lg2 = leaf.lg2;
      leaf = behind;
    }
  }
  if (status != 0) {
    put32(xlat, XLAT_STATUS, status);
    return status;
  }
  iotlb_fill(unit, iotlb, tag, iova >> 12, leaf.pa, leaf.lg2, leaf.bits | stages, (u32)(ipa >> 12), fill_seq);
  succeed(xlat, leaf.pa, ipa, leaf.lg2, fill_seq, XLAT_FROM_WALK);
  return 0;
}
