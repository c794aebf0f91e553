/**
 * The consumer of the Command queue: fetch, execute, stop at errors, and CMD_SYNC as a state machine.
 * [IHI0070] 4 and 7.1.
 *
 * Invalidations take effect at once, so only CMD_SYNC has anything to wait for: DMA under way. It opens a new
 * epoch generation, leaves CMDQ_CONS standing at itself, and completes in a later step, when every port has left
 * the older generations; translation requests are served meanwhile. Its state lies in the region, so that a
 * thread which takes over finds it.
 *
 * Leaf and TTL hints are ignored (over-invalidation is allowed); no table pointers are cached across commands.
 */
import type { Kernel } from '../kernel/kernel.js';
import type { Words } from '../sync/words.js';
import type { Bus } from './bus.js';
import * as C from './command.js';
import type { Smmuv3Config } from './config.js';
import type { ConfigCache } from './config-cache.js';
import type { EpochGate } from './epoch-gate.js';
import type { Interrupts } from './interrupts.js';
import type { Log } from './mmio.js';
import { queueAdvance, queueEmpty, queueIndex, queuePointer } from './queue.js';
import type { Smmuv3Regions } from './regions.js';
import { CERROR_ABT, CERROR_ILL, CERROR_NONE, CMDQ_BASE, CMDQ_CONS, CR0, GERROR } from './registers.js';
import { Smmuv3Layout } from './smmuv3-layout.js';
import type { Trace } from './trace.js';

const at = Smmuv3Layout.at;

/** Commands consumed by one step, so that translation requests are not kept waiting. */
const COMMANDS_PER_STEP = 64;
/**
 * Commands consumed between two updates of CMDQ_CONS: a producer may be waiting for room, but every update takes
 * the register's cache line away from whoever watches it. 4.7.3 asks for it at a CMD_SYNC.
 */
const COMMANDS_PER_UPDATE = 16;
/** Input pages: bits 63:12. */
const PAGES = 2 ** 52;
/** IPA pages that a command can name: bits 51:12. */
const IPA_PAGES = 2 ** 40;
/** log2 of 4 KiB pages in a granule, by TG. */
const GRANULE_PAGES_LG2: readonly number[] = [0, 0, 2, 4];

/** execute() says: the command is a CMD_SYNC, which has begun. */
const BEGUN = -1;

export class CommandQueue {
  readonly #words: Words;
  readonly #bus: Bus;
  readonly #kernel: Kernel;
  readonly #regions: Smmuv3Regions;
  readonly #base: number;
  readonly #config: Smmuv3Config;
  readonly #configs: ConfigCache;
  readonly #gate: EpochGate;
  readonly #interrupts: Interrupts;
  readonly #trace: Trace;
  readonly #log: Log;
  readonly #logged = new Set<number>();
  readonly #command = new Uint32Array(C.COMMAND_WORDS);
  /** CMDQ_BASE decoded, and the halves it was decoded from: it changes only while the queue is disabled. */
  #baseLow = -1;
  #baseHigh = -1;
  #start = 0;
  /** Generation of the SYNC that has just begun. */
  #syncGen = 0;
  #log2 = 0;

  constructor(parts: {
    bus: Bus;
    kernel: Kernel;
    regions: Smmuv3Regions;
    config: Smmuv3Config;
    configs: ConfigCache;
    gate: EpochGate;
    interrupts: Interrupts;
    trace: Trace;
    log: Log;
  }) {
    this.#words = parts.bus.memory.words;
    this.#bus = parts.bus;
    this.#kernel = parts.kernel;
    this.#regions = parts.regions;
    this.#base = parts.regions.smmu;
    this.#config = parts.config;
    this.#configs = parts.configs;
    this.#gate = parts.gate;
    this.#interrupts = parts.interrupts;
    this.#trace = parts.trace;
    this.#log = parts.log;
  }

  get syncPending(): boolean {
    return this.#words.load(this.#base + at.syncPending) !== 0;
  }

  /** Whether step() would do anything now. */
  hasWork(): boolean {
    if (this.syncPending) return this.#gate.passed(this.#words.load(this.#base + at.syncGen));
    if (!this.#running()) return false;
    this.#decodeBase();
    return !queueEmpty(this.#load(at.cmdqProd), this.#load(at.cmdqCons), this.#log2);
  }

  /** @returns whether a command was consumed or an error raised */
  step(): boolean {
    let worked = false;
    if (this.syncPending) {
      if (!this.#finishSync()) return false;
      worked = true;
    }
    if (!this.#running()) return worked;
    this.#decodeBase();
    const log2 = this.#log2;
    const start = this.#start;
    const prod = this.#load(at.cmdqProd);
    let cons = queuePointer(this.#load(at.cmdqCons), log2);
    let consumed = 0;
    let unpublished = 0;
    while (consumed < COMMANDS_PER_STEP && !queueEmpty(prod, cons, log2)) {
      const from = this.#bus.memory.linearOf(
        start + queueIndex(cons, log2) * C.COMMAND_BYTES,
        C.COMMAND_BYTES,
      );
      if (from < 0) {
        this.#stop(cons, CERROR_ABT);
        return true;
      }
      // Plain reads: commands below PROD, which was read atomically, belong to the SMMU.
      const word = from >>> 2;
      for (let i = 0; i < C.COMMAND_WORDS; i++) this.#command[i] = this.#bus.memory.u32[word + i]!;
      const began = this.#trace.nowNs();
      const result = this.#execute();
      if (result > 0) {
        this.#stop(cons, result);
        return true;
      }
      this.#trace.command(this.#command, cons, began);
      consumed++;
      if (result === BEGUN) {
        // A SYNC that nobody is in the way of completes at once, and advances CMDQ_CONS.
        if (!this.#syncPassed(this.#syncGen)) {
          this.#setCons(cons);
          this.#suspendSync();
          unpublished = 0;
          break;
        }
        this.#completeSync(cons, this.#syncGen);
        unpublished = -1;
      }
      cons = queueAdvance(cons, log2);
      if (++unpublished < COMMANDS_PER_UPDATE) continue;
      this.#setCons(cons);
      unpublished = 0;
    }
    if (unpublished > 0) this.#setCons(cons);
    if (consumed > 0) {
      this.#words.add(this.#base + at.commandsConsumed, consumed);
      this.#wake();
    }
    return worked || consumed > 0;
  }

  #load(offset: number): number {
    return this.#words.load(this.#base + offset);
  }

  #decodeBase(): void {
    const low = this.#load(at.cmdqBase);
    const high = this.#load(at.cmdqBase + 4);
    if (low === this.#baseLow && high === this.#baseHigh) return;
    this.#baseLow = low;
    this.#baseHigh = high;
    const queue = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    this.#log2 = Math.min(Number(CMDQ_BASE.LOG2SIZE.get(queue)), this.#config.cmdqLog2);
    // 6.3.26: the queue is aligned to its size, low bits of ADDR are zero whatever was written.
    const size = C.COMMAND_BYTES * 2 ** this.#log2;
    this.#start = Math.floor(Number(CMDQ_BASE.ADDR.get(queue)) / size) * size;
  }

  /** Enabled, acknowledged, and no error active. */
  #running(): boolean {
    return (
      CR0.CMDQEN.get(this.#load(at.cr0) & this.#load(at.cr0ack)) === 1 &&
      !this.#interrupts.active(GERROR.CMDQ_ERR.mask)
    );
  }

  #setCons(cons: number): void {
    this.#words.store(this.#base + at.cmdqCons, CMDQ_CONS.ERR.put(cons, CERROR_NONE));
  }

  #wake(): void {
    if (this.#load(at.consParked) !== 0)
      this.#words.notify(this.#base + at.cmdqCons, Number.POSITIVE_INFINITY);
  }

  /** 7.1: CONS stays at the command, the reason is visible before the error is. */
  #stop(cons: number, reason: number): void {
    this.#words.store(this.#base + at.cmdqCons, CMDQ_CONS.ERR.put(cons, reason));
    this.#interrupts.error(GERROR.CMDQ_ERR.mask);
    this.#wake();
  }

  // ---- execution ----

  /** @returns CERROR_NONE, another CERROR_*, or BEGUN */
  #execute(): number {
    const c = this.#command;
    const opcode = C.CMD.OP.get(c);
    switch (opcode) {
      case C.CMD_PREFETCH_CONFIG:
      case C.CMD_PREFETCH_ADDR:
        // A hint: nothing is prefetched, and a faulty configuration is not reported.
        return C.CMD.SSec.get(c) === 1 ? CERROR_ILL : CERROR_NONE;
      case C.CMD_CFGI_STE:
      case C.CMD_CFGI_STE_RANGE:
      case C.CMD_CFGI_CD:
      case C.CMD_CFGI_CD_ALL:
        return this.#configuration(opcode);
      case C.CMD_TLBI_NH_ALL:
      case C.CMD_TLBI_NH_ASID:
      case C.CMD_TLBI_NH_VA:
      case C.CMD_TLBI_NH_VAA:
        return this.#config.stages === 's2' ? CERROR_ILL : this.#stage1(opcode);
      case C.CMD_TLBI_S12_VMALL:
      case C.CMD_TLBI_S2_IPA:
        return this.#config.stages === 's1' ? CERROR_ILL : this.#stage2(opcode);
      case C.CMD_TLBI_NSNH_ALL:
        if (!this.#config.bugs.skipTlbi)
          this.#kernel.iotlbInvalidateAll(this.#regions.unit, this.#regions.iotlb);
        return CERROR_NONE;
      case C.CMD_SYNC:
        return this.#beginSync();
      default:
        this.#refuse(opcode);
        return CERROR_ILL;
    }
  }

  #configuration(opcode: number): number {
    const c = this.#command;
    if (C.CMD.SSec.get(c) === 1) return CERROR_ILL;
    const sid = C.CMD_CFGI.StreamID.get(c);
    if (opcode === C.CMD_CFGI_STE_RANGE) {
      const range = C.CMD_CFGI_RANGE.Range.get(c);
      if (range === 31) this.#configs.invalidateAll();
      else this.#configs.invalidateRange(sid, range);
    } else if (opcode === C.CMD_CFGI_CD) {
      this.#configs.invalidateCd(sid, C.CMD_CFGI.SubstreamID.get(c));
    } else if (opcode === C.CMD_CFGI_CD_ALL) {
      this.#configs.invalidateCds(sid);
    } else {
      this.#configs.invalidate(sid);
    }
    return CERROR_NONE;
  }

  #stage1(opcode: number): number {
    const c = this.#command;
    const { unit, iotlb } = this.#regions;
    const vmid = this.#vmid();
    const asid = C.CMD_TLBI.ASID.get(c) & (this.#config.asidBits === 8 ? 0xff : 0xffff);
    const skip = this.#config.bugs.skipTlbi === true;
    if (opcode === C.CMD_TLBI_NH_ALL) {
      if (!skip) this.#kernel.iotlbInvalidateVmid(iotlb, vmid, true);
      return CERROR_NONE;
    }
    if (opcode === C.CMD_TLBI_NH_ASID) {
      if (!skip) this.#kernel.iotlbInvalidateAsid(iotlb, vmid, asid);
      return CERROR_NONE;
    }
    const pages = this.#pages();
    if (pages < 0) return CERROR_ILL;
    const page = C.CMD_TLBI.Page.get(c);
    const match = opcode === C.CMD_TLBI_NH_VAA ? -1 : asid;
    if (!skip) this.#kernel.iotlbInvalidateVa(unit, iotlb, vmid, match, page, Math.min(pages, PAGES - page));
    return CERROR_NONE;
  }

  #stage2(opcode: number): number {
    const c = this.#command;
    const { unit, iotlb } = this.#regions;
    const vmid = this.#vmid();
    const skip = this.#config.bugs.skipTlbi === true;
    if (opcode === C.CMD_TLBI_S12_VMALL) {
      if (!skip) this.#kernel.iotlbInvalidateVmid(iotlb, vmid, false);
      return CERROR_NONE;
    }
    const pages = this.#pages();
    if (pages < 0) return CERROR_ILL;
    const page = C.CMD_TLBI.Page.get(c) % IPA_PAGES;
    if (!skip) this.#kernel.iotlbInvalidateIpa(unit, iotlb, vmid, page, Math.min(pages, IPA_PAGES - page));
    return CERROR_NONE;
  }

  /** Without stage 2, everything is tagged VMID 0. */
  #vmid(): number {
    if (this.#config.stages === 's1') return 0;
    return C.CMD_TLBI.VMID.get(this.#command) & (this.#config.vmidBits === 8 ? 0xff : 0xffff);
  }

  /** 4.4.1.1. @returns 4 KiB pages that an address-based TLBI covers, or -1 for a reserved encoding */
  #pages(): number {
    const c = this.#command;
    const tg = C.CMD_TLBI.TG.get(c);
    if (tg === C.TG_ANY) return 1;
    const num = C.CMD_TLBI.NUM.get(c);
    const scale = C.CMD_TLBI.SCALE.get(c);
    let ttl = C.CMD_TLBI.TTL.get(c);
    // Without 52-bit addresses there is no level-1 leaf of 16 KiB granule.
    if (tg === C.TG_16K && ttl === 1) ttl = 0;
    if (num === 0 && scale === 0 && ttl === 0) return -1;
    return (num + 1) * 2 ** (scale + GRANULE_PAGES_LG2[tg]!);
  }

  #refuse(opcode: number): void {
    if (this.#logged.has(opcode)) return;
    this.#logged.add(opcode);
    const name = C.COMMAND_NAMES[opcode] ?? `command 0x${opcode.toString(16)}`;
    this.#log(`smmuv3: ${name} is not implemented: CERROR_ILL`);
  }

  // ---- CMD_SYNC ----

  #beginSync(): number {
    const c = this.#command;
    if (C.CMD_SYNC_FIELDS.CS.get(c) === 3) return CERROR_ILL;
    this.#syncGen = this.#gate.begin();
    return BEGUN;
  }

  /** The SYNC in #command waits for ports: it is kept where whoever hosts the SMMU next finds it. */
  #suspendSync(): void {
    const words = this.#words;
    const c = this.#command;
    words.store(this.#base + at.syncGen, this.#syncGen);
    words.store(this.#base + at.syncWord0, c[0]!);
    words.store(this.#base + at.syncWord1, c[1]!);
    words.store(this.#base + at.syncWord2, c[2]!);
    words.store(this.#base + at.syncWord3, c[3]!);
    words.store(this.#base + at.syncPending, 1);
  }

  #syncPassed(gen: number): boolean {
    return this.#config.bugs.earlySync === true || this.#gate.passed(gen);
  }

  /** @returns whether the pending SYNC is now complete */
  #finishSync(): boolean {
    const gen = this.#load(at.syncGen);
    if (!this.#syncPassed(gen)) return false;
    this.#words.store(this.#base + at.syncPending, 0);
    const c = this.#command;
    for (let i = 0; i < C.COMMAND_WORDS; i++) c[i] = this.#load(at.syncWord0 + i * 4);
    this.#decodeBase();
    this.#completeSync(queuePointer(this.#load(at.cmdqCons), this.#log2), gen);
    return true;
  }

  /** The SYNC in #command, at `cons`, has nothing left to wait for. */
  #completeSync(cons: number, gen: number): void {
    const c = this.#command;
    if (this.#load(at.updatePending) === 0) this.#gate.end();
    const seq = (this.#words.add(this.#base + at.syncSeq, 1) + 1) >>> 0;
    this.#trace.sync(seq, cons, gen);
    // 4.7.3: whoever sees the signal must find the command consumed.
    this.#setCons(queueAdvance(cons, this.#log2));
    this.#wake();
    const cs = C.CMD_SYNC_FIELDS.CS.get(c);
    if (cs === C.SYNC_CS_IRQ)
      this.#interrupts.cmdSync(C.CMD_SYNC_FIELDS.MSIAddress.get(c), C.CMD_SYNC_FIELDS.MSIData.get(c));
    else if (cs === C.SYNC_CS_SEV) this.#interrupts.sev();
  }
}
