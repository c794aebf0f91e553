/**
 * A guest kernel's SMMUv3 driver, compact: it owns a stream table, queues, CDs and stage-1 tables in its own RAM
 * and talks to an SMMU only through registers (virtual-smmu.ts, or any SmmuMmio). What Linux's driver does for
 * dma_map and dma_unmap, without the locks: one thread.
 *
 *   unmap: clear PTEs -> TLBI_NH_VA ... -> SYNC -> return, and only then are frames and tables reused
 *
 * Not modelled: MSI completion, page requests; the stream table is linear, or two-level with a split of 8.
 */
import type { Kernel } from '../../hw/kernel/kernel.js';
import { bug } from '../../hw/memory/bug.js';
import type { GranuleLg2 } from '../../hw/pagetable/geometry.js';
import { getQuad, setQuad } from '../../hw/smmuv3/bitfield.js';
import {
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NSNH_ALL,
  COMMAND_WORDS,
  encodeAtcInv,
  encodeCfgiAll,
  encodeCfgiCd,
  encodeCfgiSte,
  encodeSync,
  encodeTlbi,
  encodeTlbiAddress,
  SYNC_CS_NONE,
  TG_4K,
  TG_16K,
  TG_64K,
} from '../../hw/smmuv3/command.js';
import type { EventRecord } from '../../hw/smmuv3/event.js';
import {
  CR0,
  CR0ACK,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
  STRTAB_FMT_2LVL,
  STRTAB_FMT_LINEAR,
} from '../../hw/smmuv3/registers.js';
import {
  ADDRESS_BITS,
  CONFIG_BYPASS,
  CONFIG_S1_TRANS,
  EATS_TRANS,
  L1STD,
  L1STD_BYTES,
  STE,
  STE_BYTES,
} from '../../hw/smmuv3/ste.js';
import { EEXIST, EINVAL, EIO, ENODEV, ENOENT, ENOMEM, ENOSPC } from '../../uapi/abi/errno.js';
import { GuestAddressSpace } from './guest-address-space.js';
import { GuestCdTable } from './guest-cd-table.js';
import { GuestCommandQueue, GuestEventQueue } from './guest-queues.js';
import type { GuestRam } from './guest-ram.js';
import type { SmmuMmio } from './virtual-smmu.js';

const PAGE = 4096;
/** By granule: its bit of IDR5, and its code in a TLBI. */
const GRANULES = {
  12: { supported: IDR5.GRAN4K, tg: TG_4K },
  14: { supported: IDR5.GRAN16K, tg: TG_16K },
  16: { supported: IDR5.GRAN64K, tg: TG_64K },
} as const;
const QUAD_BYTES = 8;
const SPLIT = 8;
const STES_PER_L2 = 2 ** SPLIT;
/** More pages than this in one unmap, and the whole ASID is invalidated instead. */
const MAX_TLBI_PER_UNMAP = 512;
const MAX_NUM = 32;
/** Size of an ATC_INV that covers every address. */
const ATC_ALL_LG2 = 52;

export interface GuestDriverOptions {
  readonly ram: GuestRam;
  readonly mmio: SmmuMmio;
  readonly kernel: Kernel;
  /** Byte offsets of page-table descriptors this driver may use: as many address spaces as there are. */
  readonly descriptors: readonly number[];
  /** StreamIDs 0 .. 2^sidBits - 1. */
  readonly sidBits?: number;
  readonly twoLevel?: boolean;
  readonly commandQueueLg2?: number;
  readonly eventQueueLg2?: number;
  /** Input bits of stage 1: 39 or 48. */
  readonly inputBits?: 39 | 48;
  /** Log2 of the granule of its tables: 12 (4 KiB, the default), 14 or 16. map and unmap then take whole granules. */
  readonly granuleLg2?: GranuleLg2;
  /** Use range invalidations where IDR3.RIL allows. */
  readonly rangeInvalidate?: boolean;
  /** A command queue that the hardware reads by itself: what it takes goes there. */
  readonly secondary?: SecondaryQueue | null;
}

/** A command queue beside the SMMU's own (VirtualCmdqv). */
export interface SecondaryQueue {
  supports(opcode: number): boolean;
  /** Something was put since the last sync(). */
  readonly dirty: boolean;
  /** @returns 0 | -errno */
  put(command: Uint32Array): number;
  /** @returns 0 | -errno */
  sync(): number;
}

const DEFAULTS = {
  sidBits: 8,
  twoLevel: false,
  commandQueueLg2: 8,
  eventQueueLg2: 7,
  inputBits: 48,
  granuleLg2: 12,
  rangeInvalidate: true,
  secondary: null,
} as const;

interface Stream {
  readonly cds: GuestCdTable;
  /** By SubstreamID; 0 is what traffic without one uses. */
  readonly spaces: Map<number, GuestAddressSpace>;
  readonly ats: boolean;
}

export interface StreamOptions {
  /** Substreams 0 .. 2^ssidBits - 1; 0 (the default) for none. At most IDR1.SSIDSIZE. */
  readonly ssidBits?: number;
  /** Let the device keep translations, where the SMMU has ATS: what is unmapped is taken out of its ATC as well. */
  readonly ats?: boolean;
}

export class GuestDriver {
  readonly ram: GuestRam;
  readonly #mmio: SmmuMmio;
  readonly #kernel: Kernel;
  readonly #options: Required<GuestDriverOptions>;
  readonly #descriptors: number[];
  readonly #streams = new Map<number, Stream>();
  readonly #spaces = new Map<number, GuestAddressSpace>();
  readonly #command = new Uint32Array(COMMAND_WORDS);
  readonly #l2Pfns: number[] = [];
  #commands: GuestCommandQueue | null = null;
  #events: GuestEventQueue | null = null;
  #tablePfn = -1;
  #tablePages = 0;
  #range = false;
  #ssidBits = 0;
  #ats = false;
  #outputBits = 0;
  #lastAsid = 0;
  /** Something was put in the SMMU's own queue since the last SYNC there. */
  #dirty = false;
  #maxAsid = 0;

  constructor(options: GuestDriverOptions) {
    this.#options = { ...DEFAULTS, ...options };
    this.ram = options.ram;
    this.#mmio = options.mmio;
    this.#kernel = options.kernel;
    this.#descriptors = [...options.descriptors].reverse();
  }

  /**
   * Probes and enables the SMMU, with an empty stream table: every stream aborts.
   * @returns 0 | -ENODEV it cannot do stage 1 with that granule | -ENOMEM | -EIO
   */
  start(): number {
    const mmio = this.#mmio;
    const idr0 = mmio.read32(IDR0.offset);
    const idr1 = mmio.read32(IDR1.offset);
    const idr5 = mmio.read32(IDR5.offset);
    const { supported } = GRANULES[this.#options.granuleLg2];
    if (IDR0.S1P.get(idr0) === 0 || supported.get(idr5) === 0) return -ENODEV;
    if (this.#options.sidBits > IDR1.SIDSIZE.get(idr1)) return -ENODEV;
    this.#range = this.#options.rangeInvalidate && IDR3.RIL.get(mmio.read32(IDR3.offset)) === 1;
    this.#ats = IDR0.ATS.get(idr0) === 1;
    this.#ssidBits = IDR1.SSIDSIZE.get(idr1);
    this.#maxAsid = IDR0.ASID16.get(idr0) === 1 ? 0xffff : 0xff;
    this.#outputBits = Math.min(ADDRESS_BITS[IDR5.OAS.get(idr5)] ?? 32, 48);
    mmio.write32(CR0.offset, 0);
    const queues = this.#createQueues(idr1);
    if (queues < 0) return queues;
    const table = this.#createStreamTable();
    if (table < 0) return table;
    let cr0 = CR0.CMDQEN.put(0, 1);
    mmio.write32(CR0.offset, cr0);
    encodeCfgiAll(this.#command, 0);
    this.#put();
    encodeTlbi(this.#command, 0, CMD_TLBI_NSNH_ALL, 0, 0);
    this.#put();
    const status = this.sync();
    if (status < 0) return status;
    cr0 = CR0.EVENTQEN.put(cr0, 1);
    mmio.write32(CR0.offset, cr0);
    cr0 = CR0.SMMUEN.put(cr0, 1);
    mmio.write32(CR0.offset, cr0);
    return mmio.read32(CR0ACK.offset) === cr0 ? 0 : -EIO;
  }

  /** A new, empty address space with an ASID of its own. @returns it | -ENOSPC no ASID or descriptor | -ENOMEM */
  createSpace(): GuestAddressSpace | number {
    const asid = this.#allocAsid();
    const descriptor = this.#descriptors.pop();
    if (asid < 0 || descriptor === undefined) {
      if (descriptor !== undefined) this.#descriptors.push(descriptor);
      return -ENOSPC;
    }
    const { inputBits, granuleLg2 } = this.#options;
    const format = { granuleLg2, inputBits, outputBits: this.#outputBits };
    const made = GuestAddressSpace.create(this.ram, this.#kernel, asid, descriptor, format);
    if (typeof made === 'number') this.#descriptors.push(descriptor);
    else this.#spaces.set(asid, made);
    return made;
  }

  /**
   * Releases a space that no stream uses: its ASID is invalidated before its tables are reused.
   * @returns 0 | -EINVAL a stream uses it | -EIO
   */
  destroySpace(space: GuestAddressSpace): number {
    for (const { spaces } of this.#streams.values())
      for (const used of spaces.values()) if (used === space) return -EINVAL;
    const status = this.invalidateAsid(space);
    space.destroy();
    this.#spaces.delete(space.asid);
    this.#descriptors.push(space.descriptor);
    return status;
  }

  /**
   * Puts a stream on a space: CD, STE, CFGI_STE, SYNC. With substreams the space is that of traffic without one.
   * @returns 0 | -EEXIST | -EINVAL vSid or substreams | -ENOMEM | -EIO
   */
  setupStream(vSid: number, space: GuestAddressSpace, options: StreamOptions = {}): number {
    const { ssidBits = 0 } = options;
    const ats = options.ats === true && this.#ats;
    if (this.#streams.has(vSid)) return -EEXIST;
    if (ssidBits > this.#ssidBits) return -EINVAL;
    const ste = this.#stePlace(vSid);
    if (ste < 0) return ste;
    const cds = GuestCdTable.create(this.ram, ssidBits);
    if (typeof cds === 'number') return cds;
    const first = cds.place(0);
    if (typeof first === 'number') {
      cds.destroy();
      return first;
    }
    space.writeCd(first.ipa);
    const words = new Uint32Array(STE_BYTES / 4);
    STE.V.put(words, 1);
    STE.Config.put(words, CONFIG_S1_TRANS);
    cds.describe(words);
    if (ats) STE.EATS.put(words, EATS_TRANS);
    this.#writeSte(ste, words);
    this.#streams.set(vSid, { cds, spaces: new Map([[0, space]]), ats });
    return this.reloadStream(vSid);
  }

  /**
   * Puts a substream on a space, or takes it away: CD, CFGI_CD, SYNC.
   * @returns 0 | -ENOENT no such stream | -EINVAL no such substream | -ENOMEM | -EIO
   */
  setSubstream(vSid: number, ssid: number, space: GuestAddressSpace | null): number {
    const stream = this.#streams.get(vSid);
    if (stream === undefined) return -ENOENT;
    const place = stream.cds.place(ssid);
    if (typeof place === 'number') return place;
    if (space === null) {
      this.ram.store64(place.ipa, 0n);
      stream.spaces.delete(ssid);
    } else {
      space.writeCd(place.ipa);
      stream.spaces.set(ssid, space);
    }
    encodeCfgiCd(this.#command, 0, vSid, ssid, !place.newLeaf);
    this.#put();
    const status = this.sync();
    if (status < 0 || !stream.ats) return status;
    this.#invalidateAtc(vSid, 0, 2 ** ATC_ALL_LG2);
    return this.sync();
  }

  /** Lets a stream through untranslated (by the guest): its DMA addresses are IPAs. @returns 0 | -errno */
  bypassStream(vSid: number): number {
    return this.#replaceStream(vSid, (words) => {
      STE.V.put(words, 1);
      STE.Config.put(words, CONFIG_BYPASS);
    });
  }

  /** Takes a stream's configuration away: its DMA aborts. @returns 0 | -ENOENT | -EIO */
  clearStream(vSid: number): number {
    return this.#streams.has(vSid) ? this.#replaceStream(vSid, () => undefined) : -ENOENT;
  }

  /** CFGI_STE and SYNC alone: STE and CD are fetched again. @returns 0 | -EIO */
  reloadStream(vSid: number): number {
    encodeCfgiSte(this.#command, 0, vSid, true);
    this.#put();
    return this.sync();
  }

  /** Moves a stream to another space: the CD is rewritten, CFGI_CD, SYNC. @returns 0 | -ENOENT | -EIO */
  switchTable(vSid: number, space: GuestAddressSpace): number {
    return this.setSubstream(vSid, 0, space);
  }

  /** @param prot  PROT_*. @returns 0 | -EEXIST | -ENOMEM | -ERANGE | -EINVAL, as PageTable.map */
  map(space: GuestAddressSpace, iovaPage: number, ipaPage: number, pages: number, prot: number): number {
    return space.table.map(iovaPage, ipaPage, pages, prot);
  }

  /**
   * Unmaps, and returns only when no DMA can use the translations any more.
   * @returns pages unmapped | -EINVAL the range cuts a block or a granule | -ERANGE | -EIO
   */
  unmap(space: GuestAddressSpace, iovaPage: number, pages: number): number {
    const unmapped = space.table.unmap(iovaPage, pages);
    if (unmapped < 0) return unmapped;
    this.#invalidate(space, iovaPage, pages);
    let status = this.sync();
    if (status === 0) status = this.#invalidateAtcs(space, iovaPage, pages);
    // Not completed: walkers may still read the tables, so they stay where they are.
    if (status < 0) return status;
    space.table.releaseFreed();
    return unmapped;
  }

  invalidateAsid(space: GuestAddressSpace): number {
    encodeTlbi(this.#command, 0, CMD_TLBI_NH_ASID, 0, space.asid);
    this.#put();
    return this.sync();
  }

  /** Waits until everything put before is done. @returns 0 | -EIO */
  sync(): number {
    const { secondary } = this.#options;
    const before = secondary?.dirty === true ? secondary.sync() : 0;
    // A queue that nothing was put in has nothing to wait for.
    if (before < 0 || (secondary !== null && !this.#dirty)) return before;
    encodeSync(this.#command, 0, SYNC_CS_NONE);
    const put = this.#put();
    this.#dirty = false;
    return put < 0 ? put : this.#queue().kick();
  }

  /** What the SMMU recorded since the last call. */
  takeEvents(): EventRecord[] {
    return this.#events?.take() ?? [];
  }

  /** Overflows of the event queue seen so far. */
  get eventOverflows(): number {
    return this.#events?.overflows ?? 0;
  }

  /** Disables the SMMU and gives every frame back. */
  stop(): void {
    for (const vSid of [...this.#streams.keys()]) this.clearStream(vSid);
    for (const space of [...this.#spaces.values()]) this.destroySpace(space);
    this.#mmio.write32(CR0.offset, 0);
    this.#commands?.destroy();
    this.#events?.destroy();
    this.#commands = null;
    this.#events = null;
    for (const pfn of this.#l2Pfns.splice(0)) this.ram.frames.release(pfn, L2_PAGES);
    if (this.#tablePfn >= 0) this.ram.frames.release(this.#tablePfn, this.#tablePages);
    this.#tablePfn = -1;
  }

  #createQueues(idr1: number): number {
    const commandsLg2 = Math.min(this.#options.commandQueueLg2, IDR1.CMDQS.get(idr1));
    const commands = GuestCommandQueue.create(this.ram, this.#mmio, commandsLg2);
    if (typeof commands === 'number') return commands;
    this.#commands = commands;
    const eventsLg2 = Math.min(this.#options.eventQueueLg2, IDR1.EVENTQS.get(idr1));
    const events = GuestEventQueue.create(this.ram, this.#mmio, eventsLg2);
    if (typeof events === 'number') return events;
    this.#events = events;
    return 0;
  }

  #createStreamTable(): number {
    const { sidBits, twoLevel } = this.#options;
    const bytes = twoLevel ? L1STD_BYTES * 2 ** Math.max(sidBits - SPLIT, 0) : STE_BYTES * 2 ** sidBits;
    this.#tablePages = Math.max(1, bytes / PAGE);
    this.#tablePfn = this.ram.allocZeroed(this.#tablePages, this.#tablePages);
    if (this.#tablePfn < 0) return -ENOMEM;
    const base = STRTAB_BASE.ADDR.put(0n, BigInt(this.#tablePfn * PAGE));
    let config = STRTAB_BASE_CFG.LOG2SIZE.put(0, sidBits);
    config = STRTAB_BASE_CFG.FMT.put(config, twoLevel ? STRTAB_FMT_2LVL : STRTAB_FMT_LINEAR);
    if (twoLevel) config = STRTAB_BASE_CFG.SPLIT.put(config, SPLIT);
    this.#mmio.write64(STRTAB_BASE.offset, base);
    this.#mmio.write32(STRTAB_BASE_CFG.offset, config);
    return 0;
  }

  /** Where a stream's STE lies, its level-2 array made when needed. @returns IPA | -EINVAL | -ENOMEM */
  #stePlace(vSid: number): number {
    if (!(vSid >= 0 && vSid < 2 ** this.#options.sidBits)) return -EINVAL;
    const table = this.#tablePfn * PAGE;
    if (!this.#options.twoLevel) return table + vSid * STE_BYTES;
    const l1 = table + Math.floor(vSid / STES_PER_L2) * L1STD_BYTES;
    const words = new Uint32Array(2);
    setQuad(words, 0, this.ram.load64(l1) ?? bug('stream table left guest RAM'));
    if (L1STD.Span.get(words) === 0) {
      const pfn = this.ram.allocZeroed(L2_PAGES, L2_PAGES);
      if (pfn < 0) return -ENOMEM;
      this.#l2Pfns.push(pfn);
      L1STD.L2Ptr.put(words, pfn * PAGE);
      L1STD.Span.put(words, SPLIT + 1);
      this.ram.store64(l1, getQuad(words, 0));
    }
    return L1STD.L2Ptr.get(words) + (vSid % STES_PER_L2) * STE_BYTES;
  }

  /** V is in the first word, written last; an STE that was valid is first made invalid. */
  #writeSte(ipa: number, words: Uint32Array): void {
    this.ram.store64(ipa, 0n);
    for (let i = STE_BYTES / QUAD_BYTES - 1; i >= 0; i--)
      this.ram.store64(ipa + i * QUAD_BYTES, getQuad(words, i * 2));
  }

  #replaceStream(vSid: number, fill: (words: Uint32Array) => void): number {
    const ste = this.#stePlace(vSid);
    if (ste < 0) return ste;
    const words = new Uint32Array(STE_BYTES / 4);
    fill(words);
    this.#writeSte(ste, words);
    const status = this.reloadStream(vSid);
    const stream = this.#streams.get(vSid);
    if (status < 0 || stream === undefined) return status;
    this.#streams.delete(vSid);
    stream.cds.destroy();
    return 0;
  }

  /** After the SYNC of the TLBIs: ATC_INV for every device that may have kept a translation. @returns 0 | -EIO */
  #invalidateAtcs(space: GuestAddressSpace, iovaPage: number, pages: number): number {
    let any = false;
    for (const [vSid, { spaces, ats }] of this.#streams) {
      if (!ats || ![...spaces.values()].includes(space)) continue;
      this.#invalidateAtc(vSid, iovaPage, pages);
      any = true;
    }
    return any ? this.sync() : 0;
  }

  /** Of all substreams: the smallest aligned power of two of pages around the range. */
  #invalidateAtc(vSid: number, firstPage: number, pages: number): void {
    const lastPage = firstPage + pages - 1;
    let lg2 = 0;
    while (Math.floor(firstPage / 2 ** lg2) !== Math.floor(lastPage / 2 ** lg2)) lg2++;
    encodeAtcInv(this.#command, 0, vSid, -1, Math.floor(firstPage / 2 ** lg2) * 2 ** lg2, lg2);
    this.#put();
  }

  #invalidate(space: GuestAddressSpace, iovaPage: number, pages: number): void {
    const { asid } = space;
    // An unlinked table is cached as a walk, not as a leaf.
    const leaf = space.table.freedTables === 0;
    if (this.#range) {
      this.#invalidateRange(asid, iovaPage, pages, leaf);
      return;
    }
    if (pages / this.#granulePages > MAX_TLBI_PER_UNMAP) {
      encodeTlbi(this.#command, 0, CMD_TLBI_NH_ASID, 0, asid);
      this.#put();
      return;
    }
    for (let page = iovaPage; page < iovaPage + pages; page += this.#granulePages) {
      encodeTlbiAddress(this.#command, 0, CMD_TLBI_NH_VA, 0, asid, page, leaf);
      this.#put();
    }
  }

  /** Cuts a range into (NUM + 1) << SCALE pieces, the lowest set bits of the length first. [IHI0070] 4.4.1 */
  #invalidateRange(asid: number, iovaPage: number, pages: number, leaf: boolean): void {
    let page = iovaPage;
    let left = pages / this.#granulePages;
    while (left > 0) {
      let scale = 0;
      while (left % 2 ** (scale + 1) === 0 && scale < 31) scale++;
      const blocks = Math.min(Math.floor(left / 2 ** scale) % MAX_NUM || MAX_NUM, MAX_NUM);
      // NUM, SCALE and TTL all 0 is reserved: a single granule is the plain form.
      const { tg } = GRANULES[this.#options.granuleLg2];
      const range = blocks * 2 ** scale === 1 ? undefined : { num: blocks - 1, scale, tg, ttl: 0 };
      encodeTlbiAddress(this.#command, 0, CMD_TLBI_NH_VA, 0, asid, page, leaf, range);
      this.#put();
      page += blocks * 2 ** scale * this.#granulePages;
      left -= blocks * 2 ** scale;
    }
  }

  /** 4 KiB pages in a granule. */
  get #granulePages(): number {
    return 2 ** this.#options.granuleLg2 / PAGE;
  }

  #allocAsid(): number {
    for (let tried = 0; tried < this.#maxAsid; tried++) {
      this.#lastAsid = (this.#lastAsid % this.#maxAsid) + 1;
      if (!this.#spaces.has(this.#lastAsid)) return this.#lastAsid;
    }
    return -ENOSPC;
  }

  #queue(): GuestCommandQueue {
    return this.#commands ?? bug('the guest driver is not started');
  }

  #put(): number {
    const { secondary } = this.#options;
    if (secondary?.supports(this.#command[0]! & 0xff)) return secondary.put(this.#command);
    this.#dirty = true;
    return this.#queue().put(this.#command);
  }
}

const L2_PAGES = (STES_PER_L2 * STE_BYTES) / PAGE;
