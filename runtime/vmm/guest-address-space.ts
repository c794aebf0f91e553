/**
 * One stage-1 address space of a guest: page tables in guest RAM, an ASID, a context descriptor.
 *
 *   CD { ASID, TTB0 } ---> root ---> tables ---> leaves (IPA)          all of them frames of the guest's RAM
 *
 * The guest's thread is the only writer; the SMMU reads at any time, so a CD is written with V last, and every
 * entry of a table is one 64-bit word.
 */
import type { Kernel } from '../../hw/kernel/kernel.js';
import { PageTable } from '../../hw/pagetable/aarch64.js';
import { firstLevel, type GranuleLg2, rootBytes } from '../../hw/pagetable/geometry.js';
import { getQuad } from '../../hw/smmuv3/bitfield.js';
import { CD, CD_BYTES, TG0_4K, TG0_16K, TG0_64K } from '../../hw/smmuv3/cd.js';
import { ADDRESS_BITS } from '../../hw/smmuv3/ste.js';
import type { GuestRam } from './guest-ram.js';

const PAGE = 4096;
const QUAD_BYTES = 8;
const TG0: Readonly<Record<GranuleLg2, number>> = { 12: TG0_4K, 14: TG0_16K, 16: TG0_64K };

/** What a stage-1 table of a guest looks like. */
export interface GuestTableFormat {
  readonly granuleLg2: GranuleLg2;
  /** 39 or 48. */
  readonly inputBits: number;
  /** Bits of an IPA. */
  readonly outputBits: number;
}

export class GuestAddressSpace {
  readonly asid: number;
  readonly table: PageTable;
  /** Byte offset of the page table's descriptor, for the driver's pool. */
  readonly descriptor: number;
  readonly #ram: GuestRam;
  readonly #rootPfn: number;
  readonly #rootPages: number;
  readonly #format: GuestTableFormat;

  private constructor(
    ram: GuestRam,
    kernel: Kernel,
    format: GuestTableFormat,
    where: { asid: number; descriptor: number; rootPfn: number; rootPages: number },
  ) {
    this.asid = where.asid;
    this.descriptor = where.descriptor;
    this.#ram = ram;
    this.#rootPfn = where.rootPfn;
    this.#rootPages = where.rootPages;
    this.#format = format;
    this.table = new PageTable({
      memory: ram.memory,
      kernel,
      descriptor: where.descriptor,
      stage: 1,
      ...format,
      startLevel: firstLevel(format.inputBits, format.granuleLg2),
      root: where.rootPfn * PAGE,
      window: ram.window,
      frames: ram.tableFrames(2 ** format.granuleLg2 / PAGE),
    });
  }

  /** @returns the space | -ENOMEM */
  static create(
    ram: GuestRam,
    kernel: Kernel,
    asid: number,
    descriptor: number,
    format: GuestTableFormat,
  ): GuestAddressSpace | number {
    const { inputBits, granuleLg2 } = format;
    const rootPages = rootBytes(inputBits, firstLevel(inputBits, granuleLg2), granuleLg2) / PAGE;
    const rootPfn = ram.allocZeroed(rootPages, rootPages);
    if (rootPfn < 0) return rootPfn;
    return new GuestAddressSpace(ram, kernel, format, { asid, descriptor, rootPfn, rootPages });
  }

  /**
   * Writes the CD that names this space. Not valid at any moment when it is a mixture: V is cleared first and
   * set last; the caller invalidates (CFGI_CD) afterwards.
   */
  writeCd(cdIpa: number): void {
    const words = new Uint32Array(CD_BYTES / 4);
    CD.T0SZ.put(words, 64 - this.#format.inputBits);
    CD.TG0.put(words, TG0[this.#format.granuleLg2]);
    CD.EPD1.put(words, 1);
    CD.IPS.put(words, Math.max(ADDRESS_BITS.indexOf(this.#format.outputBits), 0));
    CD.AFFD.put(words, 1);
    CD.AA64.put(words, 1);
    CD.R.put(words, 1);
    CD.A.put(words, 1);
    CD.ASET.put(words, 1);
    CD.ASID.put(words, this.asid);
    CD.TTB0.put(words, this.#rootPfn * PAGE);
    CD.V.put(words, 1);
    this.#ram.store64(cdIpa, 0n);
    for (let i = CD_BYTES / QUAD_BYTES - 1; i >= 0; i--)
      this.#ram.store64(cdIpa + i * QUAD_BYTES, getQuad(words, i * 2));
  }

  /** Gives every frame back; nothing may point here any more, caches included. */
  destroy(): void {
    this.table.destroy();
    this.#ram.frames.release(this.#rootPfn, this.#rootPages);
  }
}
