/**
 * Reads one pIOMMU's trace rings (hw/smmuv3/trace-layout.ts) from another thread: a record counts only if its
 * number is the one looked for, before and after it was copied.
 */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import {
  COMMAND_RECORDS,
  CommandRecord,
  SYNC_RECORDS,
  SyncRecord,
  TraceLayout,
  WALK_RECORDS,
  WalkRecord,
} from '../../../hw/smmuv3/trace-layout.js';

export interface WalkSeen {
  readonly seq: number;
  readonly sid: number;
  readonly iovaPage: number;
  readonly ipaPage: number;
  readonly pfn: number;
  readonly tick: number;
}

export interface SyncSeen {
  readonly seq: number;
  readonly index: number;
  readonly gen: number;
  readonly tick: number;
}

export interface CommandSeen {
  readonly seq: number;
  readonly opcode: number;
  readonly words: readonly number[];
  readonly index: number;
  readonly tick: number;
}

export class TraceReader {
  readonly #memory: MachineMemory;
  readonly #base: number;

  constructor(memory: MachineMemory, iommu: number) {
    this.#memory = memory;
    this.#base = memory.region(TraceLayout, `trace:${iommu}`).base;
  }

  /** The walk of a fill, or null when it has left the ring. */
  walk(seq: number): WalkSeen | null {
    const at = this.#base + TraceLayout.at.walks + (seq % WALK_RECORDS) * WalkRecord.size;
    const f = WalkRecord.at;
    return this.#copy(at, seq, (u32) => ({
      seq,
      sid: u32(f.sid),
      iovaPage: u32(f.iovaPageHi) * 2 ** 32 + u32(f.iovaPageLo),
      ipaPage: u32(f.ipaPageHi) * 2 ** 32 + u32(f.ipaPageLo),
      pfn: u32(f.paPageHi) * 2 ** 32 + u32(f.paPageLo),
      tick: u32(f.tick),
    }));
  }

  /** Of the walks still in the ring, the last that translated this page to this frame. Reads the whole ring. */
  lastWalk(iovaPage: number, pfn: number): WalkSeen | null {
    const f = WalkRecord.at;
    const { u32 } = this.#memory;
    let last: WalkSeen | null = null;
    for (let slot = 0; slot < WALK_RECORDS; slot++) {
      const at = (this.#base + TraceLayout.at.walks + slot * WalkRecord.size) >> 2;
      if (u32[at + (f.paPageLo >> 2)] !== pfn) continue;
      const walk = this.walk(u32[at]!);
      if (walk?.pfn === pfn && walk.iovaPage === iovaPage && (last === null || walk.tick > last.tick))
        last = walk;
    }
    return last;
  }

  /** Of the SYNCs still in the ring, those that completed at queue index `index`, latest first. */
  syncsAt(index: number): SyncSeen[] {
    const found: SyncSeen[] = [];
    const f = SyncRecord.at;
    for (let slot = 0; slot < SYNC_RECORDS; slot++) {
      const at = this.#base + TraceLayout.at.syncs + slot * SyncRecord.size;
      const seq = this.#memory.words.load(at) >>> 0;
      if (seq === 0 || (this.#memory.u32[(at + f.index) >> 2]! & 0xfffff) !== (index & 0xfffff)) continue;
      const record = this.#copy(at, seq, (u32) => ({
        seq,
        index: u32(f.index),
        gen: u32(f.gen),
        tick: u32(f.tick),
      }));
      if (record !== null) found.push(record);
    }
    return found.sort((a, b) => b.tick - a.tick);
  }

  /** Commands consumed between two ticks, in order. */
  commandsBetween(from: number, to: number): CommandSeen[] {
    const found: CommandSeen[] = [];
    const f = CommandRecord.at;
    for (let slot = 0; slot < COMMAND_RECORDS; slot++) {
      const at = this.#base + TraceLayout.at.commands + slot * CommandRecord.size;
      const seq = this.#memory.words.load(at) >>> 0;
      const tick = this.#memory.u32[(at + f.tick) >> 2]!;
      if (seq === 0 || tick < from || tick > to) continue;
      const record = this.#copy(at, seq, (u32) => ({
        seq,
        opcode: u32(f.word0) & 0xff,
        words: [u32(f.word0), u32(f.word1), u32(f.word2), u32(f.word3)],
        index: u32(f.index),
        tick: u32(f.tick),
      }));
      if (record !== null) found.push(record);
    }
    return found.sort((a, b) => a.seq - b.seq);
  }

  #copy<T>(at: number, seq: number, read: (u32: (offset: number) => number) => T): T | null {
    if (this.#memory.words.load(at) >>> 0 !== seq) return null;
    const record = read((offset) => this.#memory.u32[(at + offset) >> 2]!);
    return this.#memory.words.load(at) >>> 0 === seq ? record : null;
  }
}
