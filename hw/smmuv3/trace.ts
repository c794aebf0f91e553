/**
 * Writer and readers of the trace region (trace-layout.ts). Without a region the writer costs one test.
 */
import { Xlat } from '../iotlb/port-layout.js';
import { StreamContext } from '../iotlb/unit-layout.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import type { Timeline } from '../timeline/timeline.js';
import {
  TIMELINE_COMMAND,
  TIMELINE_SERVE,
  TIMELINE_SYNC,
  TIMELINE_WALK,
} from '../timeline/timeline-layout.js';
import type { Smmuv3Regions } from './regions.js';
import {
  ClockLayout,
  COMMAND_RECORDS,
  CommandRecord,
  SYNC_RECORDS,
  SyncRecord,
  TraceLayout,
  WALK_RECORDS,
  WalkRecord,
} from './trace-layout.js';

export interface Walk {
  readonly seq: number;
  readonly sid: number;
  /** 4 KiB pages. */
  readonly iovaPage: number;
  readonly ipaPage: number;
  readonly paPage: number;
  readonly tick: number;
}

export interface TracedCommand {
  readonly seq: number;
  readonly words: readonly [number, number, number, number];
  readonly index: number;
  readonly tick: number;
}

export interface TracedSync {
  readonly seq: number;
  readonly index: number;
  readonly gen: number;
  readonly tick: number;
}

export class Trace {
  readonly #memory: MachineMemory;
  readonly #trace: number;
  readonly #clock: number;
  readonly #timeline: Timeline | null;

  /** @param timeline  of the pIOMMU, to say when as well */
  constructor(
    memory: MachineMemory,
    regions: Pick<Smmuv3Regions, 'trace' | 'clock'>,
    timeline: Timeline | null = null,
  ) {
    this.#timeline = timeline;
    this.#memory = memory;
    this.#trace = regions.trace;
    this.#clock = regions.clock;
  }

  get enabled(): boolean {
    return this.#trace !== 0;
  }

  /** Takes `count` ticks. @returns the first */
  tick(count = 1): number {
    return this.#clock === 0 ? 0 : this.#memory.words.add(this.#clock + ClockLayout.at.tick, count) >>> 0;
  }

  // ---- writer: the pIOMMU ----

  /** When something begins that `walk`, `served` or `command` will tell of; 0 without a timeline. */
  nowNs(): number {
    return this.#timeline === null ? 0 : this.#timeline.nowNs();
  }

  /** Requests of a stream have been translated; its walks have been told. */
  served(beganNs: number, requests: number, walks: number, faults: number, sid: number): void {
    this.#timeline?.record(TIMELINE_SERVE, beganNs, requests, walks, faults, sid);
  }

  /** @param context  StreamContext that it was walked with */
  walkAt(beganNs: number, xlat: number, context: number): void {
    if (this.#timeline === null) return;
    const u32 = this.#memory.u32;
    const x = xlat >>> 2;
    const page = (field: number) => (u32[x + field]! >>> 12) | (u32[x + field + 1]! << 20);
    const high = (field: number) => u32[x + field + 1]! >>> 12;
    const kind = u32[(context + StreamContext.at.kind) >>> 2]!;
    this.#timeline.recordPast(
      TIMELINE_WALK,
      beganNs,
      0,
      u32[x + (Xlat.at.fillSeq >> 2)]!,
      u32[x + (Xlat.at.sid >> 2)]!,
      page(Xlat.at.iova >> 2),
      high(Xlat.at.iova >> 2),
      page(Xlat.at.ipa >> 2),
      high(Xlat.at.ipa >> 2),
      u32[(context + StreamContext.at.tag) >>> 2]!,
      u32[x + (Xlat.at.sizeLg2 >> 2)]! | (kind << 8),
    );
  }

  /** Records a walk that succeeded, as its Xlat describes it. */
  walk(xlat: number, tick: number): void {
    if (this.#trace === 0) return;
    const u32 = this.#memory.u32;
    const x = xlat >>> 2;
    const seq = u32[x + (Xlat.at.fillSeq >> 2)]!;
    const base = this.#trace + TraceLayout.at.walks + (seq % WALK_RECORDS) * WalkRecord.size;
    const w = base >>> 2;
    this.#memory.words.store(base, 0);
    u32[w + 1] = u32[x + (Xlat.at.sid >> 2)]!;
    for (const [k, field] of WALK_ADDRESSES) {
      const low = u32[x + field]!;
      const high = u32[x + field + 1]!;
      u32[w + k] = (low >>> 12) | (high << 20);
      u32[w + k + 1] = high >>> 12;
    }
    u32[w + (WalkRecord.at.tick >> 2)] = tick;
    this.#memory.words.store(base, seq);
  }

  command(command: Uint32Array, index: number, beganNs = 0): void {
    if (this.#trace === 0) return;
    this.#timeline?.record(
      TIMELINE_COMMAND,
      beganNs,
      command[0]!,
      command[1]!,
      command[2]!,
      command[3]!,
      index,
    );
    const { words, u32 } = this.#memory;
    const counter = this.#trace + TraceLayout.at.commandSeq;
    const seq = (words.load(counter) + 1) >>> 0;
    const base = this.#trace + TraceLayout.at.commands + ((seq - 1) % COMMAND_RECORDS) * CommandRecord.size;
    const w = base >>> 2;
    words.store(base, 0);
    for (let i = 0; i < 4; i++) u32[w + 1 + i] = command[i]!;
    u32[w + 5] = index;
    u32[w + 6] = this.tick();
    words.store(base, seq);
    words.store(counter, seq);
  }

  /** @param seq  syncSeq after this SYNC */
  sync(seq: number, index: number, gen: number): void {
    if (this.#trace === 0) return;
    this.#timeline?.record(TIMELINE_SYNC, this.#timeline.nowNs(), seq, index, gen);
    const { words, u32 } = this.#memory;
    const base = this.#trace + TraceLayout.at.syncs + (((seq - 1) >>> 0) % SYNC_RECORDS) * SyncRecord.size;
    words.store(base, 0);
    const w = base >>> 2;
    u32[w + 1] = index;
    u32[w + 2] = gen;
    u32[w + 3] = this.tick();
    words.store(base, seq);
  }

  // ---- readers: any thread ----

  /** @returns the walk with that fillSeq, or null when it was overwritten (or there is no trace) */
  findWalk(seq: number): Walk | null {
    const at = TraceLayout.at.walks + (seq % WALK_RECORDS) * WalkRecord.size;
    const r = this.#read(at, seq, WalkRecord.size);
    if (r === null) return null;
    return {
      seq,
      sid: r[1]!,
      iovaPage: r[2]! + r[3]! * 2 ** 32,
      ipaPage: r[4]! + r[5]! * 2 ** 32,
      paPage: r[6]! + r[7]! * 2 ** 32,
      tick: r[8]!,
    };
  }

  /** Number of the last command consumed; 0 before the first. */
  lastCommand(): number {
    return this.#trace === 0 ? 0 : this.#memory.words.load(this.#trace + TraceLayout.at.commandSeq) >>> 0;
  }

  findCommand(seq: number): TracedCommand | null {
    const at = TraceLayout.at.commands + (((seq - 1) >>> 0) % COMMAND_RECORDS) * CommandRecord.size;
    const r = this.#read(at, seq, CommandRecord.size);
    if (r === null) return null;
    return { seq, words: [r[1]!, r[2]!, r[3]!, r[4]!], index: r[5]!, tick: r[6]! };
  }

  findSync(seq: number): TracedSync | null {
    const at = TraceLayout.at.syncs + (((seq - 1) >>> 0) % SYNC_RECORDS) * SyncRecord.size;
    const r = this.#read(at, seq, SyncRecord.size);
    return r === null ? null : { seq, index: r[1]!, gen: r[2]!, tick: r[3]! };
  }

  #read(offset: number, seq: number, bytes: number): Uint32Array | null {
    if (this.#trace === 0 || seq === 0) return null;
    const { words, u32 } = this.#memory;
    const base = this.#trace + offset;
    if (words.load(base) >>> 0 !== seq) return null;
    const copy = u32.slice(base >>> 2, (base + bytes) >>> 2);
    return words.load(base) >>> 0 === seq ? copy : null;
  }
}

const WALK_ADDRESSES = [
  [WalkRecord.at.iovaPageLo >> 2, Xlat.at.iova >> 2],
  [WalkRecord.at.ipaPageLo >> 2, Xlat.at.ipa >> 2],
  [WalkRecord.at.paPageLo >> 2, Xlat.at.pa >> 2],
] as const;
