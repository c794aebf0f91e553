/**
 * What an STE, and a CD, makes the SMMU do: the model's own decoding (hw/smmuv3/stream-config.ts) for a transaction
 * without a SubstreamID and for substreams 0 and 1, and beside it the memory attributes that the model has no use for
 * but hardware heeds, from [IHI0070] 5.2, 5.4 and 13.5.
 *
 * Two entries with equal behaviour cannot be told apart by a device.
 */
import { CONTEXT_FLAG_ATS, CONTEXT_FLAG_ATS_S1CHK, CONTEXT_FLAG_MEV } from '../../hw/iotlb/unit-layout.js';
import { setQuad } from '../../hw/smmuv3/bitfield.js';
import { type Smmuv3Config, smmuv3Config } from '../../hw/smmuv3/config.js';
import { decodeCd, decodeSte, StreamConfig, selectCd } from '../../hw/smmuv3/stream-config.js';

export type Image = readonly bigint[];

export interface Behaviour {
  /** V = 0: every transaction is refused, until a valid entry is there. */
  readonly invalid: boolean;
  /** Everything but the next two, as text. */
  readonly does: string;
  /** What becomes of translation requests: STE.EATS as it takes effect. */
  readonly ats: number;
  /** Whether events may be merged. */
  readonly mev: boolean;
}

/** An SMMU with everything. */
export const HARDWARE: Smmuv3Config = smmuv3Config({ index: 0 });
const CONTROLS = { e2h: false, atsChk: true };
const NO_SUBSTREAM = -1;
const APART = CONTEXT_FLAG_ATS | CONTEXT_FLAG_ATS_S1CHK | CONTEXT_FLAG_MEV;

const decoded = new StreamConfig();
const scratch = new Uint32Array(16);

function wordsOf(image: Image): Uint32Array {
  for (let i = 0; i < 8; i++) setQuad(scratch, i * 2, image[i]!);
  return scratch;
}

/** Bits [hi, lo] of an entry of 512, as the specification numbers them. */
const bitsOf = (image: Image, hi: number, lo: number): number =>
  Number((image[lo >> 6]! >> BigInt(lo & 63)) & ((1n << BigInt(hi - lo + 1)) - 1n));

export function steBehaviour(image: Image): Behaviour {
  const views = [NO_SUBSTREAM, 0, 1].map((ssid) => {
    const event = decodeSte(wordsOf(image), HARDWARE, CONTROLS, decoded) || selectCd(ssid, HARDWARE, decoded);
    return event !== 0 ? { event } : { ...decoded, flags: decoded.flags & ~APART };
  });
  // The flags of the last view hold for all: EATS and MEV do not depend on the substream.
  return {
    invalid: (image[0]! & 1n) === 0n,
    does: JSON.stringify([views, steAttributes(image)]),
    ats: decoded.flags & (CONTEXT_FLAG_ATS | CONTEXT_FLAG_ATS_S1CHK),
    mev: (decoded.flags & CONTEXT_FLAG_MEV) !== 0,
  };
}

const S1DSS_BYPASS = 1;

/** Attributes of the accesses to the CDs, of what goes through untranslated, and of the walks of stage 2. */
function steAttributes(image: Image): number[] {
  if (bitsOf(image, 0, 0) === 0) return [];
  const config = bitsOf(image, 3, 1);
  const s1 = config >= 4 && (config & 1) !== 0;
  const s2 = config >= 4 && (config & 2) !== 0;
  const shcfg = config === 4 || s2 || (s1 && bitsOf(image, 65, 64) === S1DSS_BYPASS);
  return [
    // S1CIR, S1COR, S1CSH
    ...(s1 ? [bitsOf(image, 67, 66), bitsOf(image, 69, 68), bitsOf(image, 71, 70)] : [0, 0, 0]),
    shcfg ? bitsOf(image, 109, 108) : 0,
    // S2FWB; S2IR0, S2OR0, S2SH0
    ...(s2 ? [bitsOf(image, 89, 89), bitsOf(image, 173, 168)] : [0, 0]),
  ];
}

/** As reached through an STE of stage 1 alone that lets faults stall. */
export function cdBehaviour(image: Image): Behaviour {
  const viaSte = new StreamConfig();
  const ste = new Uint32Array(16);
  // V, Config = stage 1; a table of one CD.
  setQuad(ste, 0, 1n | (5n << 1n) | 0x1000n);
  if (decodeSte(ste, HARDWARE, CONTROLS, viaSte) !== 0 || selectCd(NO_SUBSTREAM, HARDWARE, viaSte) !== 0)
    throw new Error('the STE that leads to the CD is no good');
  const event = decodeCd(wordsOf(image), HARDWARE, viaSte);
  const invalid = (image[0]! & (1n << 31n)) === 0n;
  const epd0 = bitsOf(image, 14, 14) === 1;
  // IR0, OR0, SH0; ASET; MAIR
  const attributes = invalid
    ? []
    : [epd0 ? 0 : bitsOf(image, 13, 8), bitsOf(image, 47, 47), String(image[3])];
  return {
    invalid,
    does: JSON.stringify([event !== 0 ? { event } : { ...viaSte }, attributes]),
    ats: 0,
    mev: false,
  };
}
