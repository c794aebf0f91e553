/**
 * Questions to one pIOMMU's trace (hw/smmuv3/trace.ts), which answers for a record by its number: here they are
 * asked by tick, by queue index or by page. Whole rings are read, so only for a story.
 */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { Trace, type TracedCommand, type TracedSync, type Walk } from '../../../hw/smmuv3/trace.js';
import {
  ClockLayout,
  SYNC_RECORDS,
  SyncRecord,
  TraceLayout,
  WALK_RECORDS,
  WalkRecord,
} from '../../../hw/smmuv3/trace-layout.js';

export interface CommandSeen extends Omit<TracedCommand, 'words'> {
  readonly opcode: number;
  readonly words: readonly number[];
}

export class TraceReader {
  readonly #memory: MachineMemory;
  readonly #base: number;
  readonly #trace: Trace;

  constructor(memory: MachineMemory, iommu: number) {
    this.#memory = memory;
    this.#base = memory.region(TraceLayout, `trace:${iommu}`).base;
    this.#trace = new Trace(memory, { trace: this.#base, clock: memory.region(ClockLayout, 'clock').base });
  }

  /** The walk of a fill, or null when it has left the ring. */
  walk(seq: number): Walk | null {
    return this.#trace.findWalk(seq);
  }

  /** Of the walks still in the ring, the last that translated this page to this frame. */
  lastWalk(iovaPage: number, pfn: number): Walk | null {
    let last: Walk | null = null;
    for (let slot = 0; slot < WALK_RECORDS; slot++) {
      const at = (this.#base + TraceLayout.at.walks + slot * WalkRecord.size) >> 2;
      if (this.#memory.u32[at + (WalkRecord.at.paPageLo >> 2)] !== pfn) continue;
      const walk = this.#trace.findWalk(this.#memory.u32[at]!);
      if (walk?.paPage === pfn && walk.iovaPage === iovaPage && (last === null || walk.tick > last.tick))
        last = walk;
    }
    return last;
  }

  /** Of the SYNCs still in the ring, those that completed at queue index `index`, latest first. */
  syncsAt(index: number): TracedSync[] {
    const found: TracedSync[] = [];
    for (let slot = 0; slot < SYNC_RECORDS; slot++) {
      const at = this.#base + TraceLayout.at.syncs + slot * SyncRecord.size;
      const sync = this.#trace.findSync(this.#memory.words.load(at) >>> 0);
      if (sync !== null && (sync.index & 0xfffff) === (index & 0xfffff)) found.push(sync);
    }
    return found.sort((a, b) => b.tick - a.tick);
  }

  /** Commands consumed between two ticks, in order. */
  commandsBetween(from: number, to: number): CommandSeen[] {
    const found: CommandSeen[] = [];
    for (let seq = this.#trace.lastCommand(); seq > 0; seq--) {
      const command = this.#trace.findCommand(seq);
      // Left the ring, or older than what is asked for: so is all before it.
      if (command === null || command.tick < from) break;
      if (command.tick <= to) found.push({ ...command, opcode: command.words[0] & 0xff });
    }
    return found.reverse();
  }
}
