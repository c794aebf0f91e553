/**
 * One SMMUv3 with memory, ports and model, all inline on one thread, and what a test does to it: place structures
 * in RAM, program registers through Mmio, push commands, read events, send DMA. Words are given raw, as the spec
 * numbers their bits: nothing here encodes or decodes with the code under test, but `events()`.
 */
import { NO_SSID, PortLayout, XLAT_BYTES, Xlat } from '../../hw/iotlb/port-layout.js';
import { UnitLayout } from '../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../hw/kernel/kernel.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import { DmaPort } from '../../hw/pci/dma-port.js';
import { type Smmuv3Config, smmuv3Config } from '../../hw/smmuv3/config.js';
import { decodeEvent, type EventRecord } from '../../hw/smmuv3/event.js';
import { Mmio } from '../../hw/smmuv3/mmio.js';
import { Smmuv3, type Smmuv3Hooks } from '../../hw/smmuv3/model.js';
import { createSmmuv3Regions, type Smmuv3Regions } from '../../hw/smmuv3/regions.js';
import { monotonicClock, type SyncEnv, ThreadTable, ThreadTableLayout } from '../../hw/sync/thread.js';
import {
  type CmdqvConfig,
  type CmdqvRegions,
  cmdqvConfig,
  createCmdqvRegions,
} from '../../hw/tegra241-cmdqv/config.js';
import { CmdqvMmio } from '../../hw/tegra241-cmdqv/mmio.js';
import { Tegra241Cmdqv } from '../../hw/tegra241-cmdqv/model.js';

export const WRITE = 1;
export const INSTRUCTION = 2;
export const PRIVILEGED = 4;

/** Statuses that are no event number. */
export const OK = 0;
export const ABORT = 0xff;

export interface FixtureOptions {
  readonly config?: Partial<Smmuv3Config>;
  /** StreamID of each port. */
  readonly sids?: readonly number[];
  readonly trace?: boolean;
  /** log2 of the queues' entries. */
  readonly cmdqLog2?: number;
  readonly evtqLog2?: number;
  readonly priqLog2?: number;
  /** A CMDQV beside the SMMU. */
  readonly cmdqv?: Partial<CmdqvConfig>;
  /** Every port's device has an ATC, in use from the start. */
  readonly ats?: boolean;
  /** Every port's device can make page requests. */
  readonly pri?: boolean;
}

export interface Answer {
  readonly status: number;
  readonly pa: bigint;
  readonly ipa: bigint;
  readonly sizeLg2: number;
  readonly source: number;
  readonly fault: number;
  readonly fillSeq: number;
  /** STAG, when stalled. */
  readonly level: number;
}

const RAM_BYTES = 16 * 1024 * 1024;

export class SmmuFixture {
  readonly memory: MachineMemory;
  readonly kernel: Kernel;
  readonly env: SyncEnv;
  readonly config: Smmuv3Config;
  readonly regions: Smmuv3Regions;
  readonly mmio: Mmio;
  readonly cmdqv: {
    readonly config: CmdqvConfig;
    readonly regions: CmdqvRegions;
    readonly mmio: CmdqvMmio;
  } | null;
  model: Smmuv3;
  readonly logs: string[] = [];
  readonly interrupts: string[] = [];
  /** Linear bases of the ports. */
  readonly ports: number[] = [];
  readonly sids: readonly number[];
  readonly cmdqLog2: number;
  readonly evtqLog2: number;
  readonly priqLog2: number;
  readonly cmdq: number;
  readonly evtq: number;
  readonly priq: number;
  readonly strtab: number;
  #next: number;

  constructor(options: FixtureOptions = {}) {
    this.memory = MachineMemory.create({ ramBytes: RAM_BYTES });
    this.kernel = Kernel.load(this.memory);
    const threads = new ThreadTable(this.memory, this.memory.allocRegion(ThreadTableLayout, 'threads'));
    this.config = smmuv3Config({ index: 0, sidBits: 8, iotlbEntries: 256, ...options.config });
    this.regions = createSmmuv3Regions(this.memory, this.kernel, this.config, options.trace ?? false);
    this.env = {
      words: this.memory.words,
      threads,
      threadId: threads.register(),
      clock: monotonicClock,
      canPark: false,
      relax: () => this.model.step(),
    };
    this.cmdqv = options.cmdqv === undefined ? null : this.#addCmdqv(options.cmdqv);
    this.mmio = new Mmio(this.env, this.regions, (message) => this.logs.push(message));
    this.model = this.newModel();
    this.#next = this.memory.ram.basePa;
    this.cmdqLog2 = options.cmdqLog2 ?? 5;
    this.evtqLog2 = options.evtqLog2 ?? 4;
    this.cmdq = this.alloc(16 * 2 ** this.cmdqLog2, Math.max(4096, 16 * 2 ** this.cmdqLog2));
    this.evtq = this.alloc(32 * 2 ** this.evtqLog2, Math.max(4096, 32 * 2 ** this.evtqLog2));
    this.priqLog2 = options.priqLog2 ?? 4;
    this.priq = this.alloc(16 * 2 ** this.priqLog2, Math.max(4096, 16 * 2 ** this.priqLog2));
    this.strtab = this.alloc(64 * 256, 64 * 256);
    this.sids = options.sids ?? [3];
    this.sids.forEach((sid, i) => {
      this.#addPort(sid, i);
      const at = PortLayout.at;
      this.memory.words.store(this.ports[i]! + at.ats, options.ats ? 1 : 0);
      this.memory.words.store(this.ports[i]! + at.atsControl, options.ats ? 1 : 0);
      this.memory.words.store(this.ports[i]! + at.pri, options.pri ? 1 : 0);
    });
  }

  /** What an emulated device would hold. */
  dmaPort(index = 0): DmaPort {
    return new DmaPort(this.env, this.memory, this.kernel, `device ${index}`, `port:${index}`);
  }

  /** As another thread would make it when it takes over the unit. */
  newModel(): Smmuv3 {
    const { cmdqv } = this;
    const hooks: Smmuv3Hooks = {
      log: (message: string) => void this.logs.push(message),
      onInterrupt: (source) => void this.interrupts.push(source),
      ...(cmdqv && { companion: (parts) => new Tegra241Cmdqv(cmdqv.config, cmdqv.regions, parts) }),
    };
    return new Smmuv3(this.env, this.memory, this.kernel, this.regions, this.config, hooks);
  }

  #addCmdqv(options: Partial<CmdqvConfig>) {
    const config = cmdqvConfig({ ...options, index: 0 });
    const regions = createCmdqvRegions(this.memory, config);
    const log = (message: string) => void this.logs.push(message);
    const mmio = new CmdqvMmio(this.env, config, regions, this.regions.unit, log);
    return { config, regions, mmio };
  }

  #addPort(sid: number, i: number): void {
    const { words } = this.memory;
    const port = this.memory.allocRegion(PortLayout, `port:${i}`).base;
    const at = PortLayout.at;
    words.store(port + at.unit, this.regions.unit);
    words.store(port + at.contexts, this.regions.contexts);
    words.store(port + at.iotlb, this.regions.iotlb);
    words.store(port + at.sid, sid);
    words.store(this.regions.unit + UnitLayout.at.ports + i * 4, port);
    words.store(this.regions.unit + UnitLayout.at.portCount, i + 1);
    this.ports.push(port);
  }

  // ---- memory ----

  /** Zeroed RAM. @returns byte PA */
  alloc(bytes: number, align = 4096): number {
    const pa = Math.ceil(this.#next / align) * align;
    this.#next = pa + Math.ceil(bytes / 4096) * 4096;
    if (this.#next > this.memory.ram.basePa + this.memory.ram.bytes) throw new Error('fixture: out of RAM');
    return pa;
  }

  write64(pa: number, value: bigint): void {
    this.memory.words.store64(this.#linear(pa, 8), value);
  }

  read64(pa: number): bigint {
    return this.memory.words.load64(this.#linear(pa, 8));
  }

  writeWords(pa: number, words: readonly bigint[]): void {
    words.forEach((word, i) => {
      this.write64(pa + i * 8, word);
    });
  }

  #linear(pa: number, bytes: number): number {
    const linear = this.memory.linearOf(pa, bytes);
    if (linear < 0) throw new Error(`fixture: ${pa.toString(16)} is not RAM`);
    return linear;
  }

  /**
   * Maps one leaf, 4 KiB granule, making tables on the way.
   * @param level   of the leaf, 1 to 3
   * @param attrs   its low attribute bits, valid and page/block bit included
   * @param toPa    where a table pointer's address lies in RAM (nested stage 1: an IPA)
   */
  map(
    root: number,
    startLevel: number,
    input: bigint,
    output: bigint,
    level: number,
    attrs: bigint,
    toPa: (table: number) => number = (table) => table,
    allocTable: () => number = () => this.alloc(4096),
  ): void {
    let table = root;
    for (let l = startLevel; l < level; l++) {
      const slot =
        toPa(table) + Number((input >> BigInt(39 - 9 * l)) & (l === startLevel ? 0x1fffn : 0x1ffn)) * 8;
      if ((this.read64(slot) & 1n) === 0n) this.write64(slot, BigInt(allocTable()) | 3n);
      table = Number(this.read64(slot) & 0xffff_ffff_f000n);
    }
    const index = (input >> BigInt(39 - 9 * level)) & (level === startLevel ? 0x1fffn : 0x1ffn);
    this.write64(toPa(table) + Number(index) * 8, output | attrs);
  }

  // ---- registers and queues ----

  /** Steps until there is nothing to do. */
  run(): void {
    for (let i = 0; this.model.step(); i++) if (i > 10_000) throw new Error('fixture: the model never rests');
  }

  /** Linear stream table of 256 entries, both queues, RECINVSID; then SMMUEN, EVENTQEN, CMDQEN. */
  enable(cr0 = 0b1101): void {
    this.mmio.write32(0x2c, 1 << 1);
    this.mmio.write64(0x80, BigInt(this.strtab));
    this.mmio.write32(0x88, 8);
    this.mmio.write64(0x90, BigInt(this.cmdq) | BigInt(this.cmdqLog2));
    this.mmio.write64(0xa0, BigInt(this.evtq) | BigInt(this.evtqLog2));
    this.mmio.write64(0xc0, BigInt(this.priq) | BigInt(this.priqLog2));
    this.mmio.write32(0x20, cr0);
    this.run();
  }

  setSte(sid: number, words: readonly bigint[]): void {
    this.writeWords(this.strtab + sid * 64, words);
  }

  /** Puts commands in the queue and moves PROD, without stepping. */
  push(...commands: ReadonlyArray<readonly [bigint, bigint]>): void {
    const size = 2 ** this.cmdqLog2;
    let prod = this.mmio.read32(0x98);
    for (const [low, high] of commands) {
      const slot = this.cmdq + (prod & (size - 1)) * 16;
      this.write64(slot, low);
      this.write64(slot + 8, high);
      prod = (prod + 1) & (2 * size - 1);
    }
    this.mmio.write32(0x98, prod);
  }

  /** The same, and runs the model. */
  command(...commands: ReadonlyArray<readonly [bigint, bigint]>): void {
    this.push(...commands);
    this.run();
  }

  /** Raw words of the records since the last call. */
  rawEvents(): bigint[][] {
    const size = 2 ** this.evtqLog2;
    const prod = this.mmio.read32(0x100a8);
    let cons = this.mmio.read32(0x100ac);
    const records: bigint[][] = [];
    while (((prod ^ cons) & (2 * size - 1)) !== 0) {
      const slot = this.evtq + (cons & (size - 1)) * 32;
      records.push([0, 8, 16, 24].map((offset) => this.read64(slot + offset)));
      cons = (cons & ~(2 * size - 1)) | ((cons + 1) & (2 * size - 1));
    }
    this.mmio.write32(0x100ac, cons >>> 0);
    return records;
  }

  events(): EventRecord[] {
    return this.rawEvents().map((record) => {
      const words = new Uint32Array(8);
      record.forEach((word, i) => {
        words[i * 2] = Number(word & 0xffff_ffffn);
        words[i * 2 + 1] = Number(word >> 32n);
      });
      return decodeEvent(words);
    });
  }

  /** Raw words of the page requests recorded since the last call. */
  pageRecords(): bigint[][] {
    const size = 2 ** this.priqLog2;
    const prod = this.mmio.read32(0x100c8);
    let cons = this.mmio.read32(0x100cc);
    const records: bigint[][] = [];
    while (((prod ^ cons) & (2 * size - 1)) !== 0) {
      const slot = this.priq + (cons & (size - 1)) * 16;
      records.push([this.read64(slot), this.read64(slot + 8)]);
      cons = (cons & ~(2 * size - 1)) | ((cons + 1) & (2 * size - 1));
    }
    this.mmio.write32(0x100cc, cons >>> 0);
    return records;
  }

  // ---- DMA ----

  /** Enters the epoch with one transaction. */
  begin(index: number, iova: bigint, flags = 0, ssid = NO_SSID, sid = this.sids[index]!): void {
    const { words } = this.memory;
    const port = this.ports[index]!;
    const xlat = port + PortLayout.at.batch;
    words.store64(xlat + Xlat.at.iova, iova);
    words.store(xlat + Xlat.at.flags, flags);
    words.store(xlat + Xlat.at.sid, sid);
    words.store(xlat + Xlat.at.ssid, ssid);
    words.store(xlat + Xlat.at.cookie, 0);
    const outstanding = this.kernel.dmaBegin(port, 1);
    if (outstanding < 0) throw new Error(`fixture: dmaBegin ${outstanding}`);
  }

  /** Steps the model until the transaction is answered; stays in the epoch. */
  finish(index: number): Answer {
    const port = this.ports[index]!;
    for (let i = 0; this.kernel.dmaPoll(port) > 0; i++) {
      this.model.step();
      if (i > 100) throw new Error('fixture: no answer');
    }
    const { words, u32 } = this.memory;
    const xlat = port + PortLayout.at.batch;
    if (XLAT_BYTES !== 64) throw new Error('fixture: Xlat changed');
    const get = (at: number): number => u32[(xlat + at) >>> 2]!;
    return {
      status: get(Xlat.at.status),
      pa: words.load64(xlat + Xlat.at.pa),
      ipa: words.load64(xlat + Xlat.at.ipa),
      sizeLg2: get(Xlat.at.sizeLg2),
      source: get(Xlat.at.source),
      fault: get(Xlat.at.fault),
      fillSeq: get(Xlat.at.fillSeq),
      level: get(Xlat.at.level),
    };
  }

  leave(index: number): void {
    this.kernel.dmaEnd(this.ports[index]!);
  }

  /** One whole transaction. */
  dma(iova: bigint, flags = 0, index = 0, ssid = NO_SSID): Answer {
    this.begin(index, iova, flags, ssid);
    const answer = this.finish(index);
    this.leave(index);
    return answer;
  }
}
