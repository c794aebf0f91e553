/**
 * A guest's RAM: a contiguous range of user memory, seen by the guest at intermediate physical addresses.
 *
 *   IPA  ipaBase ......................... ipaBase + bytes      what the guest, its tables and queues say
 *   VA   userVa  ......................... userVa + bytes       what IOAS_MAP gets
 *   here linear  ......................... linear + bytes       what this thread reads and writes
 *
 * IPAs are exact Numbers (a 52-bit address fits). An IPA that a guest wrote can be anything: every access says
 * whether it was inside, and none leaves the range. Accesses to words that another thread may write are single
 * 64-bit ones.
 *
 * Not modelled: RAM in several pieces; device memory in the IPA space.
 */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import type { TableFrames, TableWindow } from '../../hw/pagetable/aarch64.js';
import type { UserMemory } from '../user-memory.js';
import { GuestFrames } from './guest-frames.js';

const PAGE = 4096;

export const DEFAULT_IPA_BASE = 0x4000_0000;

export interface GuestRamOptions {
  /** Start of the user memory, page aligned. */
  readonly userVa: bigint;
  readonly bytes: number;
  /** Page aligned. */
  readonly ipaBase?: number;
}

export class GuestRam {
  readonly userVa: bigint;
  readonly ipaBase: number;
  readonly bytes: number;
  readonly memory: MachineMemory;
  /** Editing window of page tables that lie in this RAM. */
  readonly window: TableWindow;
  readonly frames: GuestFrames;
  readonly #linear: number;

  /** @throws RangeError when the memory is not whole pages in one physical run of RAM */
  constructor(memory: MachineMemory, user: UserMemory, options: GuestRamOptions) {
    const { userVa, bytes, ipaBase = DEFAULT_IPA_BASE } = options;
    const linear = user.linearOf(userVa, bytes);
    if (linear < 0 || bytes % PAGE !== 0 || linear % PAGE !== 0 || ipaBase % PAGE !== 0)
      throw new RangeError(
        `guest RAM: ${bytes} bytes at user address 0x${userVa.toString(16)} are not one run`,
      );
    this.memory = memory;
    this.userVa = userVa;
    this.ipaBase = ipaBase;
    this.bytes = bytes;
    this.#linear = linear;
    this.window = { base: ipaBase, linear, bytes };
    this.frames = new GuestFrames(ipaBase / PAGE, bytes / PAGE);
  }

  /** Linear offset of `bytes` bytes at an IPA, or -1 when they are not all inside. */
  linearOf(ipa: number, bytes: number): number {
    const offset = ipa - this.ipaBase;
    return offset >= 0 && offset + bytes <= this.bytes ? this.#linear + offset : -1;
  }

  /** User address of an IPA inside. */
  userVaOf(ipa: number): bigint {
    return this.userVa + BigInt(ipa - this.ipaBase);
  }

  /** One 64-bit read. @returns null when it is not inside, or not aligned */
  load64(ipa: number): bigint | null {
    const linear = ipa % 8 === 0 ? this.linearOf(ipa, 8) : -1;
    return linear < 0 ? null : this.memory.words.load64(linear);
  }

  /** One 64-bit write. @returns whether it took place */
  store64(ipa: number, value: bigint): boolean {
    const linear = ipa % 8 === 0 ? this.linearOf(ipa, 8) : -1;
    if (linear < 0) return false;
    this.memory.words.store64(linear, value);
    return true;
  }

  /**
   * Copies 32-bit words out, plainly: for queue entries, which their producer has finished.
   * @param ipa  4-byte aligned
   * @returns whether all of it was inside
   */
  copyWords(ipa: number, into: Uint32Array): boolean {
    const linear = ipa % 4 === 0 ? this.linearOf(ipa, into.byteLength) : -1;
    if (linear < 0) return false;
    this.memory.words.readUnsigned(linear, into, 0, into.length);
    return true;
  }

  /** Copies 32-bit words in, plainly. @returns whether all of it was inside */
  writeWords(ipa: number, from: Uint32Array): boolean {
    const linear = ipa % 4 === 0 ? this.linearOf(ipa, from.byteLength) : -1;
    if (linear < 0) return false;
    this.memory.words.writeUnsigned(linear, from, 0, from.length);
    return true;
  }

  /** Bytes at an IPA as a view. @returns null when they are not all inside */
  view(ipa: number, bytes: number): Uint8Array | null {
    const linear = this.linearOf(ipa, bytes);
    return linear < 0 ? null : this.memory.u8.subarray(linear, linear + bytes);
  }

  /** Zeroed frames. @returns first IPA frame number | -ENOMEM */
  allocZeroed(pages = 1, alignPages = 1): number {
    const pfn = this.frames.alloc(pages, alignPages);
    if (pfn >= 0) this.view(pfn * PAGE, pages * PAGE)?.fill(0);
    return pfn;
  }

  /** Where a guest's page tables get their frames. @param pages  of a table */
  tableFrames(pages = 1): TableFrames {
    return {
      alloc: () => this.allocZeroed(pages, pages),
      free: (pfn) => this.frames.release(pfn, pages),
    };
  }
}
