/**
 * One VCMDQ: the consumer of a command queue in memory, as hw/smmuv3/command-queue.ts is of the SMMU's own, with
 * registers that a guest may write at any moment. [T241-CMDQV]; the queue's protocol is [IHI0070] 3.5.1, 4.7.3, 7.1.
 *
 *   disabled --CONFIG.EN, VINTF and CMDQV enabled--> enabled: CONS is the software's until here, the model's from here
 *   enabled  --one of them off, no SYNC under way--> disabled
 *   enabled  --error--> CONS.ERR, GERROR, the error maps, interrupt; goes on when GERRORN follows
 *
 * In a VINTF that the hypervisor does not own: TLBI_NH_VA and _ASID get the VINTF's VMID, ATC_INV the StreamID that
 * stands beside the one it names, CMD_SYNC has to have CS = NONE. All else is CERROR_ILL, and so is a StreamID that
 * no slot matches: what silicon does with that one is not public.
 *
 * Not modelled: writing CONS to memory (CONS_INDX_BASE keeps what it is given, Linux writes 0); a completion signal,
 * which Linux avoids on every VCMDQ: CS other than NONE is CERROR_ILL whoever owns the VINTF.
 */
import type { MachineMemory } from '../memory/machine-memory.js';
import type { AtcInvalidations } from '../smmuv3/atc-invalidations.js';
import { Bus } from '../smmuv3/bus.js';
import * as C from '../smmuv3/command.js';
import type { CommandExecutor } from '../smmuv3/command-executor.js';
import type { CompanionParts } from '../smmuv3/companion.js';
import { queueAdvance, queueEmpty, queueIndex, queuePointer } from '../smmuv3/queue.js';
import { CERROR_ABT, CERROR_ATC_INV_SYNC, CERROR_ILL, CERROR_NONE } from '../smmuv3/registers.js';
import type { Words } from '../sync/words.js';
import { VcmdqRecord, VintfRecord } from './cmdqv-layout.js';
import * as R from './registers.js';

const at = VcmdqRecord.at;
const vintfAt = VintfRecord.at;
const CMDQ_ERR = R.VCMDQ_GERROR.CMDQ_ERR.mask;
/** Commands consumed by one step: none of the queues, nor the SMMU's own, keeps the others waiting. */
const COMMANDS_PER_STEP = 32;
/** [IHI0070] 6.3.26: what an SMMU's queue may have at most. */
const MAX_LOG2 = 19;

/** Where a queue is, and what it shares with its VINTF. */
export interface VcmdqPlace {
  /** Global number. */
  readonly q: number;
  readonly vintf: number;
  readonly lvcmdq: number;
  /** Linear offsets: of its record, of its VINTF's, of its registers in page 0. */
  readonly record: number;
  readonly vintfRecord: number;
  readonly slot: number;
  readonly sids: number;
}

/** What the queue tells the CMDQV that it is part of. */
export interface VcmdqHost {
  consumed(commands: number): void;
  synced(): void;
  /** An error became active, or is active no more: the error maps. */
  error(place: VcmdqPlace, active: boolean): void;
}

export class Vcmdq {
  readonly place: VcmdqPlace;
  readonly #parts: CompanionParts;
  readonly #host: VcmdqHost;
  readonly #words: Words;
  readonly #memory: MachineMemory;
  readonly #bus: Bus;
  readonly #atc: AtcInvalidations;
  readonly #executor: CommandExecutor;
  readonly #command = new Uint32Array(C.COMMAND_WORDS);
  #start = 0;
  #log2 = 0;
  #syncGen = 0;

  constructor(place: VcmdqPlace, parts: CompanionParts, host: VcmdqHost) {
    this.place = place;
    this.#parts = parts;
    this.#host = host;
    this.#words = parts.words;
    this.#memory = parts.memory;
    this.#bus = new Bus(parts.memory);
    this.#atc = parts.newAtc(place.record + at.atcWaiting);
    this.#executor = parts.newExecutor(this.#atc);
    // Another thread may have stepped it before.
    if (this.enabled) this.#decodeBase();
  }

  get enabled(): boolean {
    return this.#own(at.enabled) !== 0;
  }

  get syncPending(): boolean {
    return this.#own(at.syncPending) !== 0;
  }

  /** @param powered  the CMDQV and its VINTF are enabled. @returns whether step() would do anything now */
  hasWork(powered: boolean): boolean {
    if (this.syncPending)
      return this.#atc.moved() || (!this.#atc.owed && this.#parts.gate.passed(this.#own(at.syncGen)));
    if (this.#wanted(powered) !== this.enabled) return true;
    if (this.#own(at.inMaps) !== 0 && !this.#inError()) return true;
    if (this.#overwritten()) return true;
    if (!this.enabled || this.#inError()) return false;
    return !queueEmpty(this.#register(R.VCMDQ_PROD.offset), this.#own(at.cons), this.#log2);
  }

  /** @returns whether anything was done */
  step(powered: boolean): boolean {
    let worked = false;
    if (this.syncPending) {
      if (!this.#finishSync()) return false;
      worked = true;
    }
    const wanted = this.#wanted(powered);
    if (wanted !== this.enabled) {
      if (wanted) this.#enable();
      else this.disable();
      worked = true;
    }
    if (this.#own(at.inMaps) !== 0 && !this.#inError()) {
      this.#setOwn(at.inMaps, 0);
      this.#host.error(this.place, false);
      worked = true;
    }
    if (this.#overwritten()) {
      this.#show();
      worked = true;
    }
    if (!this.enabled || this.#inError()) return worked;
    return this.#consume() || worked;
  }

  /** Takes the queue out of service at once, be it in the middle of a SYNC: its place is given to nobody or another. */
  remove(): void {
    if (this.#own(at.syncPending) !== 0) {
      this.#setOwn(at.syncPending, 0);
      this.#parts.gate.end();
    }
    if (this.enabled) this.disable();
    if (this.#own(at.inMaps) === 0) return;
    this.#setOwn(at.inMaps, 0);
    this.#host.error(this.place, false);
  }

  disable(): void {
    this.#setOwn(at.enabled, 0);
    this.#store(R.VCMDQ_STATUS.offset, 0);
    // What its devices owe is reported to the next SYNC of the SMMU's own queue, as Linux has it.
    this.#atc.handOver(this.#parts.atc);
  }

  #enable(): void {
    this.#decodeBase();
    const cons = queuePointer(this.#register(R.VCMDQ_CONS.offset), this.#log2);
    this.#setOwn(at.cons, cons);
    this.#store(R.VCMDQ_CONS.offset, cons);
    this.#setOwn(at.enabled, 1);
    this.#store(R.VCMDQ_STATUS.offset, R.VCMDQ_STATUS.ENABLED.mask);
  }

  #wanted(powered: boolean): boolean {
    return powered && R.VCMDQ_CONFIG.EN.get(this.#register(R.VCMDQ_CONFIG.offset)) === 1;
  }

  #decodeBase(): void {
    const base = this.#words.load64(this.place.record + at.base);
    this.#log2 = Math.min(Number(R.VCMDQ_BASE.LOG2SIZE.get(base)), MAX_LOG2);
    const size = C.COMMAND_BYTES * 2 ** this.#log2;
    this.#start = Math.floor(Number(R.VCMDQ_BASE.ADDR.get(base)) / size) * size;
  }

  #consume(): boolean {
    const log2 = this.#log2;
    const prod = this.#register(R.VCMDQ_PROD.offset);
    let cons = queuePointer(this.#own(at.cons), log2);
    let consumed = 0;
    while (consumed < COMMANDS_PER_STEP && !queueEmpty(prod, cons, log2)) {
      if (!this.#fetch(this.#start + queueIndex(cons, log2) * C.COMMAND_BYTES)) {
        this.#stop(cons, CERROR_ABT, consumed);
        return true;
      }
      const opcode = C.CMD.OP.get(this.#command);
      const error = opcode === C.CMD_SYNC ? this.#beginSync() : this.#execute(opcode);
      if (error !== CERROR_NONE) {
        this.#stop(cons, error, consumed);
        return true;
      }
      consumed++;
      if (opcode === C.CMD_SYNC) {
        if (this.#atc.owed || !this.#parts.gate.passed(this.#syncGen)) {
          this.#setCons(cons);
          this.#setOwn(at.syncGen, this.#syncGen);
          this.#setOwn(at.syncPending, 1);
          this.#host.consumed(consumed);
          return true;
        }
        this.#parts.gate.end();
        this.#host.synced();
        this.#setCons(queueAdvance(cons, log2));
      }
      cons = queueAdvance(cons, log2);
    }
    if (consumed > 0) {
      this.#setCons(cons);
      this.#host.consumed(consumed);
      this.#words.notify(this.place.slot + R.VCMDQ_CONS.offset, Number.POSITIVE_INFINITY);
    }
    return consumed > 0;
  }

  /** What a guest overwrites meanwhile does not matter: what was read here is what is executed. */
  #fetch(pa: number): boolean {
    const from = this.#memory.linearOf(pa, C.COMMAND_BYTES);
    if (from < 0) return this.#bus.readQuads(pa, C.COMMAND_BYTES / 8, this.#command);
    for (let i = 0; i < C.COMMAND_WORDS; i++) this.#command[i] = this.#words.load(from + i * 4);
    return true;
  }

  #execute(opcode: number): number {
    const c = this.#command;
    const config = this.#words.load(this.place.vintfRecord + vintfAt.config);
    if (R.VINTF_CONFIG.HYP_OWN.get(config) === 1) return this.#executor.execute(c, opcode);
    switch (opcode) {
      case C.CMD_TLBI_NH_ASID:
      case C.CMD_TLBI_NH_VA:
        C.CMD_TLBI.VMID.put(c, R.VINTF_CONFIG.VMID.get(config));
        return this.#executor.execute(c, opcode);
      case C.CMD_ATC_INV: {
        const sid = this.#replace(C.CMD_ATC.StreamID.get(c));
        if (sid < 0) return CERROR_ILL;
        C.CMD_ATC.StreamID.put(c, sid);
        return this.#executor.execute(c, opcode);
      }
      default:
        return CERROR_ILL;
    }
  }

  /** @returns the physical StreamID beside this virtual one, or -1 */
  #replace(vsid: number): number {
    const { vintfRecord, sids } = this.place;
    for (let i = 0; i < sids; i++) {
      const match = this.#words.load(vintfRecord + vintfAt.sidMatch + i * 4);
      if (R.SID_MATCH.VALID.get(match) === 1 && R.SID_MATCH.SID.get(match) === vsid)
        return this.#words.load(vintfRecord + vintfAt.sidReplace + i * 4) >>> 0;
    }
    return -1;
  }

  // ---- CMD_SYNC ----

  #beginSync(): number {
    if (C.CMD_SYNC_FIELDS.CS.get(this.#command) !== C.SYNC_CS_NONE) return CERROR_ILL;
    this.#syncGen = this.#parts.gate.begin();
    return CERROR_NONE;
  }

  /** @returns whether the pending SYNC is over: complete, or stopped by an error */
  #finishSync(): boolean {
    const { gate } = this.#parts;
    const cons = queuePointer(this.#own(at.cons), this.#log2);
    if (this.#atc.owed) {
      if (this.#atc.settle()) this.#setOwn(at.syncGen, gate.begin());
      else if (this.#atc.timedOut()) {
        this.#atc.giveUp();
        this.#setOwn(at.syncPending, 0);
        gate.end();
        this.#stop(cons, CERROR_ATC_INV_SYNC, 0);
        return true;
      } else return false;
    }
    if (!gate.passed(this.#own(at.syncGen))) return false;
    this.#setOwn(at.syncPending, 0);
    gate.end();
    this.#host.synced();
    this.#setCons(queueAdvance(cons, this.#log2));
    this.#words.notify(this.place.slot + R.VCMDQ_CONS.offset, Number.POSITIVE_INFINITY);
    return true;
  }

  // ---- registers ----

  #own(offset: number): number {
    return this.#words.load(this.place.record + offset);
  }

  #setOwn(offset: number, value: number): void {
    this.#words.store(this.place.record + offset, value);
  }

  /** In the page: what a guest may have written. */
  #register(offset: number): number {
    return this.#words.load(this.place.slot + offset);
  }

  #store(offset: number, value: number): void {
    this.#words.store(this.place.slot + offset, value);
  }

  #setCons(cons: number): void {
    this.#setOwn(at.cons, cons);
    this.#store(R.VCMDQ_CONS.offset, cons);
  }

  /** Whether the page does not say what is: software has written to what is read-only. */
  #overwritten(): boolean {
    return (
      this.#register(R.VCMDQ_STATUS.offset) !== this.#own(at.enabled) ||
      this.#register(R.VCMDQ_GERROR.offset) !== this.#own(at.gerror) ||
      (this.enabled && this.#register(R.VCMDQ_CONS.offset) !== this.#own(at.cons))
    );
  }

  #show(): void {
    this.#store(R.VCMDQ_STATUS.offset, this.#own(at.enabled));
    this.#store(R.VCMDQ_GERROR.offset, this.#own(at.gerror));
    if (this.enabled) this.#store(R.VCMDQ_CONS.offset, this.#own(at.cons));
  }

  #inError(): boolean {
    return ((this.#own(at.gerror) ^ this.#register(R.VCMDQ_GERRORN.offset)) & CMDQ_ERR) !== 0;
  }

  /** CONS stays at the command, the reason is visible before the error is. */
  #stop(cons: number, reason: number, consumed: number): void {
    if (consumed > 0) this.#host.consumed(consumed);
    this.#setCons(R.VCMDQ_CONS.ERR.put(cons, reason));
    const gerror = this.#own(at.gerror) ^ CMDQ_ERR;
    this.#setOwn(at.gerror, gerror);
    this.#store(R.VCMDQ_GERROR.offset, gerror);
    this.#setOwn(at.inMaps, 1);
    this.#host.error(this.place, true);
    this.#words.notify(this.place.slot + R.VCMDQ_CONS.offset, Number.POSITIVE_INFINITY);
  }
}
