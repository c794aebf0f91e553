/** One thread's view of the control page: who is here, what phase the machine is in, and the core's doorbell. */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import { MAX_THREADS } from '../../hw/sync/thread.js';
import type { WaitResult, Words } from '../../hw/sync/words.js';
import { ControlLayout, MAX_UNITS, PHASE_RUNNING, PHASE_STARTING } from './control-layout.js';

const KEY = 'control';
const AT = ControlLayout.at;

export class Control {
  readonly #words: Words;
  readonly #base: number;

  constructor(memory: MachineMemory) {
    this.#words = memory.words;
    this.#base = memory.region(ControlLayout, KEY).base;
  }

  /** Carves the page out on first use, and clears it. Only while no other thread is attached. */
  static create(memory: MachineMemory, coreThread: number): Control {
    if (!memory.hasRegion(KEY)) memory.allocRegion(ControlLayout, KEY);
    const { base, size } = memory.region(ControlLayout, KEY);
    memory.u8.fill(0, base, base + size);
    const control = new Control(memory);
    control.#words.store(base + AT.coreThread, coreThread);
    return control;
  }

  get coreThread(): number {
    return this.#words.load(this.#base + AT.coreThread);
  }

  get phase(): number {
    return this.#words.load(this.#base + AT.phase);
  }

  setPhase(phase: number): void {
    this.#words.store(this.#base + AT.phase, phase);
    this.#words.notify(this.#base + AT.phase, Number.POSITIVE_INFINITY);
  }

  /** Whether programs should return: anything after RUNNING. */
  get stopping(): boolean {
    return this.phase > PHASE_RUNNING;
  }

  /** Parks until the host says go or stop. The supervisor ends a thread whose host is gone. */
  awaitGo(): void {
    while (this.phase === PHASE_STARTING) this.#words.wait(this.#base + AT.phase, PHASE_STARTING, 20);
  }

  /** A thread announces which of node's threads it is, and that it is at work. */
  arrive(threadId: number, nodeThreadId: number, taskId = -1): void {
    this.#words.store(this.#base + AT.task + threadId * 4, taskId + 1);
    this.#words.store(this.#base + AT.busy + threadId * 4, 1);
    this.#words.store(this.#base + AT.node + threadId * 4, nodeThreadId + 1);
  }

  /** The work is over; the thread stays attached and may take another task. */
  idle(threadId: number): void {
    this.#words.store(this.#base + AT.busy + threadId * 4, 0);
    this.#words.store(this.#base + AT.task + threadId * 4, 0);
  }

  /** Leaves the page: its own departure in good order, or the supervisor's last word on it. */
  depart(threadId: number): void {
    this.idle(threadId);
    this.#words.store(this.#base + AT.node + threadId * 4, 0);
  }

  /** @returns the machine thread id of one of node's threads, or 0 when it never arrived or has departed */
  threadOf(nodeThreadId: number): number {
    for (let id = 1; id <= MAX_THREADS; id++)
      if (this.#words.load(this.#base + AT.node + id * 4) === nodeThreadId + 1) return id;
    return 0;
  }

  isBusy(threadId: number): boolean {
    return this.#words.load(this.#base + AT.busy + threadId * 4) !== 0;
  }

  /** @returns the number of the task the thread runs, or -1 */
  taskOf(threadId: number): number {
    return this.#words.load(this.#base + AT.task + threadId * 4) - 1;
  }

  /** Every thread on the page that is at work, as machine thread ids. */
  busyThreads(): number[] {
    const ids: number[] = [];
    for (let id = 1; id <= MAX_THREADS; id++) if (this.isBusy(id)) ids.push(id);
    return ids;
  }

  unitState(index: number): number {
    return this.#words.load(this.#unit(AT.unitState, index));
  }

  setUnitState(index: number, state: number): void {
    this.#words.store(this.#unit(AT.unitState, index), state);
  }

  unitThread(index: number): number {
    return this.#words.load(this.#unit(AT.unitThread, index));
  }

  setUnitThread(index: number, threadId: number): void {
    this.#words.store(this.#unit(AT.unitThread, index), threadId);
  }

  unitStartUs(index: number): number {
    return this.#words.load(this.#unit(AT.unitStartUs, index));
  }

  setUnitStartUs(index: number, us: number): void {
    this.#words.store(this.#unit(AT.unitStartUs, index), us);
  }

  /** Tells the core that there is work for it. */
  ringCore(): void {
    this.#words.add(this.#base + AT.coreDoorbell, 1);
    if (this.#words.load(this.#base + AT.coreParked) !== 0)
      this.#words.notify(this.#base + AT.coreDoorbell, Number.POSITIVE_INFINITY);
  }

  /** The core's sleep: announce, look once more, and wait without blocking the event loop. */
  async coreSleep(hasWork: () => boolean, timeoutMs: number): Promise<WaitResult> {
    this.#words.store(this.#base + AT.coreParked, 1);
    // Read after the announcement: whoever rings from here on changes the word and notifies.
    const seen = this.#words.load(this.#base + AT.coreDoorbell);
    const result = hasWork()
      ? 'not-equal'
      : await this.#words.waitAsync(this.#base + AT.coreDoorbell, seen, timeoutMs);
    this.#words.store(this.#base + AT.coreParked, 0);
    return result;
  }

  #unit(field: number, index: number): number {
    if (index < 0 || index >= MAX_UNITS) throw new RangeError(`there is no IOMMU number ${index}`);
    return this.#base + field + index * 4;
  }
}
