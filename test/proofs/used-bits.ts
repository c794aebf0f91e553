/**
 * What a change of entry must cost, worked out by hand from the specification and not from the driver: which bits an
 * entry uses ([IHI0070] 5.2, 5.4), and from that whether one word decides.
 *
 *   bits that the old entry does not use can be set beforehand  ->  words that still differ then: none, one (hitless),
 *   more (V = 0 in between); and a sync after each step that stores anything
 */
import type { Image } from './ste-behaviour.js';
import type { EntryKind } from './transition.js';

type Range = readonly [hi: number, lo: number];

const STE_V: Range = [0, 0];
const STE_CONFIG: Range = [3, 1];
const STE_EATS: Range = [93, 92];
const STE_MEV: Range = [83, 83];
const STE_SHCFG: Range = [109, 108];
const STE_VMID: Range = [143, 128];
/** S1Fmt, S1ContextPtr, S1CDMax; S1DSS to S1CSH; S1STALLD, STRW. */
const STE_S1: readonly Range[] = [
  [5, 4],
  [51, 6],
  [63, 59],
  [71, 64],
  [91, 91],
  [95, 94],
  STE_EATS,
  STE_MEV,
  STE_VMID,
];
/** S2FWB; S2T0SZ to S2PS; S2AA64, S2ENDI; S2PTW; S2S, S2R; S2TTB. */
const STE_S2: readonly Range[] = [
  [89, 89],
  [178, 160],
  [180, 179],
  [182, 182],
  [186, 185],
  [243, 196],
  STE_EATS,
  STE_MEV,
  STE_SHCFG,
  STE_VMID,
];

const ALL = 2n ** 64n - 1n;

function mask(ranges: readonly Range[]): bigint[] {
  const out = new Array<bigint>(8).fill(0n);
  for (const [hi, lo] of ranges) for (let n = lo; n <= hi; n++) out[n >> 6]! |= 1n << BigInt(n & 63);
  return out;
}

const bits = (image: Image, [hi, lo]: Range): number =>
  Number((image[lo >> 6]! >> BigInt(lo & 63)) & ((1n << BigInt(hi - lo + 1)) - 1n));

function steUsed(ste: Image): bigint[] {
  if (bits(ste, STE_V) === 0) return mask([STE_V]);
  switch (bits(ste, STE_CONFIG)) {
    case 4:
      return mask([STE_V, STE_CONFIG, STE_SHCFG]);
    case 5:
      return mask([STE_V, STE_CONFIG, ...STE_S1, ...(bits(ste, [65, 64]) === 1 ? [STE_SHCFG] : [])]);
    case 6:
      return mask([STE_V, STE_CONFIG, ...STE_S2]);
    case 7:
      return mask([STE_V, STE_CONFIG, ...STE_S1, ...STE_S2]);
    default:
      return mask([STE_V, STE_CONFIG]);
  }
}

/** Everything; with EPD0 (bit 14) not T0SZ, TG0, IR0, OR0, SH0 (13:0) and TTB0 (115:68). */
function cdUsed(cd: Image): bigint[] {
  if (bits(cd, [31, 31]) === 0) return mask([[31, 31]]);
  const ignored =
    bits(cd, [14, 14]) === 1
      ? mask([
          [13, 0],
          [115, 68],
        ])
      : mask([]);
  return ignored.map((word) => ALL & ~word);
}

/** Bits used by both whose order is free: MEV, and EATS between 0 and 1 when neither entry stalls at stage 2. */
function free(kind: EntryKind, from: Image, to: Image): bigint[] {
  if (kind === 'cd') return mask([]);
  const either = from.map((word, i) => word | to[i]!);
  const eats = bits(either, [93, 93]) === 0 && bits(either, [185, 185]) === 0;
  return mask([STE_MEV, ...(eats ? [[92, 92] as const] : [])]);
}

export interface Cost {
  readonly hitless: boolean;
  readonly syncs: number;
}

export function expectedCost(kind: EntryKind, from: Image, to: Image): Cost {
  const used = kind === 'ste' ? steUsed : cdUsed;
  const [before, after, either] = [used(from), used(to), free(kind, from, to)];
  const kept = before.map((word, i) => word & ~(either[i]! & after[i]!));
  const filled = from.map((word, i) => (word & kept[i]!) | (to[i]! & ~kept[i]! & ALL));
  const deciding = filled.flatMap((word, i) => ((word & after[i]!) === to[i]! ? [] : [i]));
  const differs = (a: Image, b: Image, but: number): boolean =>
    a.some((word, i) => i !== but && word !== b[i]);
  if (deciding.length === 0) return { hitless: true, syncs: differs(from, to, -1) ? 1 : 0 };
  if (deciding.length > 1) {
    const invalidate = from[0] === 0n ? 0 : 1;
    const last = to[0] === 0n ? 0 : 1;
    return { hitless: false, syncs: invalidate + (differs(from, to, 0) ? 1 : 0) + last };
  }
  const word = deciding[0]!;
  const fill = differs(from, filled, word) ? 1 : 0;
  return { hitless: true, syncs: fill + 1 + (differs(filled, to, word) ? 1 : 0) };
}
