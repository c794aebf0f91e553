/**
 * How many different states a campaign came through: at each decision, the memory under test and where each thread
 * stands. Two threads' worth of schedules meet in the same states again and again; their number says how large what was
 * searched is. States are told apart by 64 bits of hash, so that a few in 10^12 pairs are taken for one.
 *
 *   header: states, lost, threads' steps in this schedule | table: low, high of each hash; 0, 0 is free
 *
 * Where a thread stands is how many choices fell on it, its next access, and whether it sleeps. Shared by the threads
 * of a session without atomics: the one that has the token writes.
 */
import { type ControlMemory, H, MAX_EXPLORED, T } from './control.js';

const STATES = 0;
const LOST = 1;
const STEPS = 2;
const TABLE = 16;
const SLOTS = 2 ** 22;
const MAX_STATES = SLOTS * 0.75;

export const stateCountBuffer = (): SharedArrayBuffer => new SharedArrayBuffer((TABLE + 2 * SLOTS) * 4);

export class StateCount {
  readonly #i32: Int32Array;
  readonly #control: ControlMemory;
  readonly #memory: Int32Array;
  readonly #ranges: readonly (readonly [number, number])[];

  /** @param ranges  what of the memory belongs to the state, bytes: [first, end). All of it is read at each decision */
  constructor(
    buffer: SharedArrayBuffer,
    control: ControlMemory,
    memory: SharedArrayBuffer,
    ranges: readonly (readonly [number, number])[],
  ) {
    this.#i32 = new Int32Array(buffer);
    this.#control = control;
    this.#memory = new Int32Array(memory);
    this.#ranges = ranges.map(([first, end]) => [first >>> 2, end >>> 2]);
  }

  /** Before a campaign. */
  clear(): void {
    this.#i32.fill(0);
  }

  /** Before a schedule. */
  begin(): void {
    this.#i32.fill(0, STEPS, STEPS + MAX_EXPLORED);
  }

  /** A decision in favour of a thread. */
  decided(thread: number): void {
    this.#see();
    this.#i32[STEPS + thread]!++;
  }

  get count(): number {
    return this.#i32[STATES]!;
  }

  /** The table is full, and count a lower bound. */
  get overflown(): boolean {
    return this.#i32[LOST] !== 0;
  }

  #see(): void {
    const { i32 } = this.#control;
    const memory = this.#memory;
    let low = 0x811c9dc5 | 0;
    let high = 0x2f0b4c47;
    for (const [first, end] of this.#ranges)
      for (let i = first; i < end; i++) {
        const word = memory[i]!;
        low = Math.imul(low ^ word, 0x01000193);
        high = Math.imul(high ^ word ^ (low >>> 15), 0x5bd1e995);
      }
    for (let t = 0; t < i32[H.threads]!; t++) {
      const at = this.#control.thread(t);
      const stands = i32[at + T.status]! | (i32[at + T.pendingOp]! << 4) | (this.#i32[STEPS + t]! << 8);
      low = Math.imul(low ^ stands, 0x01000193);
      low = Math.imul(low ^ i32[at + T.pendingOffset]!, 0x01000193);
      high = Math.imul(high ^ stands ^ (low >>> 15), 0x5bd1e995);
    }
    low ^= low >>> 16;
    high ^= high >>> 13;
    if (low === 0 && high === 0) high = 1;
    this.#insert(low, high);
  }

  #insert(low: number, high: number): void {
    const table = this.#i32;
    for (let slot = (low ^ Math.imul(high, 0x9e3779b1)) & (SLOTS - 1); ; slot = (slot + 1) & (SLOTS - 1)) {
      const at = TABLE + 2 * slot;
      if (table[at] === low && table[at + 1] === high) return;
      if (table[at] !== 0 || table[at + 1] !== 0) continue;
      if (table[STATES]! >= MAX_STATES) {
        table[LOST] = 1;
        return;
      }
      table[at] = low;
      table[at + 1] = high;
      table[STATES]!++;
      return;
    }
  }
}
