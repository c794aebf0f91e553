/**
 * The driver's command queue with registers and a consumer of the test's own: no SMMU model. The consumer takes
 * commands between CMDQ_CONS and CMDQ_PROD as hardware may, and notes any slot it was given before it was written.
 */
import { i32, layout, line } from '../../hw/memory/layout.js';
import { MachineMemory, type MemoryHandle } from '../../hw/memory/machine-memory.js';
import { monotonicClock, type SyncEnv, ThreadTable, ThreadTableLayout } from '../../hw/sync/thread.js';
import { CommandQueue, type CommandQueueHost } from '../../runtime/drivers/smmuv3/cmdq.js';
import { DriverLayout, driverKey } from '../../runtime/drivers/smmuv3/driver-layout.js';

/** Registers by the offsets that [IHI0070] 6.3 gives them. */
const Registers = layout('test-registers', 1, {
  prod: line(i32()),
  cons: line(i32()),
  gerror: line(i32()),
  gerrorn: line(i32()),
  irq: line(i32()),
  parked: line(i32()),
  owner: line(i32()),
  /** A producer that is held: 1 when it has reserved and not written; it goes on at 2. */
  held: line(i32()),
});
const OFFSETS: Record<number, number> = {
  152: Registers.at.prod,
  156: Registers.at.cons,
  96: Registers.at.gerror,
  100: Registers.at.gerrorn,
};
const RAM_BYTES = 2 * 1024 * 1024;
const ERR_SHIFT = 24;

export interface ProducerReport {
  readonly thread: number;
  readonly status: number;
  /** Commands of each list, and whether it ended in a SYNC. */
  readonly lengths: readonly number[];
  readonly synced: readonly number[];
}

export function queueHost(
  memory: MachineMemory,
  acknowledged: () => void = () => undefined,
): CommandQueueHost {
  const { base } = memory.region(Registers, 'registers');
  const { words } = memory;
  const place = (offset: number): number => {
    const at = OFFSETS[offset];
    if (at === undefined) throw new Error(`the queue touched register 0x${offset.toString(16)}`);
    return base + at;
  };
  return {
    registers: {
      read32: (offset) => words.load(place(offset)) >>> 0,
      write32: (offset, value) => {
        words.store(place(offset), value);
        if (offset === 100) acknowledged();
      },
    },
    consWord: base + Registers.at.cons,
    consMoved: base + Registers.at.irq,
    consParked: base + Registers.at.parked,
    irqWord: base + Registers.at.irq,
    irqParked: base + Registers.at.parked,
    owner: () => words.load(base + Registers.at.owner),
  };
}

export function attachEnv(memory: MachineMemory, canPark: boolean, relax?: () => boolean): SyncEnv {
  const threads = new ThreadTable(memory, memory.region(ThreadTableLayout, 'threads'));
  return {
    words: memory.words,
    threads,
    threadId: threads.register(),
    clock: monotonicClock,
    canPark,
    relax,
  };
}

/** Linear offset of the word that holds a producer. */
export const heldWord = (memory: MachineMemory): number =>
  memory.region(Registers, 'registers').base + Registers.at.held;

export const attachMemory = (handle: MemoryHandle): MachineMemory => MachineMemory.attach(handle);

export class QueueFixture {
  readonly memory: MachineMemory;
  readonly env: SyncEnv;
  readonly queue: CommandQueue;
  /** Word 1 of each command in the order of execution; -1 for a SYNC. */
  readonly consumed: number[] = [];
  readonly violations: string[] = [];
  stopped = false;
  acknowledged = 0;
  /** Called whenever the producer on this thread waits. */
  onRelax: () => void = () => undefined;
  /** CERROR_* for a command, or 0. */
  refuse: (value: number) => number = () => 0;
  readonly #base: number;
  readonly #queueLinear: number;
  readonly #lg2: number;

  constructor(options: { lg2: number; msi?: boolean; deadlineNs?: number; canPark?: boolean }) {
    this.memory = MachineMemory.create({ ramBytes: RAM_BYTES });
    this.memory.allocRegion(ThreadTableLayout, 'threads');
    this.#base = this.memory.allocRegion(Registers, 'registers').base;
    this.memory.allocRegion(DriverLayout, driverKey(0));
    this.#lg2 = options.lg2;
    this.#queueLinear = this.memory.ram.linear;
    CommandQueue.reset(this.memory, 0, {
      linear: this.#queueLinear,
      lg2: options.lg2,
      flags: options.msi ? 1 : 0,
    });
    this.env = attachEnv(this.memory, false, () => {
      this.onRelax();
      return this.step();
    });
    const host = queueHost(this.memory, () => {
      this.acknowledged++;
    });
    this.queue = CommandQueue.attach(this.memory, this.env, 0, host, {
      ...(options.deadlineNs === undefined ? {} : { deadlineNs: options.deadlineNs }),
    });
  }

  prod(): number {
    return this.memory.words.load(this.#base + Registers.at.prod);
  }

  skipped(): number {
    const { base } = this.memory.region(DriverLayout, driverKey(0));
    return this.memory.words.load(base + DriverLayout.at.skipped);
  }

  markHostDead(): void {
    const id = this.env.threads.register();
    this.memory.words.store(this.#base + Registers.at.owner, id);
    this.env.threads.markDead(id);
  }

  consumeAll(): void {
    while (this.step());
  }

  /** Executes at most one command. @returns whether it did */
  step(): boolean {
    if (this.stopped) return false;
    const { words } = this.memory;
    const at = Registers.at;
    const active = words.load(this.#base + at.gerror) ^ words.load(this.#base + at.gerrorn);
    if (active !== 0) return false;
    const lap = 2 ** (this.#lg2 + 1) - 1;
    const cons = words.load(this.#base + at.cons) & lap;
    if (cons === (words.load(this.#base + at.prod) & lap)) return false;
    const slot = this.#queueLinear + (cons & (2 ** this.#lg2 - 1)) * 16;
    const opcode = words.load(slot) & 0xff;
    const sync = opcode === 0x46;
    const value = sync ? -1 : words.load(slot + 4) >>> 0;
    if (!sync && opcode !== 0x01) this.violations.push(`slot ${cons} holds ${opcode} when PROD covers it`);
    const refused = sync ? 0 : this.refuse(value);
    if (refused !== 0) {
      words.store(this.#base + at.cons, cons | (refused << ERR_SHIFT));
      words.xor(this.#base + at.gerror, 1);
      return true;
    }
    this.consumed.push(value);
    const msi = sync ? words.load(slot + 8) >>> 0 : 0;
    const irq = ((words.load(slot) >>> 12) & 3) === 1;
    // A consumed slot is the producer's again: what stands there must never be executed.
    if (!(sync && irq)) words.store(slot, 0xee);
    words.store(this.#base + at.cons, (cons + 1) & lap);
    if (sync && irq) words.store(this.memory.linearOf(msi, 4), 0);
    words.add(this.#base + at.irq, 1);
    if (words.load(this.#base + at.parked) !== 0) words.notify(this.#base + at.irq, Number.POSITIVE_INFINITY);
    return true;
  }
}
