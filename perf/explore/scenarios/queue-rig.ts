/**
 * The driver's command queue and the SMMU's, both the real ones, with nothing around them: producers issue() lists of
 * numbered commands, and a thread of the SMMU consumes them. No machine, so that a schedule is short.
 *
 *   p0 (sets up)  p1 ..   runtime/drivers/smmuv3/cmdq.ts  --ring, registers-->  hw/smmuv3/command-queue.ts   smmu
 *
 * A command is CMD_PREFETCH_CONFIG; its StreamID says whose it is. The one that the SMMU refuses has an opcode of its
 * own.
 */
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { MachineMemory, type MemoryHandle } from '../../../hw/memory/machine-memory.js';
import { Bus } from '../../../hw/smmuv3/bus.js';
import {
  CMD,
  CMD_PREFETCH,
  CMD_PREFETCH_CONFIG,
  CMD_SYNC,
  COMMAND_WORDS,
} from '../../../hw/smmuv3/command.js';
import { CommandQueue as HardwareQueue } from '../../../hw/smmuv3/command-queue.js';
import { identification, smmuv3Config } from '../../../hw/smmuv3/config.js';
import { EpochGate } from '../../../hw/smmuv3/epoch-gate.js';
import { Interrupts } from '../../../hw/smmuv3/interrupts.js';
import { queueUsed } from '../../../hw/smmuv3/queue.js';
import { CERROR_ILL, CERROR_NONE, CMDQ_BASE, CMDQ_PROD, CR0 } from '../../../hw/smmuv3/registers.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { Doorbell } from '../../../hw/sync/doorbell.js';
import { CommandQueue, type CommandQueueHost } from '../../../runtime/drivers/smmuv3/cmdq.js';
import { CMDQ_FLAG_MSI, DriverLayout, driverKey } from '../../../runtime/drivers/smmuv3/driver-layout.js';
import { serveGerror } from '../../../runtime/drivers/smmuv3/gerror.js';
import { smmuAccess } from '../../../runtime/drivers/smmuv3/queue-host.js';
import { runUnit } from '../../../workers/unit-loop.js';
import type { Scenario, ThreadBody, ThreadContext } from '../scenario.js';
import { defineScenario } from '../scenario.js';
import { CALLS, commandValue, QueueHistory } from './queue-history.js';

/** The smallest queue that the driver takes. */
const LG2 = 7;
export const SLOTS = 2 ** LG2;
const at = Smmuv3Layout.at;

const MEMORY_BYTES = 128 * 1024;
const RAM = { linear: 96 * 1024, basePa: 0x8000_0000, bytes: 32 * 1024 };
/** The port of `dma`: only the word that says which epoch it is in. */
const PORT = RAM.linear + 16 * 1024;
const CONFIG = smmuv3Config({ index: 0, cmdqLog2: LG2, ats: false, stalls: 'none' });
/** Opcode that no SMMU has. */
const REFUSED = 0x7f;
/** Whoever fills the queue before the schedule begins. */
const SETUP = 7;

/** Ghost words beyond the history's. */
const GHOST = 1016;
const ANNOUNCED = GHOST;
const REFUSALS = GHOST + 1;
const FULL = GHOST + 2;
/** CMDQ_CONS at the beginning. */
const FIRST = GHOST + 3;
const LAST_REFUSED = GHOST + 4;

export interface QueueScenario {
  readonly name: string;
  readonly about: string;
  /** The first is broken when the SMMU takes what it should not. */
  readonly checks: readonly string[];
  /** Of the producers, what each does. */
  readonly producers: readonly ((producer: Producer) => void)[];
  /** PROD and CONS before the schedule, 0..2 * SLOTS - 1. */
  readonly start?: number;
  /** Commands on the queue that the SMMU has not taken yet. */
  readonly waiting?: number;
  /** A SYNC tells its waiter by MSI. */
  readonly msi?: boolean;
  /** A device is in the middle of DMA when the schedule begins: a SYNC has to wait until it leaves. */
  readonly dma?: boolean;
  /** After how long a wait ends in -ETIMEDOUT, virtual time; default: time-outs mean that somebody was not woken. */
  readonly deadlineNs?: number;
  /** The producers' stores to the queue become visible late. */
  readonly storeBuffer?: boolean;
  /** At the end, all commands taken. */
  readonly check?: (rig: Rig) => void;
}

/** p0, p1, .. and the SMMU. */
export function queueScenario(spec: QueueScenario): Scenario {
  const names = spec.producers.map((_, index) => `p${index}`);
  const first = (ctx: ThreadContext): ThreadBody => {
    const rig = Rig.setUp(ctx, spec);
    return {
      run: () => spec.producers[0]!(rig.producer(0)),
      check: () => {
        rig.drain();
        spec.check?.(rig);
      },
    };
  };
  return defineScenario({
    name: spec.name,
    about: spec.about,
    checks: spec.checks,
    memory: { bytes: MEMORY_BYTES },
    ...(spec.storeBuffer === true && { storeBuffer: names }),
    ...(spec.deadlineNs !== undefined && { timeouts: true }),
    threads: [
      { name: 'p0', program: first },
      ...names.slice(1).map((name, i) => ({
        name,
        program: (ctx: ThreadContext) => {
          const producer = Rig.attach(ctx, spec).producer(i + 1);
          return () => spec.producers[i + 1]!(producer);
        },
      })),
      ...(spec.dma === true
        ? [{ name: 'device', program: (ctx: ThreadContext) => Rig.attach(ctx, spec).device() }]
        : []),
      { name: 'smmu', daemon: true, program: (ctx) => Rig.attach(ctx, spec).smmu() },
    ],
  });
}

export class Rig {
  readonly ctx: ThreadContext;
  readonly history: QueueHistory;
  readonly #spec: QueueScenario;
  readonly #memory: MachineMemory;
  readonly #smmu: number;
  readonly #unit: number;
  readonly #driver: number;

  private constructor(ctx: ThreadContext, spec: QueueScenario, memory: MachineMemory) {
    this.ctx = ctx;
    this.history = new QueueHistory(ctx.ghost.subarray(0, GHOST));
    this.#spec = spec;
    this.#memory = memory;
    this.#smmu = memory.region(Smmuv3Layout, 'smmuv3:0').base;
    this.#unit = memory.region(UnitLayout, 'unit:0').base;
    this.#driver = memory.region(DriverLayout, driverKey(0)).base;
  }

  static attach(ctx: ThreadContext, spec: QueueScenario): Rig {
    const regions = ctx.published() as MemoryHandle['regions'];
    return new Rig(ctx, spec, MachineMemory.attach({ memory: ctx.memory, ram: RAM, regions }));
  }

  static setUp(ctx: ThreadContext, spec: QueueScenario): Rig {
    const memory = MachineMemory.attach({ memory: ctx.memory, ram: RAM, regions: {} });
    memory.allocRegion(Smmuv3Layout, 'smmuv3:0');
    memory.allocRegion(UnitLayout, 'unit:0');
    memory.allocRegion(DriverLayout, driverKey(0));
    ctx.publish(memory.handle().regions);
    ctx.lateStores(RAM.linear, RAM.linear + RAM.bytes - 1);
    const rig = new Rig(ctx, spec, memory);
    rig.#reset();
    rig.#fill();
    return rig;
  }

  #reset(): void {
    const { words } = this.#memory;
    const id = identification(CONFIG);
    words.store(this.#unit + UnitLayout.at.gen, 1);
    words.store(this.#smmu + at.idr0, id.idr0);
    words.store(this.#smmu + at.idr1, id.idr1);
    words.store64(this.#smmu + at.cmdqBase, CMDQ_BASE.LOG2SIZE.put(BigInt(RAM.basePa), BigInt(LG2)));
    words.store(this.#smmu + at.cr0, CR0.CMDQEN.mask);
    words.store(this.#smmu + at.cr0ack, CR0.CMDQEN.mask);
    CommandQueue.reset(this.#memory, 0, {
      linear: RAM.linear,
      lg2: LG2,
      flags: this.#spec.msi === true ? CMDQ_FLAG_MSI : 0,
    });
  }

  /** Real commands through real code, so that what lies in the slots and in the valid map is what would lie there. */
  #fill(): void {
    const { start = 0, waiting = 0 } = this.#spec;
    const queue = this.#queue();
    // A call that the history does not know: taken again, it is a stale slot that is found out.
    const cmds = commands(commandValue(SETUP, CALLS - 1, 0), Math.max(SLOTS / 2, waiting), -1);
    const hardware = this.#hardware(() => undefined);
    for (let left = start; left > 0; left -= SLOTS / 2) {
      queue.issue(cmds, Math.min(left, SLOTS / 2), false);
      while (hardware.step());
    }
    if (waiting > 0) this.#producer(SETUP, queue).put(waiting);
    if (this.#spec.dma === true) this.#beginDma();
    this.ctx.ghost[ANNOUNCED] = this.#prod();
    this.ctx.ghost[FIRST] = this.#cons();
  }

  producer(index: number): Producer {
    return this.#producer(index, this.#queue());
  }

  /** The SMMU's thread. */
  smmu(): () => void {
    const { ctx } = this;
    const model = this.#recording();
    return () =>
      void runUnit({
        model,
        words: ctx.words,
        clock: ctx.clock,
        unit: this.#unit,
        stopping: () => false,
        spin: false,
      });
  }

  /** The device of `dma`: it leaves its epoch. */
  device(): () => void {
    const { words } = this.#memory;
    const { doorbell, doorbellParked } = UnitLayout.at;
    const bell = new Doorbell(this.ctx.env, this.#unit + doorbell, this.#unit + doorbellParked);
    return () => {
      words.store(PORT + PortLayout.at.ack, 0);
      if (words.load(this.#unit + UnitLayout.at.syncWaiting) !== 0) bell.ring();
    };
  }

  #beginDma(): void {
    const { words } = this.#memory;
    words.store(this.#unit + UnitLayout.at.ports, PORT);
    words.store(this.#unit + UnitLayout.at.portCount, 1);
    words.store(PORT + PortLayout.at.ack, words.load(this.#unit + UnitLayout.at.gen));
  }

  /** What nobody waited for is taken as well. After the schedule, which may have ended in the middle of a step. */
  drain(): void {
    const published = queueUsed(this.#cons(), this.ctx.ghost[FIRST]!, LG2);
    const model = this.#recording(this.history.taken - published);
    while (model.step());
  }

  /** Commands that the SMMU refused, and how many the driver says it has replaced. */
  get refused(): number {
    return this.ctx.ghost[REFUSALS]!;
  }

  get skipped(): number {
    return this.#memory.i32[(this.#driver + DriverLayout.at.skipped) >> 2]!;
  }

  /** Whether a list found the queue without room for it. */
  get wasFull(): boolean {
    return this.ctx.ghost[FULL] !== 0;
  }

  /** Whether CMDQ_PROD went round the end of the queue. */
  get wrapped(): boolean {
    const { start = 0, waiting = 0 } = this.#spec;
    return ((this.#prod() ^ (start + waiting)) & SLOTS) !== 0;
  }

  /** Whether the history is one of a sequential queue. */
  checkHistory(): void {
    const story = this.history.explain(SLOTS);
    this.ctx.check('R17', story === null, () => story ?? '');
  }

  #prod(): number {
    return this.#memory.i32[(this.#smmu + at.cmdqProd) >> 2]!;
  }

  #cons(): number {
    return this.#memory.i32[(this.#smmu + at.cmdqCons) >> 2]!;
  }

  #producer(index: number, queue: CommandQueue): Producer {
    const full = (slots: number): void => {
      const llq = this.#memory.i32[(this.#driver + DriverLayout.at.llq) >> 2]!;
      if (queueUsed(llq & 0x7fff, this.#cons(), LG2) + slots > SLOTS) this.ctx.ghost[FULL] = 1;
    };
    const serve = (): void => {
      const { registers } = smmuAccess(this.#memory, this.ctx.env, 0, (text) => this.ctx.note(text));
      serveGerror(this.ctx.words, this.#driver, registers, this.ctx.env.bugs);
    };
    return new Producer(this.ctx, index, queue, this.history, full, serve);
  }

  #queue(): CommandQueue {
    const { ctx } = this;
    const access = smmuAccess(this.#memory, ctx.env, 0, (text) => ctx.note(text));
    const host: CommandQueueHost = {
      ...access,
      registers: {
        read32: (offset) => access.registers.read32(offset),
        write32: (offset, value) => {
          if (offset === CMDQ_PROD.offset) this.#announce(value);
          access.registers.write32(offset, value);
        },
      },
    };
    const { deadlineNs } = this.#spec;
    return CommandQueue.attach(
      this.#memory,
      ctx.env,
      0,
      host,
      deadlineNs === undefined ? {} : { deadlineNs },
    );
  }

  /** CMDQ_PROD is about to be written: by one owner at a time, forwards, and over no slot that is still in use. */
  #announce(prod: number): void {
    const { ctx } = this;
    const now = this.#prod();
    if (ctx.checks.includes('R17')) {
      const before = ctx.ghost[ANNOUNCED]!;
      ctx.check(
        'R17',
        now === before,
        () => `CMDQ_PROD := ${prod} while ${before} is being written over ${now}`,
      );
      ctx.check(
        'R17',
        queueUsed(prod, now, LG2) <= SLOTS,
        () => `CMDQ_PROD goes back from ${now} to ${prod}`,
      );
    }
    if (ctx.checks.includes('R18')) {
      const used = queueUsed(prod, this.#cons(), LG2);
      ctx.check('R18', used <= SLOTS, () => `CMDQ_PROD gives ${used} commands to a queue of ${SLOTS}`);
    }
    ctx.ghost[ANNOUNCED] = prod;
  }

  /** @param taken  commands from CMDQ_CONS on that the history has already */
  #recording(taken = 0): HardwareQueue {
    const { ctx, history } = this;
    let left = taken;
    const isNew = (): boolean => left-- <= 0;
    const take = (value: number): void => {
      const wrong = history.take(value);
      if (wrong !== null) ctx.check(this.#spec.checks[0]!, false, () => wrong);
    };
    return this.#hardware(
      (value) => isNew() && take(value),
      () => isNew() && history.takeSync(),
    );
  }

  #hardware(take: (value: number) => void, takeSync: () => void = () => undefined): HardwareQueue {
    const bus = new Bus(this.#memory);
    const smmu = this.#smmu;
    return new HardwareQueue({
      bus,
      smmu,
      config: CONFIG,
      gate: new EpochGate(this.#memory.words, this.#unit),
      interrupts: new Interrupts(bus, smmu),
      executor: {
        execute: (command, opcode) => {
          const value = CMD_PREFETCH.StreamID.get(command);
          if (opcode === REFUSED) return this.#refuse(value);
          take(opcode === CMD_PREFETCH_CONFIG ? value : 0);
          return CERROR_NONE;
        },
      },
      // Nobody here has an address translation cache, or a trace: what is told of is kept in the history.
      atc: {
        owed: false,
        moved: () => false,
        settle: () => true,
        timedOut: () => false,
        giveUp: () => undefined,
      },
      trace: {
        nowNs: () => 0,
        sync: () => undefined,
        command: (command) => {
          if (CMD.OP.get(command) === CMD_SYNC) takeSync();
        },
      },
    });
  }

  #refuse(value: number): number {
    const { ctx } = this;
    const again = ctx.ghost[LAST_REFUSED] === value;
    ctx.check(
      'R19',
      !again,
      () => `the SMMU goes on with the command that it refused: 0x${value.toString(16)}`,
    );
    ctx.ghost[LAST_REFUSED] = value;
    ctx.ghost[REFUSALS]!++;
    return CERROR_ILL;
  }
}

/** One thread that gives commands. */
export class Producer {
  readonly ctx: ThreadContext;
  readonly index: number;
  readonly #queue: CommandQueue;
  readonly #history: QueueHistory;
  readonly #full: (slots: number) => void;
  /** What the core does when it polls an SMMU: it looks for an error, and goes. */
  readonly serveErrors: () => void;
  #calls = 0;

  constructor(
    ctx: ThreadContext,
    index: number,
    queue: CommandQueue,
    history: QueueHistory,
    full: (slots: number) => void,
    serveErrors: () => void,
  ) {
    this.ctx = ctx;
    this.index = index;
    this.#queue = queue;
    this.#history = history;
    this.#full = full;
    this.serveErrors = serveErrors;
  }

  /** A list without a SYNC. */
  put(n: number): void {
    this.#issue(n, false, -1);
  }

  /** A list with a SYNC. @param invariant  what is broken when it comes back too early, or not at all */
  sync(n: number, invariant = 'R17', refused = -1): void {
    const call = this.#calls;
    const status = this.#issue(n, true, refused);
    const { ctx, index } = this;
    ctx.check(invariant, status === 0, () => `p${index}'s SYNC: ${status}`);
    ctx.check(
      invariant,
      this.#history.synced(index, call),
      () => `p${index}'s SYNC is back before its list was taken`,
    );
  }

  #issue(n: number, sync: boolean, refused: number): number {
    const { index } = this;
    const call = this.#calls++;
    const cmds = commands(commandValue(index, call, 0), n, refused);
    this.#full(n + (sync ? 1 : 0));
    this.#history.begin(index, call, n, sync);
    const status = this.#queue.issue(cmds, n, sync);
    this.#history.end(index, call);
    return status;
  }
}

/** @param refused  place of the one that the SMMU does not know, or -1 */
function commands(value: number, n: number, refused: number): Uint32Array {
  const cmds = new Uint32Array(n * COMMAND_WORDS);
  for (let i = 0; i < n; i++) {
    cmds[i * COMMAND_WORDS] = i === refused ? REFUSED : CMD_PREFETCH_CONFIG;
    CMD_PREFETCH.StreamID.put(cmds, value + i, i * COMMAND_WORDS);
  }
  return cmds;
}
