/**
 * The consumer of the Command queue: fetch, have it executed (command-executor.ts), stop at errors, and CMD_SYNC as
 * a state machine. [IHI0070] 4.7.3 and 7.1.
 *
 * Invalidations take effect at once, so only CMD_SYNC has anything to wait for: DMA under way, and devices that owe
 * the completion of an ATC invalidation. It opens a new epoch generation, leaves CMDQ_CONS standing at itself, and
 * completes in a later step, when every port has left the older generations; translation requests are served
 * meanwhile. Its state lies in the region, so that a thread which takes over finds it.
 */
import type { Words } from '../sync/words.js';
import type { AtcInvalidations } from './atc-invalidations.js';
import type { Bus } from './bus.js';
import * as C from './command.js';
import type { CommandExecutor } from './command-executor.js';
import type { Smmuv3Config } from './config.js';
import type { EpochGate } from './epoch-gate.js';
import type { Interrupts } from './interrupts.js';
import { queueAdvance, queueEmpty, queueIndex, queuePointer } from './queue.js';
import {
  CERROR_ABT,
  CERROR_ATC_INV_SYNC,
  CERROR_ILL,
  CERROR_NONE,
  CMDQ_BASE,
  CMDQ_CONS,
  CR0,
  GERROR,
} from './registers.js';
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

/** The command is a CMD_SYNC, which has begun. */
const BEGUN = -1;

export interface CommandQueueParts {
  readonly bus: Bus;
  /** Base of the SMMU's region. */
  readonly smmu: number;
  readonly config: Smmuv3Config;
  readonly gate: EpochGate;
  readonly interrupts: Interrupts;
  /** All commands but CMD_SYNC. */
  readonly executor: Pick<CommandExecutor, 'execute'>;
  readonly atc: Pick<AtcInvalidations, 'owed' | 'moved' | 'settle' | 'timedOut' | 'giveUp'>;
  readonly trace: Pick<Trace, 'nowNs' | 'command' | 'sync'>;
}

/** Something that a thread parked on consMoved may wait for has changed. @param smmu  base of the SMMU's region */
export function wakeConsWaiters(words: Words, smmu: number): void {
  if (words.load(smmu + at.consParked) === 0) return;
  words.add(smmu + at.consMoved, 1);
  words.notify(smmu + at.consMoved, Number.POSITIVE_INFINITY);
}

export class CommandQueue {
  readonly #words: Words;
  readonly #bus: Bus;
  readonly #base: number;
  readonly #config: Smmuv3Config;
  readonly #executor: CommandQueueParts['executor'];
  readonly #atc: CommandQueueParts['atc'];
  readonly #gate: EpochGate;
  readonly #interrupts: Interrupts;
  readonly #trace: CommandQueueParts['trace'];
  readonly #command = new Uint32Array(C.COMMAND_WORDS);
  /** CMDQ_BASE decoded, and the halves it was decoded from: it changes only while the queue is disabled. */
  #baseLow = -1;
  #baseHigh = -1;
  #start = 0;
  /** Generation of the SYNC that has just begun. */
  #syncGen = 0;
  #log2 = 0;

  constructor(parts: CommandQueueParts) {
    this.#words = parts.bus.memory.words;
    this.#bus = parts.bus;
    this.#base = parts.smmu;
    this.#config = parts.config;
    this.#executor = parts.executor;
    this.#atc = parts.atc;
    this.#gate = parts.gate;
    this.#interrupts = parts.interrupts;
    this.#trace = parts.trace;
  }

  get syncPending(): boolean {
    return this.#words.load(this.#base + at.syncPending) !== 0;
  }

  /** Whether step() would do anything now. */
  hasWork(): boolean {
    if (this.syncPending)
      return this.#atc.moved() || (!this.#atc.owed && this.#gate.passed(this.#load(at.syncGen)));
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
      this.#bus.memory.words.readUnsigned(from, this.#command, 0, C.COMMAND_WORDS);
      const began = this.#trace.nowNs();
      const opcode = C.CMD.OP.get(this.#command);
      const result =
        opcode === C.CMD_SYNC ? this.#beginSync() : this.#executor.execute(this.#command, opcode);
      if (result > 0) {
        this.#stop(cons, result);
        return true;
      }
      this.#trace.command(this.#command, cons, began);
      consumed++;
      if (result === BEGUN) {
        // A SYNC that nobody is in the way of completes at once, and advances CMDQ_CONS.
        if (this.#atc.owed || !this.#syncPassed(this.#syncGen)) {
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
    wakeConsWaiters(this.#words, this.#base);
  }

  /** 7.1: CONS stays at the command, the reason is visible before the error is. */
  #stop(cons: number, reason: number): void {
    this.#words.store(this.#base + at.cmdqCons, CMDQ_CONS.ERR.put(cons, reason));
    this.#interrupts.error(GERROR.CMDQ_ERR.mask);
    this.#wake();
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

  /** @returns whether the pending SYNC is over: complete, or stopped by an error */
  #finishSync(): boolean {
    if (this.#atc.owed && !this.#finishInvalidations()) return false;
    // Read after that: a completion that came late has opened a generation of its own.
    const gen = this.#load(at.syncGen);
    if (this.#load(at.syncPending) === 0) return true;
    if (!this.#syncPassed(gen)) return false;
    this.#words.store(this.#base + at.syncPending, 0);
    const c = this.#command;
    for (let i = 0; i < C.COMMAND_WORDS; i++) c[i] = this.#load(at.syncWord0 + i * 4);
    this.#decodeBase();
    this.#completeSync(queuePointer(this.#load(at.cmdqCons), this.#log2), gen);
    return true;
  }

  /** @returns whether no ATC invalidation is waited for any more, be it that the SYNC has stopped for it */
  #finishInvalidations(): boolean {
    if (this.#atc.settle()) {
      // What a device lets go of only now may be in use until it leaves its epoch.
      this.#words.store(this.#base + at.syncGen, this.#gate.begin());
      return true;
    }
    if (!this.#atc.timedOut()) return false;
    // 4.7.3: the SYNC is not consumed; resumed, it is fetched anew.
    this.#atc.giveUp();
    this.#words.store(this.#base + at.syncPending, 0);
    this.#gate.end();
    this.#decodeBase();
    this.#stop(queuePointer(this.#load(at.cmdqCons), this.#log2), CERROR_ATC_INV_SYNC);
    return true;
  }

  /** The SYNC in #command, at `cons`, has nothing left to wait for. */
  #completeSync(cons: number, gen: number): void {
    const c = this.#command;
    this.#gate.end();
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
