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
import { getQuad } from '../../hw/smmuv3/bitfield.js';
import { CD, CD_BYTES, TG0_4K } from '../../hw/smmuv3/cd.js';
import { ADDRESS_BITS } from '../../hw/smmuv3/ste.js';
import type { GuestRam } from './guest-ram.js';

const PAGE = 4096;
const QUAD_BYTES = 8;

export class GuestAddressSpace {
  readonly asid: number;
  readonly table: PageTable;
  /** Byte offset of the page table's descriptor, for the driver's pool. */
  readonly descriptor: number;
  readonly #ram: GuestRam;
  readonly #rootPfn: number;
  readonly #inputBits: number;
  readonly #outputBits: number;

  private constructor(
    ram: GuestRam,
    kernel: Kernel,
    where: { asid: number; descriptor: number; rootPfn: number; inputBits: number; outputBits: number },
  ) {
    this.asid = where.asid;
    this.descriptor = where.descriptor;
    this.#ram = ram;
    this.#rootPfn = where.rootPfn;
    this.#inputBits = where.inputBits;
    this.#outputBits = where.outputBits;
    this.table = new PageTable({
      memory: ram.memory,
      kernel,
      descriptor: where.descriptor,
      stage: 1,
      inputBits: where.inputBits,
      outputBits: where.outputBits,
      startLevel: where.inputBits > 39 ? 0 : 1,
      root: where.rootPfn * PAGE,
      window: ram.window,
      frames: ram.tableFrames(),
    });
  }

  /**
   * @param inputBits   39 or 48
   * @param outputBits  bits of an IPA
   * @returns the space | -ENOMEM
   */
  static create(
    ram: GuestRam,
    kernel: Kernel,
    asid: number,
    descriptor: number,
    inputBits: number,
    outputBits: number,
  ): GuestAddressSpace | number {
    const rootPfn = ram.allocZeroed();
    if (rootPfn < 0) return rootPfn;
    return new GuestAddressSpace(ram, kernel, { asid, descriptor, rootPfn, inputBits, outputBits });
  }

  /**
   * Writes the CD that names this space. Not valid at any moment when it is a mixture: V is cleared first and
   * set last; the caller invalidates (CFGI_CD) afterwards.
   */
  writeCd(cdIpa: number): void {
    const words = new Uint32Array(CD_BYTES / 4);
    CD.T0SZ.put(words, 64 - this.#inputBits);
    CD.TG0.put(words, TG0_4K);
    CD.EPD1.put(words, 1);
    CD.IPS.put(words, Math.max(ADDRESS_BITS.indexOf(this.#outputBits), 0));
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
    this.#ram.frames.release(this.#rootPfn);
  }
}
