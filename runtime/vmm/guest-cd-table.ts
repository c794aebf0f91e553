/**
 * A stream's CD table in guest RAM: one CD; or an array, or two levels with 64 CDs a leaf, by SubstreamID. [IHI0070]
 * 5.4, STE.S1Fmt.
 *
 *   S1ContextPtr -> | L1 desc | ... | L1 desc |      ssid >> 6         leaves are made when a substream
 *                        +-> | CD | ... | CD |       ssid & 63         in their range appears
 */
import { bug } from '../../hw/memory/bug.js';
import { getQuad, setQuad } from '../../hw/smmuv3/bitfield.js';
import { CD_BYTES, L1CD } from '../../hw/smmuv3/cd.js';
import { S1DSS_SSID0, S1FMT_4K_L2, S1FMT_LINEAR, STE } from '../../hw/smmuv3/ste.js';
import { EINVAL, ENOMEM } from '../../uapi/abi/errno.js';
import type { GuestRam } from './guest-ram.js';

const PAGE = 4096;
const SPLIT = 6;
const L1_BYTES = 8;

export class GuestCdTable {
  readonly ssidBits: number;
  readonly #ram: GuestRam;
  readonly #pfn: number;
  readonly #pages: number;
  readonly #leaves: number[] = [];

  private constructor(ram: GuestRam, ssidBits: number, pfn: number, pages: number) {
    this.#ram = ram;
    this.ssidBits = ssidBits;
    this.#pfn = pfn;
    this.#pages = pages;
  }

  /** @param ssidBits  0: one CD. @returns an empty table | -ENOMEM */
  static create(ram: GuestRam, ssidBits: number): GuestCdTable | number {
    const bytes = ssidBits <= SPLIT ? CD_BYTES * 2 ** ssidBits : L1_BYTES * 2 ** (ssidBits - SPLIT);
    const pages = Math.max(1, bytes / PAGE);
    const pfn = ram.allocZeroed(pages, pages);
    return pfn < 0 ? -ENOMEM : new GuestCdTable(ram, ssidBits, pfn, pages);
  }

  /** What the STE says of it: traffic without a SubstreamID uses CD 0. */
  describe(ste: Uint32Array): void {
    STE.S1Fmt.put(ste, this.#twoLevel ? S1FMT_4K_L2 : S1FMT_LINEAR);
    STE.S1ContextPtr.put(ste, this.#pfn * PAGE);
    STE.S1CDMax.put(ste, this.ssidBits);
    STE.S1DSS.put(ste, S1DSS_SSID0);
  }

  /** @returns IPA of a substream's CD, and whether its leaf is new | -EINVAL no such substream | -ENOMEM */
  place(ssid: number): { readonly ipa: number; readonly newLeaf: boolean } | number {
    if (!(ssid >= 0 && ssid < 2 ** this.ssidBits)) return -EINVAL;
    if (!this.#twoLevel) return { ipa: this.#pfn * PAGE + ssid * CD_BYTES, newLeaf: false };
    const l1 = this.#pfn * PAGE + Math.floor(ssid / 2 ** SPLIT) * L1_BYTES;
    const words = new Uint32Array(2);
    setQuad(words, 0, this.#ram.load64(l1) ?? bug('CD table left guest RAM'));
    const newLeaf = L1CD.V.get(words) === 0;
    if (newLeaf) {
      const pfn = this.#ram.allocZeroed();
      if (pfn < 0) return -ENOMEM;
      this.#leaves.push(pfn);
      L1CD.L2Ptr.put(words, pfn * PAGE);
      L1CD.V.put(words, 1);
      this.#ram.store64(l1, getQuad(words, 0));
    }
    return { ipa: L1CD.L2Ptr.get(words) + (ssid % 2 ** SPLIT) * CD_BYTES, newLeaf };
  }

  /** Nothing may point here any more, caches included. */
  destroy(): void {
    for (const pfn of this.#leaves.splice(0)) this.#ram.frames.release(pfn);
    this.#ram.frames.release(this.#pfn, this.#pages);
  }

  get #twoLevel(): boolean {
    return this.ssidBits > SPLIT;
  }
}
